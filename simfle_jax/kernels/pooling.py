"""Maximum pooling as after the stem of a ResNet: windows of 3x3, stride 2, padded by one, as in torchvision."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from simfle_jax.arrays import AnyArray
from simfle_jax.kernels.backend import on_tpu


def max_pool(
    x: Float[AnyArray, "batch height width channel"],
) -> Float[Array, "batch (height+1)//2 (width+1)//2 channel"]:
    """Of equal maxima the first gets the gradient.

    XLA:CPU is slow in scattering the gradient of its own windows, and does it on one core (docs/performance.md). XLA:GPU adds
    it with atomic operations in any order, so that the same run need not end in the same bits.
    """
    return by_lax(x) if on_tpu() else by_axes(x)


def by_lax(
    x: Float[AnyArray, "batch height width channel"],
) -> Float[Array, "batch (height+1)//2 (width+1)//2 channel"]:
    """XLA's own windows."""
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def by_axes(
    x: Float[AnyArray, "batch height width channel"],
) -> Float[Array, "batch (height+1)//2 (width+1)//2 channel"]:
    """The maximum along each row, then along each column, so that of equal maxima the first in the rows' order wins."""
    return _along(_along(x, 2), 1)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _along(x: jax.Array, axis: int) -> jax.Array:
    """Maximum of windows of 3 along one axis, stride 2, padded by one."""
    first, second, third = _windows(x, axis)
    return jnp.maximum(jnp.maximum(first, second), third)


def _windows(x: jax.Array, axis: int) -> list[jax.Array]:
    """The first, the second and the third element of every window."""
    length = x.shape[axis]
    widths = [(1, 1 + length % 2) if a == axis else (0, 0) for a in range(x.ndim)]
    x = jnp.pad(x, widths, constant_values=-jnp.inf)
    # Pairs, since XLA:GPU takes a slice with a stride for one without where it fuses it into a product (tests/unit/kernels).
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    even, odd = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
    windows = x.shape[axis] // 2 - 1
    starts = (even, 0), (odd, 0), (even, 1)
    return [jax.lax.slice_in_dim(each, start, start + windows, axis=axis) for each, start in starts]


def _forward(x: jax.Array, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    first, second, third = _windows(x, axis)
    y = jnp.maximum(jnp.maximum(first, second), third)
    winner = jnp.where(first == y, 0, jnp.where(second == y, 1, 2)).astype(jnp.int8)
    # Without a barrier XLA finds the winner anew for every pixel that asks. The shape of x is kept in an empty array.
    return y, (jax.lax.optimization_barrier(winner), jnp.zeros((*x.shape, 0), jnp.int8))


def _backward(axis: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    """Even elements lie in the middle of one window, odd ones at the end of one and the start of the next."""
    winner, shape = saved[0], saved[1].shape[:-1]

    def won(place: int) -> jax.Array:
        return jnp.where(winner == place, dy, 0)

    move = [(-1, 1, 0) if a == axis else (0, 0, 0) for a in range(dy.ndim)]
    even, odd = won(1), won(2) + jax.lax.pad(won(0), jnp.zeros((), dy.dtype), move)
    dx = jnp.stack([even, odd], axis + 1).reshape([2 * n if a == axis else n for a, n in enumerate(dy.shape)])
    return (jax.lax.slice_in_dim(dx, 0, shape[axis], axis=axis),)


_along.defvjp(_forward, _backward)
