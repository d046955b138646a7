"""A vote of the nearest training images (cosine): nothing is trained, so nothing but the features can be good or bad.

Of several `knn.k` and `knn.temperature` the pair is taken that does best on a fifth of train; all of train then votes.
"""

from collections.abc import Mapping

import numpy as np

from simfle_jax.evaluation.linear import Labelled
from simfle_jax.evaluation.nearest import choose_vote, neighbours
from simfle_jax.evaluation.protocols.base import Fitted, ProbeProtocol, TrainingSet


class KnnProbe(ProbeProtocol):
    """k nearest neighbours."""

    def fit(self, train: TrainingSet, held: Mapping[str, Labelled]) -> Fitted:
        features, labels = (np.asarray(part) for part in train.plain())
        tried = self.probe.knn
        k, temperature = choose_vote((features, labels), train.n_classes, tried.k, tried.temperature, self.probe.seed)
        chosen = len(tried.k) * len(tried.temperature) > 1
        facts = {"selected_on": "a fifth of train: k and temperature"} if chosen else {}
        return Fitted(
            neighbours(features, labels, train.n_classes, k, temperature), {"k": k, "temperature": temperature} | facts
        )


PROTOCOL = KnnProbe
