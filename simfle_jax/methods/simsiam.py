"""SimSiam (Chen & He 2021): Siamese networks without a target network; the stop-gradient alone prevents collapse.

    z1, z2 = projector(trunk(x1)), projector(trunk(x2));  p1, p2 = predictor(z1), predictor(z2)
    D(p, z) = -cos(p, z)                                              (1)
    loss    = D(p1, stop(z2)) / 2 + D(p2, stop(z1)) / 2               (2), (4)

Numbers are the paper's equations. The projector has three layers, the last one normalised, and the predictor a
bottleneck of a quarter of the width. `optimizer.predictor_lr` gives the predictor a rate of its own.
"""

from typing import Any

import jax
from flax import nnx

from simfle_jax import losses
from simfle_jax.config import Config
from simfle_jax.methods.base import Method, Outcome, weighted
from simfle_jax.models.heads import MLPHead, NormalisedHead
from simfle_jax.models.network import Network
from simfle_jax.views import Views


class Networks(nnx.Module):
    """The one network, and its predictor."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.online = Network(config, rngs, projection=NormalisedHead)
        self.predictor = MLPHead(config.heads.out, max(config.heads.out // 4, 1), config.heads.out, rngs)


class SimSiam(Method):
    """SimSiam."""

    has_target = False

    def networks(self, rngs: nnx.Rngs) -> Networks:
        return Networks(self.config, rngs)

    def loss(self, networks: Any, views: Views, targets: None, draw: None) -> Outcome:
        y1, z1 = networks.online(views.first, train=True)
        z2 = networks.online(views.second, train=True).projections
        p1, p2 = networks.predictor(z1, train=True), networks.predictor(z2, train=True)
        pairs = (p1, jax.lax.stop_gradient(z2)), (p2, jax.lax.stop_gradient(z1))
        # losses.similarity is 2 - 2 cos, so this is (2) with 1 added: 0 where the views agree.
        similarity = sum(losses.similarity(p, z).mean() for p, z in pairs) / 4
        outcome = weighted({"similarity": similarity})  # type: ignore[dict-item]
        return outcome._replace(outputs=z1, features=y1)


METHOD = SimSiam
