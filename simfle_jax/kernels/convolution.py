"""Convolutions in the form that is fastest on the backend at hand; the numbers are the same in every form.

Which form is taken depends on the backend and on shapes alone, decided by measurement (docs/performance.md). GPUs and
TPUs keep lax's convolution throughout; XLA:CPU is slow on narrow stems and on small maps.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from simfle_jax.arrays import AnyArray
from simfle_jax.kernels.backend import on_cpu


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    x: Float[AnyArray, "batch height width input"], kernel: Float[AnyArray, "size size input output"], stride: int
) -> Float[Array, "batch (height-1)//{stride}+1 (width-1)//{stride}+1 output"]:
    """x by a kernel of odd size, padded by size // 2 on each side, without bias."""
    if on_cpu():
        if stride == 2 and kernel.shape[2] <= 4 and kernel.shape[3] <= 16:
            return by_cells(x, kernel)
        if _small(x, kernel, stride):
            return by_patches(x, kernel, stride)
    return by_lax(x, kernel, stride)


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, ...]:
    x, kernel = saved
    small = on_cpu() and _small(x, kernel, stride)
    form = by_patches if small else by_lax  # of a stem by cells the weights' gradient would take twice lax's time
    return jax.vjp(partial(form, stride=stride), x, kernel)[1](gradient)


convolve.defvjp(_forward, _backward)


def _small(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Whether patches of a map are few enough, and its channels many enough, for one matrix product."""
    return x.shape[1] * x.shape[2] <= (7 * stride) ** 2 and kernel.shape[2] >= 64


def by_lax(
    x: Float[AnyArray, "batch height width input"], kernel: Float[AnyArray, "size size input output"], stride: int
) -> Float[Array, "batch (height-1)//{stride}+1 (width-1)//{stride}+1 output"]:
    """XLA's own convolution."""
    pad = (kernel.shape[0] // 2,) * 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_patches(
    x: Float[AnyArray, "batch height width input"], kernel: Float[AnyArray, "size size input output"], stride: int
) -> Float[Array, "batch (height-1)//{stride}+1 (width-1)//{stride}+1 output"]:
    """One matrix product of all patches, which are laid out side by side (im2col)."""
    size, (_, height, width, _) = kernel.shape[0], x.shape
    pad = size // 2
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    shifted = [x[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def by_cells(
    x: Float[AnyArray, "batch height width input"], kernel: Float[AnyArray, "size size input output"]
) -> Float[Array, "batch (height+1)//2 (width+1)//2 output"]:
    """Stride 2 as stride 1 over cells of 2x2 pixels with four times the channels (space to depth)."""
    batch, height, width, channels = x.shape
    size = kernel.shape[0]
    pad, cells = size // 2, (size + 1) // 2
    x = jnp.pad(x, ((0, 0), (pad, pad + height % 2), (pad, pad + width % 2), (0, 0)))
    x = x.reshape(batch, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels).swapaxes(2, 3)
    x = x.reshape(batch, x.shape[1], x.shape[2], 4 * channels)
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    kernel = kernel.reshape(cells, 2, cells, 2, channels, -1).swapaxes(1, 2).reshape(cells, cells, 4 * channels, -1)
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
