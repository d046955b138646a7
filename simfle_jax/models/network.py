"""The online network and the target network: a trunk and its projector."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

from simfle_jax.config import Config
from simfle_jax.models.heads import MLPHead
from simfle_jax.models.trunks import make_trunk


class Projected(NamedTuple):
    """What a network makes of images: pooled features [B, features] and their projections [B, heads.out]."""

    features: jax.Array
    projections: jax.Array


class Network(nnx.Module):
    """Trunk and projector: the online network, and the target network by its own copy of the arrays."""

    def __init__(self, config: Config, rngs: nnx.Rngs, projection: Callable[..., nnx.Module] = MLPHead):
        self.encoder = make_trunk(config.trunk, config.image_size, config.remat, rngs)
        self.projection: Any = projection(config.trunk.features, config.heads.hidden, config.heads.out, rngs)

    def __call__(self, images: jax.Array, train: bool) -> Projected:
        """Normalised images [B, H, W, 3]."""
        features = self.encoder(images, train).pooled
        return Projected(features, self.projection(features, train))
