"""From the bytes of an image file to one uint8 canvas.

A plain JPEG goes through libjpeg-turbo (simplejpeg), all else through Pillow. Both let other threads run
meanwhile.
"""

import contextlib
import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from simfle_jax.data.containers import END, PNG, bare_png, jpeg_bits, jpeg_orientation, lacks_only_its_end
from simfle_jax.data.files import BadImage

FORMATS = ("JPEG", "PNG", "WEBP")  # of Pillow's; others start programs of the system for what is in a file
# Above this (Pillow's own limit) an image is refused from its header: it would take more than 270 MB to
# decode.
MAX_PIXELS = 89_478_485
LONGEST = 16  # ratio of the sides beyond which only the central square is looked at
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # says the same, in four lines


def decode(data: bytes | np.ndarray, canvas: int, out: np.ndarray | None = None) -> np.ndarray:
    """Decodes an image file and fits it to the canvas.

    The shorter side is resized to `canvas`, antialiased bilinear, and the centre is cut out, with the numbers
    of torchvision's Resize and CenterCrop on a PIL image; an image of that size already is only cut. EXIF
    orientation is applied; CMYK, grey, palette and 16-bit images become 8-bit RGB; transparent pixels are
    laid on white; of an animation the first frame counts.

    A JPEG whose sides are both at least twice the canvas is decoded at the smallest of libjpeg's reduced
    sizes (halves, eighths) that still covers the canvas, and resized from there. For large photographs that
    saves most of the time; the result differs from that of a full decode as that of another antialiasing
    filter would. Either way the size to reach is that of the full image.

    A JPEG that lacks nothing but its end marker is used, and so is a PNG with any amount of text, with a broken
    colour profile or with wrong checksums outside of its pixels.

    Args:
        data: the bytes of the file, or pixels, uint8 [H, W, 3] RGB, which are only fitted.
        canvas: side of the result, in pixels.
        out: uint8 [canvas, canvas, 3], contiguous, filled when given.

    Returns:
        uint8 [canvas, canvas, 3], RGB (`out` when it was given).

    Raises:
        BadImage: empty, truncated, of another format than FORMATS, or of more than MAX_PIXELS pixels.
    """
    if out is None:
        out = np.empty((canvas, canvas, 3), np.uint8)
    if isinstance(data, np.ndarray):
        out[...] = data if data.shape == out.shape else _fit(Image.fromarray(data), canvas)
        return out
    if not data:
        raise BadImage("empty file")
    if data[:2] == b"\xff\xd8" and _decode_plain_jpeg(data, canvas, out):
        return out
    out[...] = _fit(open_rgb(data), canvas)
    return out


def decode_at_own_size(data: bytes | np.ndarray, canvas: int, least: int, out: np.ndarray) -> int:
    """Decodes an image file into the corner of a canvas, at its own size; never enlarges.

    The central square counts. A larger one than the canvas is halved (other files than JPEG: divided by a whole number)
    until it fits; where that would leave less than `least` pixels it is resized to the canvas as by `decode`. What is
    read, converted and refused is the same as there.

    Args:
        data: the bytes of the file, or pixels, uint8 [H, W, 3] RGB.
        canvas: side of `out`, in pixels.
        least: pixels that an image has after it was halved.
        out: uint8 [canvas, canvas, 3], contiguous; filled, with 0 beside and below the image.

    Returns:
        The side of the image in `out`.

    Raises:
        BadImage: as `decode`.
    """
    if isinstance(data, np.ndarray):
        return _place(data if min(data.shape[:2]) <= canvas else _reduced(Image.fromarray(data), canvas, least), out)
    if not data:
        raise BadImage("empty file")
    if data[:2] == b"\xff\xd8" and (side := _jpeg_at_own_size(data, canvas, least, out)):
        return side
    return _place(_reduced(open_rgb(data), canvas, least), out)


def reduction(side: int, canvas: int, least: int) -> int:
    """By how much a JPEG's decoder divides an image of this shorter side: 1, 2, 4, 8, or 0 where none of them fits."""
    if side <= canvas:
        return 1
    return next((factor for factor in (2, 4, 8) if least <= -(-side // factor) <= canvas), 0)


def _jpeg_at_own_size(data: bytes, canvas: int, least: int, out: np.ndarray) -> int:
    """The side in `out`; 0 when Pillow must convert or judge."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height)
        if colours not in ("YCbCr", "Gray", "RGB") or jpeg_orientation(data) != 1:
            return 0
        factor = reduction(min(height, width), canvas, least)
        if height == width == canvas:
            simplejpeg.decode_jpeg(data, "RGB", buffer=out)
            return canvas
        if factor == 1:
            return _place(simplejpeg.decode_jpeg(data, "RGB"), out)
        if factor:
            high, wide = -(-height // factor), -(-width // factor)
            return _place(simplejpeg.decode_jpeg(data, "RGB", min_height=high, min_width=wide), out)
    except ValueError:
        return 0
    return canvas if _decode_plain_jpeg(data, canvas, out) else 0


def _reduced(image: Image.Image, canvas: int, least: int) -> np.ndarray:
    side = min(image.size)
    factor = -(-side // canvas)
    if -(-side // factor) < min(side, least):
        return _fit(image, canvas)
    return np.asarray(image.reduce(factor) if factor > 1 else image)


def _place(pixels: np.ndarray, out: np.ndarray) -> int:
    """Puts the central square of uint8 [H, W, 3] into the corner of `out`, 0 around it; returns its side."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    out[:side, :side] = pixels[top : top + side, left : left + side]
    out[side:] = 0
    out[:side, side:] = 0
    return side


def _decode_plain_jpeg(data: bytes, canvas: int, out: np.ndarray) -> bool:
    """Fills `out` by libjpeg-turbo; False when Pillow must convert (CMYK, rotated) or judge (damaged)."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height)
        if colours not in ("YCbCr", "Gray", "RGB") or jpeg_orientation(data) != 1:
            return False
        if height == canvas and width == canvas:
            simplejpeg.decode_jpeg(data, "RGB", buffer=out)
            return True
        # Reductions by less than two cost more than they save; simplejpeg judges by the longer side alone.
        least = canvas if min(width, height) >= 2 * canvas else 0
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least, min_factor=2)
    except ValueError:
        return False
    out[...] = _fit(Image.fromarray(pixels), canvas, (width, height))
    return True


def open_rgb(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Opens an image of Pillow's `formats` as 8-bit RGB, the right way up; raises BadImage as `decode` does."""
    try:
        return _open_rgb(data, formats)
    except BadImage:
        if data.startswith(PNG) and len(bare := bare_png(data)) < len(data):
            return _open_rgb(bare, formats)
        if data.startswith(b"\xff\xd8") and lacks_only_its_end(data) and _is_whole(data + END):
            return _open_rgb(data + END, formats)
        raise


def _open_rgb(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        _check_size(*image.size)
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"more than {MAX_PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise BadImage(_unidentified(data, formats)) from None
    except Exception as error:  # Pillow's plug-ins raise nearly anything on damaged files
        raise BadImage(f"damaged: {' '.join(str(error).split())[:120]}") from None


def read_header(data: bytes) -> Image.Image:
    """The image with its size, mode and format but not its pixels; raises BadImage as `decode` does."""
    for content in (data, bare_png(data)) if data.startswith(PNG) else (data,):
        with contextlib.suppress(Exception):  # Pillow's plug-ins raise nearly anything on damaged files
            return Image.open(io.BytesIO(content), formats=FORMATS)
    raise BadImage(_unidentified(data, FORMATS))


def _unidentified(data: bytes, formats: tuple[str, ...]) -> str:
    if data.startswith(b"\xff\xd8"):
        bits = jpeg_bits(data)
        return f"a JPEG of {bits} bits a colour; only those of 8 can be read" if bits > 8 else "damaged: no whole JPEG"
    if data.startswith((PNG, b"RIFF")):
        return "damaged: its beginning is no whole image"
    if formats == FORMATS:
        return "not a JPEG, PNG or WebP image"
    return f"not a {', '.join(formats[:-1])} or {formats[-1]} image"


def _is_whole(data: bytes) -> bool:
    """Whether libjpeg-turbo finds nothing wrong with a JPEG; of one cut short it misses pixels."""
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        simplejpeg.decode_jpeg(data, "CMYK" if colours in ("CMYK", "YCCK") else "RGB")
    except ValueError:
        return False
    return True


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips at 255 instead of scaling.
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _fit(image: Image.Image, canvas: int, full: tuple[int, int] | None = None) -> np.ndarray:
    """Resizes the shorter side to `canvas` and cuts the centre out: uint8 [canvas, canvas, 3].

    `full`: width and height of the image that `image` is a reduction of. The rounded sizes of the reduction are not in
    its proportions: they would shift whatever lies off the centre.
    """
    width, height = full or image.size
    scale = 8 * max(image.size) // max(width, height) / 8  # libjpeg's, in eighths; it rounds the sides up
    short = min(width, height)
    wide, high = (min(side, short if side > LONGEST * short else side) for side in (width, height))
    # Only the central square of 1 x 5,000 pixels: all of it would grow to gigabytes.
    left, top = round((width - wide) / 2), round((height - high) / 2)
    box = (left * scale, top * scale, (left + wide) * scale, (top + high) * scale)
    size = (int(canvas * wide / short), int(canvas * high / short))
    if box != (0, 0, *size):
        image = image.resize(size, Image.Resampling.BILINEAR, box)
    return np.asarray(_cut_centre(image, canvas))


def fitted(side: int, short: int, canvas: int) -> tuple[float, float]:
    """What of a side of an image becomes the canvas: where it begins and how long it is, in pixels of the image.

    short: its shorter side. Sizes and cuts are whole pixels, so that this is not the exact centre, nor quite a square.
    """
    kept = short if side > LONGEST * short else side
    size = int(canvas * kept / short)
    start, left = round((size - canvas) / 2), round((side - kept) / 2)
    return left + start * kept / size, canvas * kept / size


def _cut_centre(image: Image.Image, side: int) -> Image.Image:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))
