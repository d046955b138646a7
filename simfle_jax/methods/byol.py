"""BYOL (Grill et al. 2020): predict the target network's projection of the other view.

    y1, y2 = trunk(x1), trunk(x2);  z = projector(y);  p = predictor(z)
    q1, q2 = target(x2), target(x1)                    # no gradient
    loss   = |unit(p1) - unit(q1)|^2 + |unit(p2) - unit(q2)|^2       (2) and its symmetric form
    target = decay * target + (1 - decay) * online                   (1), after the step

Numbers are the paper's equations. As in SimFLE's published program each view is its own batch for BatchNorm, and the
target network runs in training mode and keeps statistics of its own.
"""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from simfle_jax import losses
from simfle_jax.methods.base import Method, Metrics, Outcome, weighted
from simfle_jax.models.network import Network, OnlineSide, Projections
from simfle_jax.views import Views


def exchanged_projections(target: Network, views: Views) -> Projections:
    """(q1, q2): the target network's projections of the second and of the first view."""
    q2 = target(views.first, train=True).projections
    q1 = target(views.second, train=True).projections
    return q1, q2


def similarity(predictions: Projections, targets: Projections) -> Float[Array, ""]:
    """Equation (2) for both views, means over the batch."""
    first, second = (losses.similarity(p, q).mean() for p, q in zip(predictions, targets))
    return first + second


class BYOL(Method):
    """BYOL alone."""

    def networks(self, rngs: nnx.Rngs) -> OnlineSide:
        return OnlineSide(self.config, rngs)

    def targets(self, target: Network, views: Views) -> Projections:
        return exchanged_projections(target, views)

    def loss(self, networks: Any, views: Views, targets: Projections, draw: Any) -> Outcome:
        seen = networks.see(views)
        outcome = weighted({"similarity": similarity(seen.predictions, targets)})
        return outcome._replace(outputs=seen, features=seen.features[0])

    def instruments(self, outputs: Any) -> Metrics:
        return super().instruments(outputs.projections[0])


METHOD = BYOL
