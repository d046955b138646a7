"""MoCo v3 (Chen, Xie, He 2021): tell each image's other view from those of the rest of the batch.

    q1, q2 = predictor(projector(trunk(x1))), predictor(projector(trunk(x2)))
    k1, k2 = momentum encoder(x1), momentum encoder(x2)               # no gradient
    ctr(q, k) = 2 T cross-entropy(unit(q) unit(k)' / T, row i belongs to column i)         (1)
    loss   = ctr(q1, k2) + ctr(q2, k1)                                # Algorithm 1
    momentum encoder = decay * momentum encoder + (1 - decay) * online

Numbers are the paper's. Negatives are those of the global batch, on any number of devices; with `accumulate` those of a
micro-batch, which is another loss. T is heads.temperature.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from simfle_jax import losses
from simfle_jax.config import Config
from simfle_jax.methods.base import Method, Outcome, weighted
from simfle_jax.methods.byol import Projections
from simfle_jax.models.heads import NormalisedHead
from simfle_jax.models.network import Network
from simfle_jax.views import Views


class Networks(nnx.Module):
    """The online network, and its predictor."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.online = Network(config, rngs, projection=NormalisedHead)
        self.predictor = NormalisedHead(config.heads.out, config.heads.hidden, config.heads.out, rngs, layers=2)


class MoCoV3(Method):
    """MoCo v3."""

    def networks(self, rngs: nnx.Rngs) -> Networks:
        return Networks(self.config, rngs)

    def target(self, rngs: nnx.Rngs) -> Network:
        return Network(self.config, rngs, projection=NormalisedHead)

    def targets(self, target: Network, views: Views) -> Projections:
        k1 = target(views.first, train=True).projections
        return k1, target(views.second, train=True).projections

    def loss(self, networks: Any, views: Views, targets: Projections, draw: None) -> Outcome:
        y1, z1 = networks.online(views.first, train=True)
        z2 = networks.online(views.second, train=True).projections
        q1, q2 = networks.predictor(z1, train=True), networks.predictor(z2, train=True)
        temperature = self.config.heads.temperature
        contrast = losses.contrast(q1, targets[1], temperature) + losses.contrast(q2, targets[0], temperature)
        return weighted({"contrast": jnp.asarray(contrast)})._replace(outputs=z1, features=y1)


METHOD = MoCoV3
