"""From the bytes of an image file to one uint8 canvas.

A plain JPEG goes through libjpeg-turbo (simplejpeg), all else through Pillow. Both let other threads run
meanwhile.
"""

import io
import struct
import warnings

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

# Above this (Pillow's own limit) an image is refused from its header: it would take more than 270 MB to
# decode.
MAX_PIXELS = 89_478_485
LONGEST = 16  # ratio of the sides beyond which only the central square is looked at
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # says the same, in four lines


class BadImage(Exception):
    """An image that cannot be used; the message is the reason in a few words."""


def decode(data: bytes | np.ndarray, canvas: int, out: np.ndarray | None = None) -> np.ndarray:
    """Decodes an image file and fits it to the canvas.

    The shorter side is resized to `canvas`, antialiased bilinear, and the centre is cut out, with the numbers
    of torchvision's Resize and CenterCrop on a PIL image; an image of that size already is only cut. EXIF
    orientation is applied; CMYK, grey, palette and 16-bit images become 8-bit RGB; transparent pixels are
    laid on white; of an animation the first frame counts.

    A JPEG whose sides are both at least twice the canvas is decoded at the smallest of libjpeg's reduced
    sizes (halves, eighths) that still covers the canvas, and resized from there. For large photographs that
    saves most of the time; the result differs from that of a full decode as that of another antialiasing
    filter would.

    Args:
        data: the bytes of the file, or pixels, uint8 [H, W, 3] RGB, which are only fitted.
        canvas: side of the result, in pixels.
        out: uint8 [canvas, canvas, 3], contiguous, filled when given.

    Returns:
        uint8 [canvas, canvas, 3], RGB (`out` when it was given).

    Raises:
        BadImage: empty, truncated, not an image, or of more than MAX_PIXELS pixels.
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


def _decode_plain_jpeg(data: bytes, canvas: int, out: np.ndarray) -> bool:
    """Fills `out` by libjpeg-turbo; False when Pillow must convert (CMYK, rotated) or judge (damaged)."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height)
        if colours not in ("YCbCr", "Gray", "RGB") or _exif_orientation(data) != 1:
            return False
        if height == canvas and width == canvas:
            simplejpeg.decode_jpeg(data, "RGB", buffer=out)
            return True
        # min_factor: libjpeg's reductions by less than two cost more than they save.
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=canvas, min_width=canvas, min_factor=2)
    except ValueError:
        return False
    out[...] = _fit(Image.fromarray(pixels), canvas)
    return True


def _exif_orientation(data: bytes) -> int:
    # Most files of a face data set have none, and parsing costs as much as decoding: look for the marker
    # first.
    start = data.find(b"Exif\0\0", 0, 65536)
    if start < 0:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data[start : start + 65536])
        return exif.get(0x0112, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error, OSError):
        return 1


def open_rgb(data: bytes) -> Image.Image:
    """Opens anything Pillow reads as 8-bit RGB, the right way up; raises BadImage as `decode` does."""
    try:
        image = Image.open(io.BytesIO(data))
        _check_size(*image.size)
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"more than {MAX_PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise BadImage("not an image") from None
    except Exception as error:  # Pillow's plug-ins raise nearly anything on damaged files
        raise BadImage(f"damaged: {' '.join(str(error).split())[:120]}") from None


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


def _fit(image: Image.Image, canvas: int) -> np.ndarray:
    """Resizes the shorter side to `canvas` and cuts the centre out: uint8 [canvas, canvas, 3]."""
    short = min(image.size)
    if max(image.size) > LONGEST * short:
        image = _cut_centre(image, short)  # 1 x 5,000 pixels would grow to gigabytes
    if short != canvas:
        width, height = (int(canvas * side / short) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(_cut_centre(image, canvas))


def _cut_centre(image: Image.Image, side: int) -> Image.Image:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))
