"""The linear probe on features that are computed once, without crops and flips; at one learning rate, or at several.

With `cached.lrs` all rates are trained in one pass over the features. The rate and its epoch are those that do best on
a part of train (`select_on = 'train-holdout'`), and give the weights that this rate alone gives.
"""

from simfle_jax.evaluation.linear import Labelled
from simfle_jax.evaluation.protocols.base import TrainingSet
from simfle_jax.evaluation.protocols.linear import LinearProbe
from simfle_jax.evaluation.settings import Probe
from simfle_jax.progress import Progress

EPOCHS_AT_ONCE = 10


class CachedProbe(LinearProbe):
    """The linear probe without random crops."""

    needs_images = False

    def __init__(self, probe: Probe):
        super().__init__(probe)
        self.rates = probe.cached.lrs
        self.kept: Labelled | None = None

    def epochs_at_once(self) -> int:
        return EPOCHS_AT_ONCE

    def features(self, train: TrainingSet, epoch: int, progress: Progress) -> Labelled:
        self.kept = self.kept or train.plain()
        return self.kept


PROTOCOL = CachedProbe
