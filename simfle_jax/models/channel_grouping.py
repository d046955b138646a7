"""Channel grouping: a 1x1 convolution whose output channels are trained to form groups that look at the same places."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from simfle_jax.arrays import AnyArray
from simfle_jax.models.layers import BatchNorm


class ChannelGrouping(nnx.Module):
    """A = ReLU(BN(conv1x1(F) + bias)), group g owning C / groups neighbouring channels.

    `init` decides where the grouping starts. 'constant' is the published start, at which all channels are the same and
    the gradient of the grouping loss is exactly zero. 'he' draws every channel alone. 'grouped' draws one He-normal row
    per group and adds a tenth of it per channel, so that groups exist from the first step, on every device the same.
    """

    def __init__(self, channels: int, groups: int, init: str, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_kernel(rngs.params(), channels, groups, init))
        self.bias = nnx.Param(jnp.full(channels, 0.1 if init == "constant" else 0.0, jnp.float32))
        self.bn = BatchNorm(channels)

    def __call__(
        self, features: Float[AnyArray, "batch height width channel"], train: bool
    ) -> Float[Array, "batch height width channel"]:
        x = features @ self.kernel[...].astype(features.dtype) + self.bias[...].astype(features.dtype)
        return jax.nn.relu(self.bn(x, train))


def _kernel(key: Key[Array, ""], channels: int, groups: int, init: str) -> Float[Array, "{channels} {channels}"]:
    if init == "constant":
        return jnp.ones((channels, channels))
    he = (2 / channels) ** 0.5
    group_key, channel_key = jax.random.split(key)
    own = he * jax.random.normal(channel_key, (channels, channels))
    if init == "he":
        return own
    shared = he * jax.random.normal(group_key, (channels, groups))
    return jnp.repeat(shared, channels // groups, axis=1) + 0.1 * own
