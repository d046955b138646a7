"""The arithmetic of batch normalisation in training: one pass for the moments, one for the values, two backward."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from simfle_jax.arrays import AnyArray
from simfle_jax.kernels.column_sums import column_sums
from simfle_jax.kernels.precision import at_least_float32

EPSILON = 1e-5  # PyTorch's

Statistic = Float[Array, " channel"]
Normalised = tuple[Float[Array, "*batch channel"], Statistic, Statistic]  # values, mean, variance


def scaled(
    x: Float[AnyArray, "*batch channel"],
    mean: Float[AnyArray, " channel"],
    rstd: Float[AnyArray, " channel"],
    scale: Float[AnyArray, " channel"],
    bias: Float[AnyArray, " channel"],
) -> Float[Array, "*batch channel"]:
    """(x - mean) * rstd * scale + bias over the last axis, as one multiplication and one addition; of x's type.

    Computed in float32 at least: a factor that is rounded to bfloat16 is wrong for the whole channel.
    """
    factor = scale * rstd
    return (at_least_float32(x) * factor + (bias - mean * factor)).astype(x.dtype)


@jax.custom_vjp
def normalise_batch(
    x: Float[AnyArray, "*batch channel"], scale: Float[AnyArray, " channel"], bias: Float[AnyArray, " channel"]
) -> Normalised:
    """x normalised over all axes but the last, with the mean and biased variance it was normalised by.

    The statistics are in float32 at least, for the running ones. No gradient flows through them.
    """
    return _forward(x, scale, bias)[0]


@jax.jit  # traced once for all maps of one shape
def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[Normalised, tuple[jax.Array, ...]]:
    count = x.size // x.shape[-1]
    # One pass, so that several devices exchange both moments at once.
    first, second = column_sums(lambda x: (x, jnp.square(x)), x)
    mean = first / count
    var = jnp.maximum(second / count - jnp.square(mean), 0)
    rstd = jax.lax.rsqrt(var + EPSILON)
    return (scaled(x, mean, rstd, scale, bias), mean, var), (x, scale, bias, mean, rstd)


@jax.jit
def _backward(saved: tuple[jax.Array, ...], gradients: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """dx = scale * rstd * (dy - mean(dy) - x' * mean(dy * x')) with x' = (x - mean) * rstd."""
    (x, scale, bias, mean, rstd), dy = saved, gradients[0]
    count = x.size // x.shape[-1]
    first, second = column_sums(lambda dy, x: (dy, dy * (x - mean)), dy, x)
    centred, wide = at_least_float32(x) - mean, at_least_float32(dy)
    dx = scale * rstd * (wide - first / count - centred * (jnp.square(rstd) * second / count))
    return dx.astype(x.dtype), (rstd * second).astype(scale.dtype), first.astype(bias.dtype)


normalise_batch.defvjp(_forward, _backward)
