"""The published input recipe on the host, written with Pillow from the method's description: a baseline for speed.

Per image: two views (crop, flip, jitter, grey, blur, normalise) and the plain image, each as float32 arrays.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MEAN = np.array((0.5795, 0.4522, 0.3957), np.float32)
STD = np.array((0.2769, 0.2473, 0.2412), np.float32)
BILINEAR = Image.Resampling.BILINEAR


def load(path: Path, rng: np.random.Generator, size: int = 224) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x1, x2 float32 [size, size, 3] and o float32 [size/2, size/2, 3] of one file."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    plain = ImageOps.fit(image, (size // 2, size // 2), BILINEAR)
    return view(image, rng, size), view(image, rng, size), normalise(to_float(plain))


def view(image: Image.Image, rng: np.random.Generator, size: int) -> np.ndarray:
    """One augmented view, float32 [size, size, 3]."""
    image = image.resize((size, size), BILINEAR, box=crop_box(*image.size, rng))
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    if rng.random() < 0.8:
        image = jitter(image, rng)
    if rng.random() < 0.2:
        image = ImageOps.grayscale(image).convert("RGB")
    return normalise(blur(to_float(image), rng.uniform(0.1, 2), 2 * (int(0.1 * size) // 2) + 1))


def crop_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of .08 to 1 of the area and aspect 3/4 to 4/3; ten tries, then the centre."""
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast, saturation within .8 and hue within .2, in random order."""
    for operation in rng.permutation(4):
        if operation == 3:
            image = shift_hue(image, rng.uniform(-0.2, 0.2))
        else:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[operation]
            image = enhance(image).enhance(rng.uniform(0.2, 1.8))
    return image


def shift_hue(image: Image.Image, shift: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(level + int(shift * 255)) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def blur(image: np.ndarray, sigma: float, taps: int) -> np.ndarray:
    """Gaussian blur by two passes with reflected borders."""
    offsets = np.arange(taps, dtype=np.float32) - taps // 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2)).astype(np.float32)
    weights /= weights.sum()
    for axis in (0, 1):
        pad = [(taps // 2, taps // 2) if axis == a else (0, 0) for a in range(3)]
        padded, length = np.pad(image, pad, "reflect"), image.shape[axis]
        shifted = (padded[k : k + length] if axis == 0 else padded[:, k : k + length] for k in range(taps))
        image = np.zeros_like(image)
        for weight, part in zip(weights, shifted):
            image += weight * part
    return image


def to_float(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / 255


def normalise(image: np.ndarray) -> np.ndarray:
    return (image - MEAN) / STD
