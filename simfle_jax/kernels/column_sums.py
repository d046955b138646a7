"""Sums over all axes but the last: moments of a batch, gradients of biases and scales."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from simfle_jax.arrays import AnyArray
from simfle_jax.kernels.backend import on_cpu
from simfle_jax.kernels.precision import at_least_float32


def column_sums(
    terms: Callable[..., tuple[jax.Array, ...]], *arrays: Float[AnyArray, "... channel"]
) -> tuple[Float[Array, " channel"], ...]:
    """Sums, over all axes but the last, of what `terms` makes of arrays, in float32 at least.

    XLA:CPU walks through the whole array once for each channel, at a twentieth of the speed of memory
    (docs/performance.md). There the sums are a product with ones, and maps are added row by row before.
    """
    if not on_cpu():
        return tuple(term.sum(tuple(range(term.ndim - 1))) for term in terms(*map(at_least_float32, arrays)))
    if arrays[0].ndim != 4:
        return tuple(map(_product_with_ones, terms(*map(at_least_float32, arrays))))

    def row(i: Any) -> tuple[jax.Array, ...]:
        rows = (jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False) for x in arrays)
        return terms(*map(at_least_float32, rows))

    height = arrays[0].shape[1]
    sums = jax.lax.fori_loop(1, height, lambda i, sums: jax.tree.map(jnp.add, sums, row(i)), row(0))
    return tuple(map(_product_with_ones, sums))


def _product_with_ones(x: jax.Array) -> jax.Array:
    rows = x.reshape(-1, x.shape[-1])
    return jnp.ones(len(rows), x.dtype) @ rows
