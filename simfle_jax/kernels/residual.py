"""The end of a residual block, in the form that is fastest on the backend at hand; the numbers are the same."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from simfle_jax.arrays import AnyArray
from simfle_jax.kernels.backend import on_cpu


def add_relu(x: Float[AnyArray, "*shape"], y: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    """max(x + y, 0) of a shortcut and a branch of one shape.

    The next block reads it twice. XLA:CPU takes a maximum with zero for so cheap that it computes it anew for the second
    reader, with the sum and with the maximum before it: the last block of a stage repeats all earlier ones
    (docs/performance.md). It does not repeat a sum.
    """
    return _sum_last(x, y) if on_cpu() else jax.nn.relu(x + y)


@jax.custom_vjp
def _sum_last(x: jax.Array, y: jax.Array) -> jax.Array:
    """The same to the bit: x + y where x > -y, otherwise -y + y."""
    return jnp.maximum(x, -y) + y


def _forward(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    z = _sum_last(x, y)
    return z, z


def _backward(z: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    gradient = jnp.where(z > 0, gradient, 0)
    return gradient, gradient


_sum_last.defvjp(_forward, _backward)
