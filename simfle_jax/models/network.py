"""The online network and the target network: a trunk and its projector; and the predictor on the online side."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx
from jaxtyping import Array, Float

from simfle_jax.arrays import AnyArray
from simfle_jax.config import Config
from simfle_jax.models.heads import MLPHead
from simfle_jax.models.trunks import make_trunk
from simfle_jax.views import Views

Projections = tuple[Float[Array, "batch projection"], Float[Array, "batch projection"]]  # of the two views


class Projected(NamedTuple):
    """What a network makes of images: pooled features and their projections."""

    features: Float[Array, "batch feature"]
    projections: Float[Array, "batch projection"]


class Network(nnx.Module):
    """Trunk and projector: the online network, and the target network by its own copy of the arrays."""

    def __init__(self, config: Config, rngs: nnx.Rngs, projection: Callable[..., nnx.Module] = MLPHead):
        self.encoder = make_trunk(config.trunk, config.image_size, config.remat, rngs)
        self.projection: Any = projection(config.trunk.features, config.heads.hidden, config.heads.out, rngs)

    def __call__(self, images: Float[AnyArray, "batch height width channel"], train: bool) -> Projected:
        """The images are normalised."""
        features = self.encoder(images, train).pooled
        return Projected(features, self.projection(features, train))


class Seen(NamedTuple):
    """What the online network makes of the two views."""

    features: tuple[Float[Array, "batch feature"], Float[Array, "batch feature"]]
    projections: Projections
    predictions: Projections


class OnlineSide(nnx.Module):
    """The online network and its predictor."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.online = Network(config, rngs)
        self.predictor = MLPHead(config.heads.out, config.heads.hidden, config.heads.out, rngs)

    def see(self, views: Views) -> Seen:
        """Both views through trunk, projector and predictor, in training mode."""
        y1, z1 = self.online(views.first, train=True)
        y2, z2 = self.online(views.second, train=True)
        return Seen((y1, y2), (z1, z2), (self.predictor(z1, train=True), self.predictor(z2, train=True)))
