"""Images that a data set holds as plain tensors instead of files."""

import numpy as np
from PIL import Image

from simfle_jax.data.decode import BadImage

CHANNELS = (1, 3, 4)
FORM = "[H, W] or [H, W, C] with C = 1, 3 or 4, as uint8, uint16, integers in 0..255 or floats in 0..1"


def problem(shape: tuple[int | None, ...], dtype: np.dtype) -> str:
    """What keeps tensors of this shape (None: any) and type from being images; '' for none."""
    axes = len(shape) == 2 or (len(shape) == 3 and shape[2] in (None, *CHANNELS))
    # 'V' is how numpy sees bfloat16 and its kind, which have no place in images.
    return "" if axes and dtype.kind in "iuf" else f"{dtype} {[*shape]}, must be {FORM}"


def to_rgb8(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] RGB of a tensor [H, W] or [H, W, C]: 1 channel is grey, the fourth of 4 is opacity over white.

    Of uint16 the upper byte counts, as in 16-bit files; floats 0..1 stand for 0..255.

    Raises:
        BadImage: another shape or type, or values outside of their range.
    """
    wrong = problem(image.shape, image.dtype)
    if wrong or not image.size:
        raise BadImage(wrong or f"no pixels in {[*image.shape]}")
    values = _to_uint8(image)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    picture = Image.fromarray(np.ascontiguousarray(values))
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("RGB"))


def _to_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    top = 1 if image.dtype.kind == "f" else 255
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= top):  # said so that NaN is refused, too
        raise BadImage(f"{image.dtype} values from {low:g} to {high:g}, must lie in 0..{top}")
    return np.rint(image * 255.0).astype(np.uint8) if image.dtype.kind == "f" else image.astype(np.uint8)
