"""True points from files: landmarks.npz as `simfle_jax.faces` and `prepare` write it, a csv, or .pts beside images.

Points are x, y in pixels of the upright image, (0, 0) the outer corner of the first pixel.
"""

import csv
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simfle_jax.data.pts import ENDING, NotPoints, read_pts
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError
from simfle_jax.evaluation.landmarks.schemes import scheme_of

NPZ = "landmarks.npz"


class Table(NamedTuple):
    """The points of images by name."""

    where: str  # the file or folder, for messages
    names: list[str]
    points: np.ndarray  # [n, P, 2]
    subsets: dict[str, np.ndarray]  # bool [n]: which images are in a part of the set that its owners name


def read_table(path: Path) -> Table:
    """A .npz, a .csv, or a folder in which .pts files lie beside the images.

    Raises:
        UserError: not there, another form, or what `check` finds.
    """
    if path.is_dir():
        table = _read_pts_below(path)
    elif path.suffix == ".npz":
        table = _read_npz(path)
    elif path.suffix == ".csv":
        table = _read_csv(path)
    else:
        raise UserError(
            f"landmarks: no points at {path}: give a .npz, a .csv or a folder with {ENDING} beside the images"
        )
    check(table)
    return table


def points_in(sources: Mapping[str, Source], where: str) -> Table:
    """The points that sources hold themselves, by split; raises UserError as `check` does."""
    names = [f"{split}/{source.name(i)}" for split, source in sources.items() for i in range(len(source))]
    table = Table(where, names, np.concatenate([source.read_points() for source in sources.values()]), {})  # type: ignore[attr-defined]
    check(table)
    return table


def check(table: Table) -> None:
    """Raises UserError: a name that stands twice, a number that is not finite, another count or order of points."""
    if not table.names:
        raise UserError(f"{table.where} holds no points of any image")
    seen = set[str]()
    twice = next((name for name in table.names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
    if twice is not None:
        folders = "" if "/" in twice else ", or write the folders too, as in train/CLASS/IMAGE"
        raise UserError(f"{table.where} has points of {twice} twice: remove one of them{folders}")
    scheme = scheme_of(table.points.shape[1], table.where)
    finite = np.isfinite(table.points).all(-1)
    if not finite.all():
        image, point = np.argwhere(~finite)[0]
        raise UserError(f"{table.where}: point {point} of {table.names[image]} is not a number: mend or remove its row")
    left, right = (table.points[:, eye] for eye in scheme.eyes)
    upright = (left[:, 0] < right[:, 0]) & (table.points[:, scheme.chin, 1] > (left + right)[:, 1] / 2)
    if upright.mean() < 0.5:
        raise UserError(
            f"{table.where}: in {(~upright).sum()} of {len(upright)} images the chin is not below the eyes, or the left "
            "eye not left of the right one: are the columns x, y of each point in turn, or named x_0, y_0 and so on?"
        )


def _read_npz(path: Path) -> Table:
    try:
        with np.load(path) as file:
            names, points = [str(name) for name in file["name"]], np.asarray(file["points"], np.float32)
            flags = np.asarray(file["subsets"], bool) if "subsets" in file else np.zeros((len(names), 0), bool)
            subsets = [str(name) for name in file["subset_names"]] if "subset_names" in file else []
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no file of `name` and `points`: {' '.join(str(error).split())[:200]}") from None
    if (
        points.ndim != 3
        or points.shape[2] != 2
        or len(points) != len(names)
        or flags.shape != (len(names), len(subsets))
    ):
        raise UserError(
            f"{path}: points must be [n, P, 2] with n names, not {list(points.shape)} with {len(names)} names"
        )
    return Table(str(path), names, points, dict(zip(subsets, flags.T)))


# ---------------------------------------------------------------- csv


def _read_csv(path: Path) -> Table:
    """A row an image: its name, then x, y of each point in turn; or columns that a header names x_0, y_0 and so on."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    if not rows:
        raise UserError(f"{path} is empty: expected a row of an image's name and its points")
    order, name, first = _columns(path, rows[0])
    names, points = list[str](), list[np.ndarray]()
    for number, row in enumerate(rows[first:], first + 1):
        width = max(order) + 1
        if len(row) <= max(width - 1, name) or (first == 0 and len(row) != width):
            raise UserError(f"{path} line {number}: {len(row)} columns, expected {width}: mend or remove this line")
        names.append(row[name].replace("\\", "/"))
        points.append(_numbers((row[i] for i in order), f"{path} line {number}"))
    return Table(str(path), names, np.stack(points) if points else np.zeros((0, 68, 2), np.float32), {})


def _columns(path: Path, first: list[str]) -> tuple[list[int], int, int]:
    """The columns of x0, y0, x1, y1 ... in this order, that of the names, and how many lines the header takes."""
    named = {
        match[1].lower() + match[2]: i
        for i, cell in enumerate(first)
        if (match := re.fullmatch(r"([xyXY])_?(\d+)", cell))
    }
    if named:
        numbers = sorted(int(key[1:]) for key in named if key[0] == "x")
        missing = [f"y_{n}" for n in numbers if f"y{n}" not in named]
        gaps = numbers != list(range(min(numbers, default=0), min(numbers, default=0) + len(numbers)))
        if missing or gaps or len(named) != 2 * len(numbers):
            raise UserError(
                f"{path} line 1: each column x_0, x_1 ... needs its y_0, y_1 ..., and no number may be left out"
            )
        others = [i for i in range(len(first)) if i not in named.values()]
        texts = [
            i for i in others if first[i].lower() in ("name", "file", "image", "filename", "image_name", "path", "")
        ]
        if not texts:
            raise UserError(f"{path} line 1: no column of the images' names: call it `name`")
        return [named[f"{axis}{n}"] for n in numbers for axis in "xy"], texts[0], 1
    if len(first) < 3 or len(first) % 2 == 0:
        raise UserError(
            f"{path} line 1: {len(first)} column{'s' * (len(first) != 1)} between commas; expected the image's name and x, y of each point"
        )
    header = not _is_number(first[1]) or first[1:4] == ["0", "1", "2"]
    return list(range(1, len(first))), 0, int(header)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(cells: Iterable[str], where: str) -> np.ndarray:
    """Points [P, 2]; an empty cell is NaN, which `check` tells."""
    try:
        return np.array([float(cell or "nan") for cell in cells], np.float32).reshape(-1, 2)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


# ---------------------------------------------------------------- .pts


def _read_pts_below(folder: Path) -> Table:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ENDING)
    if not files:
        raise UserError(
            f"no points for {folder}: it holds no {NPZ} and no {ENDING} files; give --config.landmarks.file"
        )
    points = [_points_of(path) for path in files]
    counts = {len(each): path for each, path in zip(points, files)}
    if len(counts) > 1:
        told = " and ".join(f"{count} ({path})" for count, path in sorted(counts.items())[:2])
        raise UserError(f"{folder}: {ENDING} files of different numbers of points: {told}")
    return Table(
        str(folder), [path.relative_to(folder).with_suffix("").as_posix() for path in files], np.stack(points), {}
    )


def _points_of(path: Path) -> np.ndarray:
    try:
        return read_pts(path)
    except NotPoints as error:
        raise UserError(f"{path}: {error}") from None


# ---------------------------------------------------------------- which points are whose


def rows_of(table: Table, names: Iterable[str], split: str) -> np.ndarray:
    """For each image of a split its row in the table, -1 for none.

    An image goes by split/NAME, by NAME, or by its file's name alone; .pts leave the ending out.

    Raises:
        UserError: two images go by one row.
    """
    numbers, owners, found = {name: row for row, name in enumerate(table.names)}, dict[int, str](), list[int]()
    for name in names:
        whole = (f"{split}/{name}", name, name.rpartition("/")[2])
        row = next((numbers[key] for each in whole for key in (each, each.rpartition(".")[0]) if key in numbers), -1)
        if row >= 0 and owners.setdefault(row, name) != name:
            raise _ambiguous(table, row, f"{split}/{owners[row]}", f"{split}/{name}")
        found.append(row)
    return np.array(found, int)


def check_apart(table: Table, sets: Mapping[str, Iterable[str]]) -> None:
    """Raises UserError where images of two sets, names by split, go by one row: one of them would get the other's points."""
    owners = dict[int, str]()
    for split, names in sets.items():
        names = list(names)
        own = {
            int(row): f"{split}/{name}"
            for name, row in zip(names, rows_of(table, names, split), strict=True)
            if row >= 0
        }
        for row in own.keys() & owners.keys():
            raise _ambiguous(table, row, owners[row], own[row])
        owners |= own


def _ambiguous(table: Table, row: int, one: str, other: str) -> UserError:
    return UserError(f"{table.where}: {table.names[row]} may be {one} or {other}: write its folders too")
