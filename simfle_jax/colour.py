"""Colour operations and blur, behaving like torchvision's, on planes [B, 3, H, W].

Three channels as the last axis would leave most of a vector unit idle. The functions at the end are the same on images.
"""

import itertools
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from simfle_jax.arrays import AnyArray

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)
LUMA = (0.299, 0.587, 0.114)

Images = Float[Array, "batch height width channel"]
Planes = Float[Array, "batch channel height width"]
Arguments = ParamSpec("Arguments")


def to_planes(images: Images) -> Planes:
    return images.transpose(0, 3, 1, 2)


def to_images(planes: Planes) -> Images:
    return planes.transpose(0, 2, 3, 1)


def per_image(values: Shaped[AnyArray, " batch"]) -> Shaped[Array, "batch 1 1 1"]:
    """[B] to a shape that broadcasts against planes."""
    return jnp.asarray(values)[:, None, None, None]


def luma(planes: Planes) -> Float[Array, "batch 1 height width"]:
    """ITU-R 601-2 luma, [B, 1, H, W]."""
    red, green, blue = (weight * planes[:, c : c + 1] for c, weight in enumerate(LUMA))
    return red + green + blue


def jitter(planes: Planes, factors: Float[AnyArray, "batch 4"], orders: Int[AnyArray, "batch 4"]) -> Planes:
    """The four operations in each image's own order, factors and orders [B, 4].

    Hue is the expensive one and every image needs it once, so it has one fixed place. The other three are one
    blend with different partners; three slots before hue and three after hold them in any order, and unused
    slots blend by 1, which changes nothing.
    """
    place_of_hue = jnp.argmax(orders == HUE, axis=1)
    slots = jnp.arange(3)[:, None]
    positions = slots + (slots >= place_of_hue)
    operations = jnp.take_along_axis(orders.T, positions, 0)
    strengths = jnp.take_along_axis(factors.T, operations, 0)

    def blend_all(planes: Planes, used: Bool[Array, "slot batch"]) -> Planes:
        # A loop, not three calls: XLA fuses those and computes each operation anew for the next one's mean.
        step = (operations, jnp.where(used, strengths, 1))
        return jax.lax.scan(lambda planes, slot: (_blend(planes, *slot), None), planes, step)[0]

    planes = blend_all(planes, slots < place_of_hue)
    planes = _hue(planes, factors[:, HUE])
    return blend_all(planes, slots >= place_of_hue)


def _blend(planes: Planes, operation: Int[Array, " batch"], factor: Float[AnyArray, " batch"]) -> Planes:
    """factor * image + (1 - factor) * partner: black, mean luma (contrast) or luma (saturation)."""
    grey = luma(planes)
    mean = grey.mean(axis=(1, 2, 3), keepdims=True)
    rest, operation = per_image(1 - factor), per_image(operation)
    constant = jnp.where(operation == CONTRAST, rest * mean, 0)
    share = jnp.where(operation == SATURATION, rest, 0)
    return jnp.clip(per_image(factor) * planes + share * grey + constant, 0, 1)


def _hue(planes: Planes, shift: Float[AnyArray, " batch"]) -> Planes:
    """Rotate the hue by `shift` turns, keeping value and chroma: to HSV and back, without a branch."""
    red, green, blue = planes[:, 0], planes[:, 1], planes[:, 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    per_chroma = 1 / jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        value == red,
        (green - blue) * per_chroma,
        jnp.where(value == green, 2 + (blue - red) * per_chroma, 4 + (red - green) * per_chroma),
    )
    sixths = sixths + 6 * shift[:, None, None]

    def channel(offset: int) -> Float[Array, "batch height width"]:
        k = sixths + offset
        k = k - 6 * jnp.floor(k * np.float32(1 / 6))
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], axis=1)


def blur(planes: Planes, sigmas: Float[AnyArray, " batch"], kernel: int) -> Planes:
    """Separable, as shifted sums: `kernel` multiply-adds per pixel and axis, and the taps are symmetric."""
    half = kernel // 2
    distance = jnp.arange(half, -1, -1, dtype=jnp.float32)
    taps = jnp.exp(-0.5 * (distance / sigmas[:, None]) ** 2)
    taps = taps / (2 * taps[:, :half].sum(axis=1, keepdims=True) + taps[:, half:])
    for axis in (2, 3):
        planes = _filter(planes, taps, axis)
    return planes


def _filter(planes: Planes, taps: Float[Array, "batch tap"], axis: int) -> Planes:
    """Reflect-pad `axis`, then sum pairs of equally distant neighbours; taps [B, half + 1], outermost first."""
    half, length = taps.shape[1] - 1, planes.shape[axis]
    widths = [(half, half) if a == axis else (0, 0) for a in range(4)]
    padded = jnp.pad(planes, widths, mode="reflect")

    def shifted(start: int) -> Planes:
        return jax.lax.slice_in_dim(padded, start, start + length, axis=axis)

    total = per_image(taps[:, half]) * planes
    for i in range(half):
        total = total + per_image(taps[:, i]) * (shifted(i) + shifted(2 * half - i))
    return total


# ---------------------------------------------------------------- single operations, on images


def _on_images(
    operation: Callable[Concatenate[Planes, Arguments], Planes],
) -> Callable[Concatenate[Images, Arguments], Images]:
    """A function of planes as a function of images."""

    @wraps(operation)
    def of_images(images: Images, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Images:
        return to_images(operation(to_planes(images), *args, **kwargs))

    return of_images


@_on_images
def adjust_brightness(planes: Planes, factors: Float[AnyArray, " batch"]) -> Planes:
    """Scale images by factors [B]: 0 black, 1 unchanged."""
    return _blend(planes, jnp.full(len(planes), BRIGHTNESS), factors)


@_on_images
def adjust_contrast(planes: Planes, factors: Float[AnyArray, " batch"]) -> Planes:
    """Scale the distance to the image's mean luma by factors [B]."""
    return _blend(planes, jnp.full(len(planes), CONTRAST), factors)


@_on_images
def adjust_saturation(planes: Planes, factors: Float[AnyArray, " batch"]) -> Planes:
    """Scale the distance to the luma of each pixel by factors [B]: 0 gray, 1 unchanged."""
    return _blend(planes, jnp.full(len(planes), SATURATION), factors)


@_on_images
def adjust_hue(planes: Planes, shifts: Float[AnyArray, " batch"]) -> Planes:
    """Rotate the hue by shifts [B] in turns, -0.5 to 0.5."""
    return _hue(planes, shifts)


@_on_images
def color_jitter(planes: Planes, factors: Float[AnyArray, "batch 4"], orders: Int[AnyArray, "batch 4"]) -> Planes:
    """Brightness, contrast, saturation, hue (0 to 3) by factors [B, 4], in each image's own orders [B, 4]."""
    return jitter(planes, factors, orders)


@_on_images
def grayscale(planes: Planes) -> Planes:
    """Luma in all three channels."""
    return jnp.broadcast_to(luma(planes), planes.shape)


@_on_images
def gaussian_blur(planes: Planes, sigmas: Float[AnyArray, " batch"], kernel: int) -> Planes:
    """Gaussian of sigmas [B] pixels over `kernel` taps (odd, below twice the side), reflecting borders."""
    return blur(planes, sigmas, kernel)
