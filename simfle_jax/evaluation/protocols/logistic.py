"""Logistic regression to its optimum, on features that are computed once: no rate, no epochs, no luck.

The strength of the penalty is chosen on a fifth of train; then all of train is fitted. The demo's numbers are these.
"""

from collections.abc import Mapping

import numpy as np

from simfle_jax.evaluation.linear import Labelled
from simfle_jax.evaluation.logistic import fit_chosen
from simfle_jax.evaluation.protocols.base import Fitted, ProbeProtocol, TrainingSet


class LogisticProbe(ProbeProtocol):
    """Logistic regression."""

    takes_votes = True

    def fit(self, train: TrainingSet, held: Mapping[str, Labelled]) -> Fitted:
        features, labels = (np.asarray(part) for part in train.plain())
        shares = train.shares() if train.shares else None
        layer, l2 = fit_chosen(features, labels, train.n_classes, self.probe.seed, shares)
        return Fitted(layer, {"l2": l2, "selected_on": "a fifth of train: the strength"})


PROTOCOL = LogisticProbe
