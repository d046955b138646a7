"""Few labels: logistic regression on 1, 5, 10 and 25 % of every class's training images, several draws of each.

Which images are drawn decides a good part of such a score, so every draw is reported, with the mean and the range of
each share. The probe that is kept is the first draw of the largest share.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from simfle_jax.evaluation import scores
from simfle_jax.evaluation.linear import Labelled, Linear
from simfle_jax.evaluation.logistic import fit_chosen
from simfle_jax.evaluation.protocols.base import Fitted, ProbeProtocol, TrainingSet
from simfle_jax.progress import Progress


class LowLabelProbe(ProbeProtocol):
    """Logistic regression on few labels."""

    def fit(self, train: TrainingSet, held: Mapping[str, Labelled]) -> Fitted:
        features, labels = (np.asarray(part) for part in train.plain())
        few, seed, kept = self.probe.lowlabel, self.probe.seed, None
        shares = sorted(few.shares, reverse=True)
        progress, draws = Progress(len(shares) * few.draws, "fits of few labels"), list[dict[str, Any]]()
        for share in shares:
            for draw in range(few.draws):
                rows = few_rows(labels, share, (seed, draw))
                layer, l2 = fit_chosen(features[rows], labels[rows], train.n_classes, seed)
                kept = layer if kept is None else kept
                facts = {"share": share, "draw": draw, "train_count": len(rows), "l2": l2}
                draws.append(facts | score(layer, held["val"], train.n_classes))
                progress.update(len(draws))
        assert kept is not None
        told = f"the scores of the whole are those of the probe that is kept: share {shares[0]:g}, draw 0"
        return Fitted(kept, {"shares": summaries(draws), "draws": draws, "kept": told})


def few_rows(labels: np.ndarray, share: float, key: tuple[int, int]) -> np.ndarray:
    """Rows of a draw: of every class its share, rounded, and at least one image.

    key: seed and number of the draw. A smaller share of the same draw holds a part of the images of a larger one.
    """
    rng, chosen = np.random.default_rng(key), []
    for number in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == number))
        chosen.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(chosen))


def score(layer: Linear, held: Labelled, n_classes: int) -> dict[str, float]:
    """The summary scores of a layer."""
    predictions = np.asarray(layer.predict(jnp.asarray(held.features)))
    matrix = scores.confusion(np.asarray(held.labels), predictions, n_classes)
    return {name: float(value(matrix)) for name, value in scores.SUMMARY.items()}


def summaries(draws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every share: mean, lowest and highest of each score over its draws."""
    found = []
    for share in sorted({draw["share"] for draw in draws}):
        own = [draw for draw in draws if draw["share"] == share]
        row: dict[str, Any] = {"share": share, "train_count": own[0]["train_count"], "draws": len(own)}
        for name in scores.SUMMARY:
            values = [draw[name] for draw in own]
            row[name] = {"mean": float(np.mean(values)), "range": [min(values), max(values)]}
        found.append(row)
    return found


PROTOCOL = LowLabelProbe
