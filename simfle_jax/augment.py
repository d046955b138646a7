"""Views of an image, drawn and computed on the device, behaving like torchvision's transforms.

Images are float32 [B, H, W, 3] RGB in [0, 1] (uint8 where a docstring says so). All randomness of an image
comes from its own key, keys [B], so a view depends on (seed, step, index in the global batch) and on nothing
else: not on the batch it is computed in, nor on the number of devices.

Here are the draws and the geometry; colour.py has what happens to planes [B, 3, H, W] of the crops.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, Key, Real, Shaped, UInt8

from simfle_jax.arrays import AnyArray
from simfle_jax.canvases import Canvases, apart
from simfle_jax.colour import LUMA, ORDERS, Images, blur, jitter, luma, per_image, to_images
from simfle_jax.config import ViewSettings

CROP_TRIES = 10

Bytes = UInt8[Array | np.ndarray, "batch height width channel"]
View = Float[Array, "batch {views.size} {views.size} channel"]
Resized = Float[Array, "batch {size} {size} channel"]
ResizedPlanes = Float[Array, "batch channel {size} {size}"]
PerImage = Float[Array, " batch"]
Range = tuple[float, float]  # lowest and highest
Sides = Int[AnyArray, " batch"]
Lengths = int | Int[AnyArray, "batch 1"]  # in pixels, of all images or of each


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


def two_views(keys: Key[Array, " batch"], images: Bytes | Canvases, views: ViewSettings) -> tuple[View, View]:
    """Two independent strong augmentations of uint8 images [B, S, S, 3], each [B, views.size, views.size, 3].

    Random resized crop, flip, colour jitter in a random order, grayscale, Gaussian blur, as in BYOL; then light from a side,
    if asked for. `images` may be Canvases: an image is then cropped as if it were alone, at its own size.
    """
    # One pass over 2B images halves compilation. An image's views lie side by side, so that a batch sharded
    # over devices stays where it is.
    pixels, sides = apart(images)
    sides = None if sides is None else jnp.repeat(sides, 2)
    both = _strong_view(Draws.of(keys, 2), jnp.repeat(to_float(pixels), 2, axis=0), sides, views)
    both = both.reshape(-1, 2, *both.shape[1:])
    first, second = both[:, 0], both[:, 1]
    if views.light > 0:
        own = [jax.vmap(jax.random.fold_in, (0, None))(keys, use) for use in (3, 4)]  # 2 chooses masks
        first, second = lit(own[0], first, views.light), lit(own[1], second, views.light)
    return first, second


def lit(keys: Key[Array, " batch"], images: Images, strength: float) -> Images:
    """Images as if light fell on them from a side: each pixel times exp(a x + b y), cut off at 1.

    x and y go from -1 to 1 across and down the image, a and b are normal with deviation `strength`, by each image's key.
    """
    down, across = (jnp.linspace(-1, 1, side) for side in images.shape[1:3])
    slopes = strength * jax.vmap(lambda key: jax.random.normal(key, (2, 1, 1)))(keys)
    field = jnp.exp(slopes[:, 0] * down[:, None] + slopes[:, 1] * across)
    return jnp.minimum(images * field[..., None], 1)


def crops_of_first(
    keys: Key[Array, " batch"], images: Bytes | Canvases, views: ViewSettings
) -> Float[Array, "batch 4"]:
    """Where the first of `two_views` lies in its image: centre down, centre across, height, width.

    Shares of the image; the centre is measured from the image's, and across in the view's own direction after a flip.
    """
    draws, size = (
        Draws(*(draw.reshape(-1, 2, draw.shape[1])[:, 0] for draw in Draws.of(keys, 2))),
        _image_size(*apart(images)),
    )
    sides = jnp.broadcast_to(jnp.concatenate([jnp.atleast_2d(side) for side in size * 2], axis=1), (len(images), 4))
    top, left, height, width = (crop_boxes(draws, size, views.scale, views.ratio) / sides).T
    across = (left + width / 2 - 0.5) * jnp.where(draws.flip[:, 0] < views.flip, -1, 1)
    return jnp.stack([top + height / 2 - 0.5, across, height, width], axis=1)


def mean_colour(
    images: Float[Array, "batch height width 3"],
) -> tuple[Float[Array, "batch 1"], Float[Array, "batch 2"]]:
    """The mean luma, and the mean red and blue less it."""
    mean = images.mean((1, 2))
    grey = (mean * jnp.asarray(LUMA, images.dtype)).sum(1, keepdims=True)
    return grey, jnp.stack([mean[:, 0], mean[:, 2]], axis=1) - grey


def plain_view(images: Bytes | Canvases, size: int) -> Resized:
    """uint8 images [B, S, S, 3], or Canvases, resized to [B, size, size, 3], antialiased."""
    pixels, sides = apart(images)
    if sides is None:
        return resize(to_float(pixels), size)
    weights = _resize_weights(jnp.zeros(len(sides)), jnp.asarray(sides, jnp.float32), pixels.shape[1], size)
    return to_images(_resample(to_float(pixels), weights, weights))


def random_crop_and_flip(
    keys: Key[Array, " batch"],
    images: Bytes | Canvases,
    size: int,
    scale: Range,
    ratio: Range,
    flip: float | Float[Array, ""],
) -> Resized:
    """The probe's training view of uint8 images [B, S, S, 3] or Canvases: random crop and flip, [B, size, size, 3]."""
    return placed_crops(keys, images, size, scale, ratio, flip)[0]


def placed_crops(
    keys: Key[Array, " batch"],
    images: Bytes | Canvases,
    size: int,
    scale: Range,
    ratio: Range,
    flip: float | Float[Array, ""],
) -> tuple[Resized, Float[Array, "batch 4"], Bool[Array, " batch"]]:
    """`random_crop_and_flip` with where each view lies: its box in pixels, as of `crop_boxes`, and whether it is mirrored."""
    draws, (pixels, sides) = Draws.of(keys), apart(images)
    boxes, flipped = crop_boxes(draws, _image_size(pixels, sides), scale, ratio), draws.flip[:, 0] < flip
    return to_images(_crop_planes(to_float(pixels), boxes, size, flipped)), boxes, flipped


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


def _image_size(pixels: Shaped[AnyArray, "batch height width channel"], sides: Sides | None) -> tuple[Lengths, Lengths]:
    """Height and width: of all images, or [B, 1] of each."""
    height, width = pixels.shape[1:3] if sides is None else (sides[:, None], sides[:, None])
    return height, width


NO_BLUR = 1e-3  # pixels: so small a sigma leaves every pixel as it is, where 0 would divide by 0


def _strong_view(draws: Draws, images: Images, sides: Sides | None, views: ViewSettings) -> View:
    boxes = crop_boxes(draws, _image_size(images, sides), views.scale, views.ratio)
    planes = _crop_planes(images, boxes, views.size, draws.flip[:, 0] < views.flip)
    if views.jitter:
        planes = jitter(planes, *_jitter_settings(draws, views))
    if views.gray:
        planes = jnp.where(per_image(draws.gray[:, 0] < views.gray), luma(planes), planes)
    if max(views.blur):
        low, high = max(views.blur[0], NO_BLUR), views.blur[1]
        planes = blur(planes, low + (high - low) * draws.sigma[:, 0], blur_kernel(views.size))
    # The products of the crop may leave [0, 1] by a rounding error.
    return to_images(jnp.clip(planes, 0, 1))


def _jitter_settings(draws: Draws, views: ViewSettings) -> tuple[Float[Array, "batch 4"], Int[Array, "batch 4"]]:
    """Factors [B, 4] and orders [B, 4]; neutral factors for the images that are left alone."""
    amplitude = np.array([views.brightness, views.contrast, views.saturation, views.hue], np.float32)
    neutral = np.array([1, 1, 1, 0], np.float32)
    low = np.where(neutral > 0, np.maximum(neutral - amplitude, 0), -amplitude)
    high = neutral + amplitude
    factors = low + (high - low) * draws.factors
    factors = jnp.where(draws.jitter < views.jitter, factors, neutral)
    return factors, jnp.asarray(ORDERS)[_integer_below(draws.order, len(ORDERS))[:, 0]]


# ---------------------------------------------------------------- geometry


def crop_boxes(
    draws: Draws, image_size: tuple[Lengths, Lengths], scale: Range, ratio: Range
) -> Float[Array, "batch 4"]:
    """Boxes [B, 4] (top, left, height, width; whole pixels) of a random resized crop of [H, W] images.

    H and W are whole numbers, or [B, 1] where images differ.

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
    found = fits.any(axis=1, keepdims=True)
    fallback_height, fallback_width = _fallback_size(image_height, image_width, ratio)
    height = jnp.where(found, jnp.take_along_axis(heights, first, 1), fallback_height)
    width = jnp.where(found, jnp.take_along_axis(widths, first, 1), fallback_width)

    top = _integer_below(draws.place[:, :1], image_height - height + 1)
    left = _integer_below(draws.place[:, 1:], image_width - width + 1)
    top = jnp.where(found, top, (image_height - fallback_height) // 2)
    left = jnp.where(found, left, (image_width - fallback_width) // 2)
    return jnp.concatenate([top, left, height, width], axis=1).astype(jnp.float32)


def _fallback_size(height: Lengths, width: Lengths, ratio: Range) -> tuple[Array, Array]:
    """The largest size with an allowed aspect."""
    tall, wide = width < height * min(ratio), width > height * max(ratio)
    return (
        jnp.where(tall, jnp.round(width / min(ratio)), height),
        jnp.where(wide, jnp.round(height * max(ratio)), width),
    )


def _integer_below(uniform: Float[Array, "batch 1"], n: Real[Array, "batch 1"] | int) -> Int32[Array, "batch 1"]:
    """Uniform [0, 1) numbers to whole numbers 0..n-1 (int32)."""
    return jnp.minimum(jnp.floor(uniform * n), n - 1).astype(jnp.int32)


def crop_and_resize(images: Images, boxes: Real[AnyArray, "batch 4"], size: int) -> Resized:
    """Cut boxes [B, 4] (top, left, height, width; whole pixels) out of images, resize to [B, size, size, 3].

    Antialiased bilinear as in PIL: crop first, so no pixel from outside the box bleeds in.
    """
    return to_images(_crop_planes(images, boxes, size, jnp.zeros(len(boxes), bool)))


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
    if height == width == size:  # the products would be with ones, as exact and much slower
        return images
    shorter = min(height, width)
    rows = _central_weights(height, int(size * height / shorter), size)
    columns = _central_weights(width, int(size * width / shorter), size)
    return to_images(_resample(images, rows, columns))


def _central_weights(source: int, resized: int, size: int) -> Float[Array, "1 {size} {source}"]:
    """Weights [1, size, source]: the central `size` of `resized` output pixels."""
    first = round((resized - size) / 2)
    weights = _resize_weights(jnp.zeros(1), jnp.full(1, source, jnp.float32), source, resized)
    return weights[:, first : first + size]
