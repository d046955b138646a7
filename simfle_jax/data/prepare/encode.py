"""The bytes of the images that cannot be taken over as they are: cut faces, listed pixels, other formats."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from simfle_jax.data.decode import FORMATS, BadImage, open_rgb
from simfle_jax.data.photographs.alignment import Alignment
from simfle_jax.data.prepare.plan import Item
from simfle_jax.data.prepare.video import frame_of

READ = (*FORMATS, "GIF", "BMP", "TIFF", "PPM", "JPEG2000")  # what owners give out; none of them runs a program
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}  # subsampling 0: full colour resolution
Box = tuple[float, float, float, float]  # x, y, width, height in pixels
LONGEST = 256  # pixels; larger cut faces are reduced to it: photographs are many times a canvas


def encoded(item: Item) -> bytes:
    """The file of an image with `box`, with `pixels`, or in a format to be changed.

    Cut faces become JPEG of quality 95, the others PNG without loss.

    Raises:
        BadImage: the image cannot be decoded, or its box lies outside of it.
    """
    image = picture(item)
    if item.box is None or item.pixels is not None:
        return _saved(image, format="PNG")
    return _saved(cut(image, item.box), **JPEG)


def aligned_file(item: Item, suffix: str, alignment: Alignment) -> bytes | None:
    """The file of an image's face in the crop, in the format that its name's ending says; None: to be kept as it is.

    Raises:
        BadImage: the image cannot be decoded, or has no face and is to be dropped.
    """
    crop = alignment.crop(np.asarray(picture(item).convert("RGB")), item.box, item.path or item.name)
    if crop is None:
        return None
    formats: dict[str, dict[str, Any]] = {".png": {"format": "PNG"}, ".webp": {"format": "WEBP", "quality": 95}}
    return _saved(Image.fromarray(crop), **formats.get(suffix.lower(), JPEG))


def picture(item: Item) -> Image.Image:
    """The whole image, upright; raises BadImage."""
    if item.pixels is not None:
        side = round(len(item.pixels) ** 0.5)
        return Image.fromarray(np.frombuffer(item.pixels, np.uint8).reshape(side, side))
    assert item.path is not None
    if item.frame:
        return frame_of(item.path, item.frame)
    with open(item.path, "rb") as file:
        return open_rgb(file.read(), READ)


def with_margin(box: Box, margin: float) -> Box:
    """The square around a face box (x, y, width, height), wider by `margin` of its longer side on each edge."""
    x, y, width, height = box
    side = max(width, height) * (1 + 2 * margin)
    return x + width / 2 - side / 2, y + height / 2 - side / 2, side, side


def cut(image: Image.Image, square: Box) -> Image.Image:
    """Cuts out a square (x, y, side, side), moved inside the image and no larger than it, at most LONGEST wide.

    Nothing is padded: black borders would be a feature to learn. Reduced by antialiased bilinear resizing.
    """
    left, top, size = window(image.size, square)
    face = image.crop((left, top, left + size, top + size))
    return face.resize((LONGEST, LONGEST), Image.Resampling.BILINEAR) if size > LONGEST else face


def window(image: tuple[int, int], square: Box) -> tuple[int, int, int]:
    """Left, top and side of what `cut` takes of an image of this width and height; raises BadImage."""
    (x, y, side, _), (width, height) = square, image
    if x >= width or y >= height or x + side <= 0 or y + side <= 0:
        raise BadImage("face box outside of the image")
    size = max(1, round(min(side, width, height)))
    left = min(max(round(x + (side - size) / 2), 0), width - size)
    top = min(max(round(y + (side - size) / 2), 0), height - size)
    return left, top, size


def _saved(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()
