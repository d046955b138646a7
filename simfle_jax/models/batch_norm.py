"""The arithmetic of batch normalisation in training: one pass for the moments, one for the values, two backward."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from simfle_jax.models.backend import on_cpu
from simfle_jax.models.precision import at_least_float32

EPSILON = 1e-5  # PyTorch's

Normalised = tuple[jax.Array, jax.Array, jax.Array]  # values, mean, variance


def scaled(x: jax.Array, mean: jax.Array, rstd: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) * rstd * scale + bias over the last axis, as one multiplication and one addition in x's type."""
    factor = scale * rstd
    return x * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)


@jax.custom_vjp
def normalise_batch(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Normalised:
    """x [..., C] normalised over all axes but the last, with the mean and biased variance [C] it was normalised by.

    The statistics are in float32 at least, for the running ones; they pass no gradient on.
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


def column_sums(terms: Callable[..., tuple[jax.Array, ...]], *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Sums [C], over all axes but the last, of what `terms` makes of arrays [..., C], in float32 at least.

    XLA:CPU walks through the whole array once for each channel, at a twentieth of the speed of memory
    (docs/performance.md). There maps are added row by row instead.
    """
    if not on_cpu() or arrays[0].ndim != 4:
        return tuple(term.sum(tuple(range(term.ndim - 1))) for term in terms(*map(at_least_float32, arrays)))

    def row(i: Any) -> tuple[jax.Array, ...]:
        rows = (jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False) for x in arrays)
        return terms(*map(at_least_float32, rows))

    height, channels = arrays[0].shape[1], arrays[0].shape[3]
    sums = jax.lax.fori_loop(1, height, lambda i, sums: jax.tree.map(jnp.add, sums, row(i)), row(0))
    return tuple(jnp.ones(x.size // channels, x.dtype) @ x.reshape(-1, channels) for x in sums)
