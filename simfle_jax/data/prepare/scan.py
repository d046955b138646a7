"""Reads every image of a folder once and keeps what a check needs of it: a few hundred bytes each."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from simfle_jax.data.containers import lacks_only_its_end
from simfle_jax.data.decode import BadImage, decode, read_header
from simfle_jax.data.listing import list_images
from simfle_jax.data.prepare.folder import SPLIT_NAMES
from simfle_jax.data.prepare.layout import subfolders
from simfle_jax.data.sources import FolderSource
from simfle_jax.progress import Progress

CANVAS = 128  # pixels; statistics and hashes are of the image as training decodes it, at this side
THUMBNAIL = 16  # pixels
CHUNK = 64  # images that a thread takes at a time


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """One image. `path` is relative to the checked folder; `bad` says why it cannot be used, or is ''."""

    path: str
    split: str  # 'train', 'val' (also of test/ and so on), or '' where the folder has no splits
    label: str  # class folder, or ''
    size: int  # bytes
    digest: bytes = b""  # SHA-256 of the file
    bad: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""  # Pillow's: RGB, L, P, CMYK, I;16 ...
    format: str = ""
    endless: bool = False  # a JPEG that is used although its end marker is missing
    thumbnail: np.ndarray | None = None  # uint8 [16, 16], grey
    sums: np.ndarray | None = None  # float64 [2, 3]: sum of the values in [0, 1] and of their squares, per channel


def scan(root: Path) -> list[Facts]:
    """Examines all images that training would list, in threads. Raises UserError where there is none.

    validation/, test/ and so on beside train/ count as val: what they share with train leaks.
    """
    there = {path.name.lower(): path.name for path in subfolders(root)}
    splits = [(split, there[name]) for split, names in SPLIT_NAMES.items() for name in names if name in there]
    if "train" not in dict(splits):  # classes may be called so
        splits = [(split, folder) for split, folder in splits if folder == "val"]
    further = [folder for _, folder in splits if folder not in ("train", "val")]
    empty = {folder for folder in further if not list_images(str(root / folder)).names}
    splits = [(split, folder) for split, folder in splits if folder not in empty]
    parts = [(split, folder, FolderSource(root, split=folder)) for split, folder in splits]
    parts = parts or [("", "", FolderSource(root))]
    places = [(*part, index) for part in parts for index in range(len(part[2]))]
    progress, found = Progress(len(places), "checking"), []

    def run(start: int) -> list[Facts]:
        return [_examine(*place) for place in places[start : start + CHUNK]]

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for some in pool.map(run, range(0, len(places), CHUNK)):
            found.extend(some)
            progress.update(len(found))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _examine(split: str, folder: str, source: FolderSource, index: int) -> Facts:
    name = source.name(index)
    path = f"{folder}/{name}" if split else name
    label = name.partition("/")[0] if "/" in name else ""
    try:
        data = source[index].data
    except OSError as error:
        return Facts(path, split, label, 0, bad=f"cannot be read: {error.strerror}")
    except BadImage as error:
        return Facts(path, split, label, 0, bad=str(error))
    assert isinstance(data, bytes)  # of a folder they are files
    facts = Facts(path, split, label, len(data), hashlib.sha256(data).digest())
    try:
        return dataclasses.replace(facts, **_measured(data))
    except BadImage as error:
        return dataclasses.replace(facts, bad=str(error))


def _measured(data: bytes) -> dict:
    pixels = decode(data, CANVAS)
    with read_header(data) as image:
        header = {"width": image.width, "height": image.height, "mode": image.mode, "format": image.format or ""}
    cells = pixels.reshape(THUMBNAIL, CANVAS // THUMBNAIL, THUMBNAIL, CANVAS // THUMBNAIL, 3)
    values = pixels.reshape(-1, 3).astype(np.float32) / 255
    sums = np.stack([values.sum(0, dtype=np.float64), (values**2).sum(0, dtype=np.float64)])
    grey = cells.mean((1, 3)) @ np.array([0.299, 0.587, 0.114])
    header["endless"] = data.startswith(b"\xff\xd8") and lacks_only_its_end(data)
    return {**header, "thumbnail": np.round(grey).astype(np.uint8), "sums": sums}
