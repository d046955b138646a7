"""Few labels: logistic regression or fine-tuning on 1, 5, 10 and 25 % of every class's training images, several draws.

Which images are drawn decides a good part of such a score, so every draw is reported, with the mean and the range of
each share. The probe that is kept is the first draw of the largest share.
"""

import dataclasses
import itertools
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax.encoder import Encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import records
from simfle_jax.evaluation.few_labels import few_rows, summaries, summary_scores
from simfle_jax.evaluation.linear import Labelled
from simfle_jax.evaluation.logistic import fit_chosen
from simfle_jax.evaluation.protocols.base import (
    Fitted,
    ProbeProtocol,
    Protocol,
    TrainingSet,
    TrunkProtocol,
    Tuned,
    TuningSet,
)
from simfle_jax.evaluation.protocols.finetune import fine_tuned
from simfle_jax.evaluation.sets import Subset
from simfle_jax.evaluation.settings import LowLabelSettings, Probe
from simfle_jax.progress import Progress
from simfle_jax.runs import peers
from simfle_jax.runs.mirror import mirror_of
from simfle_jax.writing import write_json


class LowLabelProbe(ProbeProtocol):
    """Logistic regression on few labels."""

    def fit(self, train: TrainingSet, held: Mapping[str, Labelled]) -> Fitted:
        features, labels = (np.asarray(part) for part in train.plain())
        few, seed, kept = self.probe.lowlabel, self.probe.seed, None
        progress, draws = Progress(len(few.shares) * few.draws, "fits of few labels"), list[dict[str, Any]]()
        val = jnp.asarray(held["val"].features), np.asarray(held["val"].labels)
        for share, draw in _draws(few):
            rows = few_rows(labels, share, (seed, draw))
            layer, l2 = fit_chosen(features[rows], labels[rows], train.n_classes, seed)
            kept = layer if kept is None else kept
            facts = {"share": share, "draw": draw, "train_count": len(rows), "l2": l2}
            draws.append(facts | summary_scores(val[1], np.asarray(layer.predict(val[0])), train.n_classes))
            progress.update(len(draws))
        assert kept is not None
        return Fitted(kept, _told(draws))


class LowLabelTuned(TrunkProtocol):
    """Fine-tuning on few labels. Each draw but the kept one has a folder in `draws`; a finished one is not done again."""

    def tune(self, encoder: Encoder, train: TuningSet) -> Tuned:
        if jax.process_count() > 1 and mirror_of(train.folder):
            raise UserError(
                "lowlabel.on = 'finetune' on several hosts needs a --workdir on a disk that all of them share"
            )
        kept, draws, bad = None, list[dict[str, Any]](), dict[str, str]()
        for share, draw in _draws(self.probe.lowlabel):
            folder = train.folder / "draws" / f"{share:g}-{draw}" if kept else train.folder
            facts = peers.of_first(partial(records.read_results, folder)) if kept else None
            if facts is None:
                found, facts = self._draw(encoder, train, share, draw, folder)
                if kept and jax.process_index() == 0:
                    write_json(folder / "results.json", facts)
                    shutil.rmtree(folder / "checkpoints")  # gigabytes, of which only the kept one's are used again
                kept = kept or found
            bad |= facts.pop("bad")
            draws.append(facts)
        assert kept is not None
        return Tuned(kept.encoder, kept.predictor, _told(draws), bad)

    def _draw(
        self, encoder: Encoder, train: TuningSet, share: float, draw: int, folder: Path
    ) -> tuple[Tuned, dict[str, Any]]:
        assert train.images.labels is not None
        rows = few_rows(train.images.labels, share, (self.probe.seed, draw))
        folder.mkdir(parents=True, exist_ok=True)
        own = dataclasses.replace(train, images=Subset(train.images, rows), folder=folder)
        found = fine_tuned(self.probe, encoder, own, f"fine-tuning on {100 * share:g} %, draw {draw}")
        facts = {"share": share, "draw": draw, "train_count": len(rows), "bad": found.bad}
        return found, facts | train.score(found.encoder, found.predictor)


def _draws(few: LowLabelSettings) -> Iterator[tuple[float, int]]:
    """Share and number of every draw, the one that is kept first."""
    return itertools.product(sorted(few.shares, reverse=True), range(few.draws))


def _told(draws: list[dict[str, Any]]) -> dict[str, Any]:
    told = f"the scores of the whole are those of the probe that is kept: share {draws[0]['share']:g}, draw 0"
    return {"shares": summaries(draws), "draws": draws, "kept": told}


def low_label(probe: Probe) -> Protocol:
    """The protocol on what `lowlabel.on` names."""
    return (LowLabelTuned if probe.lowlabel.on == "finetune" else LowLabelProbe)(probe)


PROTOCOL = low_label
