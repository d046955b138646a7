"""Views of an image, drawn and computed on the device, behaving like torchvision's transforms.

Images are float32 [B, H, W, 3] RGB in [0, 1] (uint8 where a docstring says so). All randomness of an image
comes from its own key, keys [B], so a view depends on (seed, step, index in the global batch) and on nothing
else: not on the batch it is computed in, nor on the number of devices.

Inside, colour operations run on planes [B, 3, H, W]: three channels as the last axis would leave most of a
vector unit idle.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, Key, Real, Shaped, UInt8

from simfle_jax.arrays import AnyArray
from simfle_jax.config import ViewSettings

CROP_TRIES = 10
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)
LUMA = (0.299, 0.587, 0.114)

Bytes = UInt8[Array | np.ndarray, "batch height width channel"]
Images = Float[Array, "batch height width channel"]
Planes = Float[Array, "batch channel height width"]
View = Float[Array, "batch {views.size} {views.size} channel"]
Resized = Float[Array, "batch {size} {size} channel"]
ResizedPlanes = Float[Array, "batch channel {size} {size}"]
PerImage = Float[Array, " batch"]
Range = tuple[float, float]  # lowest and highest
Arguments = ParamSpec("Arguments")


# ---------------------------------------------------------------- views


class Draws(NamedTuple):
    """Everything random about B views: uniform numbers in [0, 1), by use, each [B, n]."""

    area: Float[Array, "batch try"]
    aspect: Float[Array, "batch try"]
    place: Float[Array, "batch 2"]
    flip: Float[Array, "batch 1"]
    jitter: Float[Array, "batch 1"]
    factors: Float[Array, "batch 4"]
    order: Float[Array, "batch 1"]
    gray: Float[Array, "batch 1"]
    sigma: Float[Array, "batch 1"]

    @classmethod
    def of(cls, keys: Key[Array, " batch"], n_views: int = 1) -> "Draws":
        """Draws for `n_views` views of each image, an image's views in succession: [B * n_views, n].

        One call of the generator per image, because small calls cost most.
        """
        ends = np.cumsum((CROP_TRIES, CROP_TRIES, 2, 1, 1, 4, 1, 1, 1))
        shape = (n_views, int(ends[-1]))
        uniform = jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32))(keys)
        return cls(*jnp.split(uniform.reshape(-1, shape[1]), ends[:-1], axis=1))


def two_views(keys: Key[Array, " batch"], images: Bytes, views: ViewSettings) -> tuple[View, View]:
    """Two independent strong augmentations of uint8 images [B, S, S, 3], each [B, views.size, views.size, 3].

    Random resized crop, flip, colour jitter in a random order, grayscale, Gaussian blur, as in BYOL.
    """
    # One pass over 2B images halves compilation. An image's views lie side by side, so that a batch sharded
    # over devices stays where it is.
    both = _strong_view(Draws.of(keys, 2), jnp.repeat(to_float(images), 2, axis=0), views)
    both = both.reshape(-1, 2, *both.shape[1:])
    return both[:, 0], both[:, 1]


def crops_of_first(
    keys: Key[Array, " batch"], image_size: tuple[int, int], views: ViewSettings
) -> Float[Array, "batch 4"]:
    """Where the first of `two_views` lies in images of [H, W]: centre down, centre across, height, width.

    Shares of the image; the centre is measured from the image's, and across in the view's own direction after a flip.
    """
    draws = Draws(*(draw[::2] for draw in Draws.of(keys, 2)))
    top, left, height, width = (crop_boxes(draws, image_size, views.scale, views.ratio) / jnp.asarray(image_size * 2)).T
    across = (left + width / 2 - 0.5) * jnp.where(draws.flip[:, 0] < views.flip, -1, 1)
    return jnp.stack([top + height / 2 - 0.5, across, height, width], axis=1)


def mean_colour(
    images: Float[Array, "batch height width 3"],
) -> tuple[Float[Array, "batch 1"], Float[Array, "batch 2"]]:
    """The mean luma, and the mean red and blue less it."""
    mean = images.mean((1, 2))
    luma = (mean * jnp.asarray(LUMA, images.dtype)).sum(1, keepdims=True)
    return luma, mean[:, ::2] - luma


def plain_view(images: Bytes, size: int) -> Resized:
    """uint8 images [B, S, S, 3] resized to [B, size, size, 3], antialiased."""
    return resize(to_float(images), size)


def random_crop_and_flip(
    keys: Key[Array, " batch"], images: Bytes, size: int, scale: Range, ratio: Range, flip: float | Float[Array, ""]
) -> Resized:
    """The probe's training view of uint8 images [B, S, S, 3]: random crop and flip, [B, size, size, 3]."""
    draws = Draws.of(keys)
    boxes = crop_boxes(draws, images.shape[1:3], scale, ratio)
    return _interleaved(_crop_planes(to_float(images), boxes, size, draws.flip[:, 0] < flip))


def normalise(images: Images, mean: Sequence[float], std: Sequence[float]) -> Images:
    """Per channel, (images - mean) / std."""
    return (images - jnp.asarray(mean, images.dtype)) / jnp.asarray(std, images.dtype)


def preprocess(images: Images, how: str, mean: Sequence[float], std: Sequence[float]) -> Images:
    """float images [B, H, W, 3] in 0..1 as the networks take them; `how` is views.standardise: 'dataset' or 'image'."""
    return standardise(images) if how == "image" else normalise(images, mean, std)


def standardise(images: Images) -> Images:
    """Per image and channel, (x - mean) / (std + .02): brightness, contrast and colour cast of an image are gone.

    The constant keeps a channel without contrast at 0, and noise in a dark one small. images [B, H, W, 3].
    """
    mean, std = images.mean((1, 2), keepdims=True), images.std((1, 2), keepdims=True)
    return (images - mean) / (std + 0.02)


def to_float(images: Bytes) -> Images:
    """uint8 0..255 to float32 0..1."""
    return jnp.asarray(images).astype(jnp.float32) * np.float32(1 / 255)


def blur_kernel(size: int) -> int:
    """Taps of the blur for views of `size` pixels: a tenth of it, odd."""
    return 2 * (int(0.1 * size) // 2) + 1


def _strong_view(draws: Draws, images: Images, views: ViewSettings) -> View:
    boxes = crop_boxes(draws, images.shape[1:3], views.scale, views.ratio)
    planes = _crop_planes(images, boxes, views.size, draws.flip[:, 0] < views.flip)
    if views.jitter:
        planes = _jitter(planes, *_jitter_settings(draws, views))
    if views.gray:
        planes = jnp.where(_per_image(draws.gray[:, 0] < views.gray), _luma(planes), planes)
    if max(views.blur):
        low, high = views.blur
        planes = _blur(planes, low + (high - low) * draws.sigma[:, 0], blur_kernel(views.size))
    # The products of the crop may leave [0, 1] by a rounding error.
    return _interleaved(jnp.clip(planes, 0, 1))


def _jitter_settings(draws: Draws, views: ViewSettings) -> tuple[Float[Array, "batch 4"], Int[Array, "batch 4"]]:
    """Factors [B, 4] and orders [B, 4]; neutral factors for the images that are left alone."""
    amplitude = np.array([views.brightness, views.contrast, views.saturation, views.hue], np.float32)
    neutral = np.array([1, 1, 1, 0], np.float32)
    low = np.where(neutral > 0, np.maximum(neutral - amplitude, 0), -amplitude)
    high = neutral + amplitude
    factors = low + (high - low) * draws.factors
    factors = jnp.where(draws.jitter < views.jitter, factors, neutral)
    return factors, jnp.asarray(ORDERS)[_integer_below(draws.order[:, 0], len(ORDERS))]


# ---------------------------------------------------------------- geometry


def crop_boxes(draws: Draws, image_size: tuple[int, ...], scale: Range, ratio: Range) -> Float[Array, "batch 4"]:
    """Boxes [B, 4] (top, left, height, width; whole pixels) of a random resized crop of [H, W] images.

    Area share uniform in `scale`, aspect (width / height) log-uniform in `ratio`; of ten draws the first that
    fits, else the largest centred box with an allowed aspect.
    """
    image_height, image_width = image_size
    area = image_height * image_width * (scale[0] + (scale[1] - scale[0]) * draws.area)
    log_low, log_high = np.log(ratio[0]), np.log(ratio[1])
    aspect = jnp.exp(log_low + (log_high - log_low) * draws.aspect)
    widths, heights = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (widths > 0) & (widths <= image_width) & (heights > 0) & (heights <= image_height)

    first = jnp.argmax(fits, axis=1, keepdims=True)
    found = fits.any(axis=1)
    fallback_height, fallback_width = _fallback_size(image_height, image_width, ratio)
    height = jnp.where(found, jnp.take_along_axis(heights, first, 1)[:, 0], fallback_height)
    width = jnp.where(found, jnp.take_along_axis(widths, first, 1)[:, 0], fallback_width)

    top = _integer_below(draws.place[:, 0], image_height - height + 1)
    left = _integer_below(draws.place[:, 1], image_width - width + 1)
    top = jnp.where(found, top, (image_height - fallback_height) // 2)
    left = jnp.where(found, left, (image_width - fallback_width) // 2)
    return jnp.stack([top, left, height, width], axis=1).astype(jnp.float32)


def _fallback_size(height: int, width: int, ratio: Range) -> tuple[int, int]:
    if width / height < min(ratio):
        return round(width / min(ratio)), width
    if width / height > max(ratio):
        return height, round(height * max(ratio))
    return height, width


def _integer_below(uniform: PerImage, n: PerImage | int) -> Int32[Array, " batch"]:
    """Uniform [0, 1) numbers to whole numbers 0..n-1 (int32)."""
    return jnp.minimum(jnp.floor(uniform * n), n - 1).astype(jnp.int32)


def crop_and_resize(images: Images, boxes: Real[AnyArray, "batch 4"], size: int) -> Resized:
    """Cut boxes [B, 4] (top, left, height, width; whole pixels) out of images, resize to [B, size, size, 3].

    Antialiased bilinear as in PIL: crop first, so no pixel from outside the box bleeds in.
    """
    return _interleaved(_crop_planes(images, boxes, size, jnp.zeros(len(boxes), bool)))


def _crop_planes(
    images: Images, boxes: Real[AnyArray, "batch 4"], size: int, flip: Bool[AnyArray, " batch"]
) -> ResizedPlanes:
    """Two batched matrix products. `flip` [B] mirrors the columns' weights: cheaper than mirroring images."""
    top, left, height, width = jnp.asarray(boxes, jnp.float32).T
    rows = _resize_weights(top, height, images.shape[1], size)
    columns = _resize_weights(left, width, images.shape[2], size)
    columns = jnp.where(flip[:, None, None], columns[:, ::-1], columns)
    return _resample(images, rows, columns)


def _resize_weights(
    start: Real[Array, " batch"], length: Real[Array, " batch"], source: int, size: int
) -> Float[Array, "batch {size} {source}"]:
    """Weights [B, size, source], antialiased bilinear, from source[start : start + length] to `size` pixels.

    A triangle that reaches an output pixel (at least an input pixel) to each side, normalised in the range.
    """
    start, length = start[:, None, None], length[:, None, None]
    step = length / size
    centres = start + (jnp.arange(size, dtype=jnp.float32)[:, None] + 0.5) * step
    pixels = jnp.arange(source, dtype=jnp.float32)
    weights = jnp.maximum(0, 1 - jnp.abs(pixels + 0.5 - centres) / jnp.maximum(step, 1))
    weights = jnp.where((pixels >= start) & (pixels < start + length), weights, 0)
    return weights / weights.sum(axis=2, keepdims=True)


def _resample(
    images: Images, rows: Float[Array, "#batch rows height"], columns: Float[Array, "#batch columns width"]
) -> Float[Array, "batch channel rows columns"]:
    """[B, H, W, 3] by weights [B or 1, h, H] and [B or 1, w, W] to planes [B, 3, h, w].

    Precision is asked for because accelerators would otherwise round the factors to 10 or 7 bits.
    """
    batch, height, width, channels = images.shape
    rows = jnp.broadcast_to(rows, (batch, *rows.shape[1:]))
    columns = jnp.broadcast_to(columns, (batch, *columns.shape[1:]))
    highest = jax.lax.Precision.HIGHEST
    short = jnp.matmul(rows, images.reshape(batch, height, width * channels), precision=highest)
    short = short.reshape(batch, -1, width, channels).transpose(0, 3, 1, 2).reshape(batch, -1, width)
    small = jnp.matmul(short, columns.swapaxes(1, 2), precision=highest)
    return small.reshape(batch, channels, rows.shape[1], columns.shape[1])


def resize(images: Images, size: int) -> Resized:
    """Shorter side to `size`, antialiased bilinear, then the central [B, size, size, 3]."""
    height, width = images.shape[1:3]
    shorter = min(height, width)
    rows = _central_weights(height, int(size * height / shorter), size)
    columns = _central_weights(width, int(size * width / shorter), size)
    return _interleaved(_resample(images, rows, columns))


def _central_weights(source: int, resized: int, size: int) -> Float[Array, "1 {size} {source}"]:
    """Weights [1, size, source]: the central `size` of `resized` output pixels."""
    first = round((resized - size) / 2)
    weights = _resize_weights(jnp.zeros(1), jnp.full(1, source, jnp.float32), source, resized)
    return weights[:, first : first + size]


# ---------------------------------------------------------------- colour, on planes


def _planes(images: Images) -> Planes:
    return images.transpose(0, 3, 1, 2)


def _interleaved(planes: Planes) -> Images:
    return planes.transpose(0, 2, 3, 1)


def _per_image(values: Shaped[AnyArray, " batch"]) -> Shaped[Array, "batch 1 1 1"]:
    """[B] to a shape that broadcasts against planes."""
    return jnp.asarray(values)[:, None, None, None]


def _luma(planes: Planes) -> Float[Array, "batch 1 height width"]:
    """ITU-R 601-2 luma, [B, 1, H, W]."""
    red, green, blue = (weight * planes[:, c : c + 1] for c, weight in enumerate(LUMA))
    return red + green + blue


def _jitter(planes: Planes, factors: Float[AnyArray, "batch 4"], orders: Int[AnyArray, "batch 4"]) -> Planes:
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
    luma = _luma(planes)
    mean = luma.mean(axis=(1, 2, 3), keepdims=True)
    rest, operation = _per_image(1 - factor), _per_image(operation)
    constant = jnp.where(operation == CONTRAST, rest * mean, 0)
    share = jnp.where(operation == SATURATION, rest, 0)
    return jnp.clip(_per_image(factor) * planes + share * luma + constant, 0, 1)


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


def _blur(planes: Planes, sigmas: Float[AnyArray, " batch"], kernel: int) -> Planes:
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

    total = _per_image(taps[:, half]) * planes
    for i in range(half):
        total = total + _per_image(taps[:, i]) * (shifted(i) + shifted(2 * half - i))
    return total


# ---------------------------------------------------------------- single operations, on images


def _on_images(
    operation: Callable[Concatenate[Planes, Arguments], Planes],
) -> Callable[Concatenate[Images, Arguments], Images]:
    """A function of planes as a function of images."""

    @wraps(operation)
    def of_images(images: Images, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Images:
        return _interleaved(operation(_planes(images), *args, **kwargs))

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
    return _jitter(planes, factors, orders)


@_on_images
def grayscale(planes: Planes) -> Planes:
    """Luma in all three channels."""
    return jnp.broadcast_to(_luma(planes), planes.shape)


@_on_images
def gaussian_blur(planes: Planes, sigmas: Float[AnyArray, " batch"], kernel: int) -> Planes:
    """Gaussian of sigmas [B] pixels over `kernel` taps (odd, below twice the side), reflecting borders."""
    return _blur(planes, sigmas, kernel)
