"""The crop: eyes at fixed places of a square. Published scores hinge on it, so it has a version, which is recorded.

`eyes-1`: the middle of the eye on the image's left lies at 35 % of the side from the left and 40 % from the top, that of
the other eye at 65 % and 40 %. Turned, scaled and moved for that (a similarity: nothing is sheared), reduced by averaging
and then bilinear. The square is ten thirds of the eyes' distance wide: all of the face with some hair. What lies beyond the
photograph is its nearest pixel repeated: black borders would be a feature to learn.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from simfle_jax.data.read_back import parse_json
from simfle_jax.storage import Bucket, is_bucket

VERSION = "eyes-1"
NOT_ALIGNED = "as given"  # of images whose crop is their owner's
LEFT_EYE, RIGHT_EYE = (0.35, 0.40), (0.65, 0.40)  # as seen in the image, in sides of the crop from its top left corner
DESCRIPTIONS = {
    VERSION: f"`{VERSION}`, eyes at {100 * LEFT_EYE[0]:.0f} and {100 * RIGHT_EYE[0]:.0f} % of the side from the left and "
    f"{100 * LEFT_EYE[1]:.0f} % from the top, turned, scaled and shifted for that, the border's pixels repeated",
    NOT_ALIGNED: "as given in the data set, by an alignment that is not recorded",
}
SIDE = 224  # pixels of a crop that is written to a file
MANIFEST = "manifest.json"  # of a prepared folder: its rules say the crop
INDICES = ("index.json", "train/index.json", "val/index.json")  # of a pack: its parts say the crop


def similarity(eyes: np.ndarray, side: int) -> np.ndarray:
    """Crop to photograph: [2, 3] that takes (x, y, 1) in pixels of the crop to pixels of the photograph.

    eyes: float [2, 2], x and y of the eye on the image's left, then of the other; (0, 0) is the outer corner of the first
    pixel, as everywhere here.
    """
    left, right = np.asarray(eyes, np.float64)
    across = (right - left) / ((RIGHT_EYE[0] - LEFT_EYE[0]) * side)  # of the photograph, for a pixel of the crop
    linear = np.array([[across[0], -across[1]], [across[1], across[0]]])
    start = left - linear @ (np.array(LEFT_EYE) * side)
    return np.concatenate([linear, start[:, None]], axis=1)


def aligned(image: np.ndarray, eyes: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The crop of a face: uint8 [side, side, 3] of a photograph uint8 [H, W, 3] and its eyes [2, 2]."""
    matrix = similarity(eyes, side)
    corners = np.array([[0, 0, 1], [side, 0, 1], [0, side, 1], [side, side, 1]]) @ matrix.T
    factor = max(1, math.floor(np.hypot(*matrix[:, 0])))  # whole pixels of the photograph to one of the crop
    low = np.floor(corners.min(0)).astype(int) - 2 * factor
    high = np.ceil(corners.max(0)).astype(int) + 2 * factor
    columns, rows = (np.arange(a, b).clip(0, n - 1) for a, b, n in zip(low, high, image.shape[1::-1]))
    part = Image.fromarray(image[rows[:, None], columns])
    if factor > 1:
        part = part.reduce(factor)
    shift = matrix[:, 2] - low
    data = [*(matrix[0, :2] / factor), shift[0] / factor, *(matrix[1, :2] / factor), shift[1] / factor]
    return np.asarray(part.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))


def crop_of(*paths: str) -> str:
    """The crop of files and folders of prepared folders, and of packs, as they tell; NOT_ALIGNED where none does.

    Raises:
        UserError: a bucket cannot be reached.
    """
    return ", ".join(sorted({_crop_of(path) for path in paths if path})) or NOT_ALIGNED


def _crop_of(path: str) -> str:
    folder = path.rstrip("/") if is_bucket(path) else os.path.abspath(path)  # "." has a parent, too
    places = [(folder, INDICES, ("crop",)), (folder, (MANIFEST,), ("rules", "align"))]
    for _ in range(1 if is_bucket(path) else 3):  # of OUT/train/CLASS/IMAGE; in a bucket every place is a request
        folder = os.path.dirname(folder)
        places.append((folder, (MANIFEST,), ("rules", "align")))
    told = (_told(_reader(place), files, *keys) for place, files, keys in places)
    return next((crop for crop in told if crop != NOT_ALIGNED), NOT_ALIGNED)


def _told(read: Callable[[str], bytes | None], files: tuple[str, ...], *keys: str) -> str:
    """What the first of some JSON files that has it says under `keys`."""
    for file in files:
        try:
            value = parse_json(read(file) or b"")
            for key in keys:
                value = value[key]
            return str(value)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return NOT_ALIGNED


def _reader(folder: str) -> Callable[[str], bytes | None]:
    """What reads a file of a folder, or of a bucket."""
    if folder.endswith(":/"):  # what a bucket lies in
        return lambda name: None
    return Bucket(folder).read if is_bucket(folder) else lambda name: Path(folder, name).read_bytes()


def crop_warning(trained_on: str, given: str) -> str:
    """What to tell where an encoder sees another crop than it was trained on; '' for nothing.

    trained_on: of the encoder, its metadata's `crop`; '' where they do not tell. given: of the images, as `crop_of` says.
    """
    if trained_on == given or (not trained_on and given == NOT_ALIGNED):
        return ""
    if NOT_ALIGNED in given.split(", "):
        return (
            f"the encoder was trained on faces aligned as {trained_on}: give --align unless the images are such crops"
        )
    before = f"on the crop {trained_on!r}" if trained_on else "on a crop that it does not tell"
    return f"the encoder was trained {before}, these faces are aligned as {given}: expect less, and measure it"
