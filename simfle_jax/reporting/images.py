"""Which images a report looks at, and whether it may show them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from simfle_jax.data.decode import BadImage, decode
from simfle_jax.data.read_back import one_line, parse_json, read_npz
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError

AGAIN = "draw the faces again, by python -m simfle_jax.faces, or put it back from a copy"
LIMIT = 200  # images that one page may hold


class Sample(NamedTuple):
    """Some images of a source: uint8 [n, S, S, 3], and the numbers of those that could be read."""

    images: np.ndarray
    rows: np.ndarray


class Album:
    """Counts the images that a page shows: never more than LIMIT, and none where they may not be shown."""

    def __init__(self, allowed: bool):
        self.allowed = allowed
        self.shown: set[str] = set()

    def admit(self, names: list[str]) -> list[bool]:
        """Whether each image, by its name, may be shown. One that is on the page already costs nothing."""
        admitted = []
        for name in names:
            may = self.allowed and (name in self.shown or len(self.shown) < LIMIT)
            self.shown |= {name} if may else set()
            admitted.append(may)
        return admitted


def is_generated(path: str | Path) -> bool:
    """Whether a folder of images, or the one around it, was written by `simfle_jax.faces`: they show nobody."""
    return faces_folder(path) is not None


def faces_folder(path: str | Path) -> Path | None:
    """The folder of generated faces that `path` is or lies in, with faces.json and landmarks.npz; else None."""
    folder = Path(path)
    return next((place for place in (folder, folder.parent) if (place / "faces.json").is_file()), None)


def spread_rows(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` of `count` row numbers, evenly spread: of a listing by classes some of each class."""
    return (
        np.unique(np.linspace(0, max(count - 1, 0), min(wanted, count)).round().astype(int))
        if count
        else np.zeros(0, int)
    )


def sample(source: Source, rows: np.ndarray, canvas: int) -> Sample:
    """Decodes these rows of a source; those that cannot be read are left out. Raises UserError when none can."""
    images, read = [], []
    for row in rows.tolist():
        try:
            images.append(decode(source[row].data, canvas))
            read.append(row)
        except (BadImage, OSError):
            continue
    if not images:
        raise UserError(f"none of {len(rows)} images can be read")
    return Sample(np.stack(images), np.array(read))


def landmarks(folder: Path, names: list[str]) -> np.ndarray | None:
    """Landmarks [n, 68, 2] of generated faces by their names below `folder`, in 0..1; None where one has none.

    Raises:
        UserError: landmarks.npz or faces.json is damaged.
    """
    file = folder / "landmarks.npz"
    if not file.is_file():
        return None
    known, points = read_npz(file, ("name", "points"), AGAIN)
    if known.dtype.kind != "U" or points.dtype.kind != "f" or points.shape != (*known.shape, 68, 2) or known.ndim != 1:
        raise UserError(f"{file} is damaged, it holds no landmarks: {AGAIN}")
    places = {name: row for row, name in enumerate(known.tolist())}
    rows = [places.get(name) for name in names]
    return None if None in rows else points[np.array(rows, int)] / _side(folder / "faces.json")


def _side(file: Path) -> int:
    """The side of generated faces in pixels."""
    try:
        side = parse_json(file.read_text())["size"]
        if type(side) is int and side > 0:
            return side
        problem = "it tells no size"
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        problem = one_line(error)
    raise UserError(f"{file} is damaged ({problem}): {AGAIN}")
