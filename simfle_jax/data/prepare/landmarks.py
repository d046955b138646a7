"""landmarks.npz of a prepared folder: the owners' points in pixels of the images that were cut out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from simfle_jax.data.prepare.encode import LONGEST, window
from simfle_jax.data.prepare.plan import Item
from simfle_jax.data.prepare.video import video_size
from simfle_jax.data.prepare.writer import names_in
from simfle_jax.progress import Progress
from simfle_jax.writing import writing_whole

NAME = "landmarks.npz"
ORIENTATION = 0x0112  # EXIF's


def save(items: Iterable[Item], out: Path) -> None:
    """Writes `name` [n], `points` [n, P, 2] and the owners' `subsets` bool [n, s] with `subset_names` [s].

    Does nothing where no image has points.
    """
    named = {item: name for item, name in names_in(items).items() if item.points}
    if not named:
        return
    progress, points = Progress(len(named), "landmarks"), list[np.ndarray]()
    for item in named:
        points.append(in_pixels(item))
        progress.update(len(points))
    subsets = sorted({name for item in named for name in item.subsets})
    flags = np.array([[name in item.subsets for name in subsets] for item in named])
    with writing_whole(out / NAME) as part:
        np.savez_compressed(
            part,
            name=np.array(list(named.values())),
            points=np.stack(points),
            subsets=flags,
            subset_names=np.array(subsets),
        )


def in_pixels(item: Item) -> np.ndarray:
    """The points [P, 2] of an image in pixels of its file."""
    points = np.array(item.points, np.float64).reshape(-1, 2)
    if item.box is None:
        return points.astype(np.float32)
    left, top, size = window(_size_of(item), item.box)
    return ((points - (left, top)) * (min(size, LONGEST) / size)).astype(np.float32)


def _size_of(item: Item) -> tuple[int, int]:
    """Width and height of the upright image."""
    assert item.path is not None
    if item.frame:
        return video_size(item.path)
    with Image.open(item.path) as image:
        return image.size if image.getexif().get(ORIENTATION, 1) < 5 else image.size[::-1]
