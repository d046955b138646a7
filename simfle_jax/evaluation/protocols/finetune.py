"""Fine-tuning: the whole trunk is trained with a classifier on the labels, by the probe's random crops and flips.

The last epoch is reported: nothing is chosen on val. The same command goes on where it was stopped, to the same bits.
"""

import dataclasses

import jax.numpy as jnp

from simfle_jax.encoder import Encoder
from simfle_jax.evaluation.few_labels import few_rows
from simfle_jax.evaluation.finetune import TuneStep
from simfle_jax.evaluation.linear import Linear
from simfle_jax.evaluation.protocols.base import TrunkProtocol, Tuned, TuningSet
from simfle_jax.evaluation.sets import Subset
from simfle_jax.evaluation.settings import Probe
from simfle_jax.evaluation.tuning import tuned


class FineTune(TrunkProtocol):
    """Trunk and classifier trained together."""

    def tune(self, encoder: Encoder, train: TuningSet) -> Tuned:
        images, share = train.images, self.probe.finetune.share
        if share < 1:
            assert images.labels is not None
            images = Subset(images, few_rows(images.labels, share, (self.probe.seed, 0)))
        found = fine_tuned(self.probe, encoder, dataclasses.replace(train, images=images))
        return found._replace(facts=found.facts | {"share": share}) if share < 1 else found


def fine_tuned(probe: Probe, encoder: Encoder, train: TuningSet, told: str = "fine-tuning") -> Tuned:
    """A copy of the encoder and a classifier, trained on all of `train`; `told`: beside the progress."""
    images = train.images
    assert images.labels is not None

    def step(batch_size: int, per_epoch: int) -> TuneStep:
        return TuneStep(encoder, train.n_classes, probe, batch_size, per_epoch)

    state, bad = tuned(step, images, images.labels.astype("int32"), probe, train.canvas, train.folder, told)
    trunk = {"params": state.params["trunk"], "stats": state.stats}
    facts = {"train_count": len(images), "kept": "the last epoch: nothing was chosen"}
    return Tuned(encoder.retrained(trunk), Linear(*map(jnp.asarray, state.params["fc"])), facts, bad)


PROTOCOL = FineTune
