"""AffectNet as its owners ship it, in either release.

newer  train_set/images/{id}.jpg, train_set/annotations/{id}_exp.npy, the same under val_set/; faces are cut out
older  Manually_Annotated_file_lists/{training,validation}.csv, pictures of any size under
       Manually_Annotated_Images/, to be cut with the face box of the list
"""

from __future__ import annotations

import csv
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare.encode import with_margin
from simfle_jax.data.prepare.plan import Item, Plan, Published
from simfle_jax.errors import UserError
from simfle_jax.progress import Progress

CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
OTHER_LABELS = {8: "no emotion of the eight", 9: "uncertain", 10: "no face"}
TRAIN_COUNTS = (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750)
VAL_COUNTS = {"newer": (500, 500, 500, 500, 500, 500, 500, 499), "older": (500,) * 8}
FOLDERS = {"train_set": "train", "val_set": "val"}
LISTS, IMAGES = "Manually_Annotated_file_lists", "Manually_Annotated_Images"
LIST_FILES = {"training.csv": "train", "validation.csv": "val"}
COLUMNS = [
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
]
Box = tuple[float, float, float, float]  # x, y, width, height in pixels
LAYOUT = (
    "train_set/images/, train_set/annotations/ and the same under val_set/ (newer release), or "
    f"{LISTS}/training.csv, {LISTS}/validation.csv and {IMAGES}/ (older release)"
)


def plan(source: Path, classes: int = 8, margin: float = 0.1) -> Plan:
    """Plans AffectNet with 8 classes, or 7 (without contempt). `margin`: see `with_margin`; older release only."""
    looked_for = f"train_set/annotations/ or {LISTS}/training.csv"
    root = plans.find_root(source, _release, f"affectnet{classes}", looked_for, LAYOUT)
    release = _release(root)
    counts = {"train": TRAIN_COUNTS, "val": VAL_COUNTS[release]}
    published: Published = {split: dict(zip(CLASSES[:classes], row)) for split, row in counts.items()}
    rules: dict = {"release": release, "classes": classes}
    if release == "newer":
        result = Plan(f"affectnet{classes}", rules, published)
        _add_newer(result, root, classes)
    else:
        result = Plan(f"affectnet{classes}", {**rules, "margin": margin}, published)
        _add_older(result, root, classes, margin)
    return result


def _release(root: Path) -> str:
    if (root / "train_set" / "annotations").is_dir():
        return "newer"
    return "older" if _list_file(root, "training.csv").is_file() else ""


def _label(result: Plan, number: int, name: str, classes: int) -> str | None:
    """The class of an expression number, or None when it is skipped (and counted)."""
    if 0 <= number < classes:
        return CLASSES[number]
    if 0 <= number < len(CLASSES):
        result.skipped.add(f"{CLASSES[number]}: not among the {classes} classes", name)
    else:
        result.skipped.add(f"label: {OTHER_LABELS.get(number, 'out of range')}", name)
    return None


# --- newer release -------------------------------------------------------------------------------------------------


def _add_newer(result: Plan, root: Path, classes: int) -> None:
    for folder, split in FOLDERS.items():
        images, annotations = plans.nested(root / folder / "images"), plans.nested(root / folder / "annotations")
        for needed in (images, annotations):
            if not needed.is_dir():
                raise UserError(f"{result.dataset}: no folder {needed}; expected: {LAYOUT}")
        entries = list(plans.images_in(images, result.skipped))
        files = [str(annotations / f"{os.path.splitext(entry.name)[0]}_exp.npy") for entry in entries]
        numbers = _expressions(files, folder)
        for entry, number in zip(entries, numbers):
            if isinstance(number, str):
                result.skipped.add(number, entry.name)
                continue
            label = _label(result, number, entry.name, classes)
            if label is not None:
                result.add(Item(split, label, entry.name, path=entry.path))
        _count_orphans(result, annotations, {os.path.splitext(entry.name)[0] for entry in entries})


def _expressions(files: list[str], folder: str) -> list[int | str]:
    progress, numbers = Progress(len(files), f"reading labels of {folder}"), []
    with ThreadPoolExecutor() as pool:
        for number in pool.map(_expression, files):
            numbers.append(number)
            progress.update(len(numbers))
    return numbers


def _expression(path: str) -> int | str:
    """The number in an `_exp.npy` (a text or a number of no dimension), or why there is none."""
    try:
        return int(np.load(path, allow_pickle=False).item())
    except FileNotFoundError:
        return "annotation missing"
    except (OSError, ValueError, EOFError, OverflowError):
        return "annotation not readable"


def _count_orphans(result: Plan, annotations: Path, stems: set[str]) -> None:
    for name in sorted(os.listdir(annotations)):
        stem, ending, _ = name.partition("_exp.npy")
        if ending and not name.startswith(".") and stem not in stems:
            result.skipped.add("image file missing", name)


# --- older release -------------------------------------------------------------------------------------------------


def _list_file(root: Path, name: str) -> Path:
    return plans.nested(root / LISTS) / name


def _add_older(result: Plan, root: Path, classes: int, margin: float) -> None:
    if not (root / IMAGES).is_dir():
        raise UserError(f"{result.dataset}: no folder {root / IMAGES}; expected: {LAYOUT}")
    folders = dict.fromkeys((root / IMAGES, plans.nested(root / IMAGES)))
    for name, split in LIST_FILES.items():
        path = _list_file(root, name)
        if not path.is_file():
            raise UserError(f"{result.dataset}: no file {path}; expected: {LAYOUT}")
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = filter(None, csv.reader(file))
            for number, row in enumerate(rows, start=1):
                if number == 1 and row[0].strip() == COLUMNS[0]:
                    _check_header(path, row)
                    continue
                face = _face(result, row, f"{name} row {number}", classes)
                if face is not None:
                    _add_face(result, split, face, list(folders), margin)


def _check_header(path: Path, row: list[str]) -> None:
    if [cell.strip() for cell in row[: len(COLUMNS)]] != COLUMNS:
        raise UserError(f"{path} has the columns {', '.join(row)}; expected {', '.join(COLUMNS)}")


def _face(result: Plan, row: list[str], where: str, classes: int) -> tuple[str, str, Box] | None:
    """(path in the images folder, class, face box) of a row, or None when it is skipped (and counted)."""
    try:
        name, box, number = _parse(row)
    except ValueError:
        result.skipped.add("row not readable", where)
        return None
    label = _label(result, number, name, classes)
    if label is not None and box is None:
        result.skipped.add("face box without area", name)
    return None if label is None or box is None else (name, label, box)


def _add_face(result: Plan, split: str, face: tuple[str, str, Box], folders: list[Path], margin: float) -> None:
    name, label, box = face
    path = next((path for folder in folders if os.path.isfile(path := os.path.join(folder, name))), None)
    if path is None:
        result.skipped.add("image file missing", name)
        return
    flat = os.path.splitext(name.replace("/", "_"))[0] + ".jpg"
    result.add(Item(split, label, flat, path=path, box=with_margin(box, margin)))


def _parse(row: list[str]) -> tuple[str, Box | None, int]:
    """(path in the images folder, face box, expression) of a row; the box is None when it has no area.

    Raises ValueError when the row cannot be read.
    """
    name = row[0].strip().replace("\\", "/")
    if len(row) < len(COLUMNS) or not name or name.startswith("/") or ".." in name.split("/"):
        raise ValueError("not a row of the list")
    number = int(row[6])
    if number not in range(len(CLASSES)):
        return name, None, number  # such rows often have no box at all: they are skipped by their label
    x, y, width, height = (float(cell) for cell in row[1:5])
    if not all(map(math.isfinite, (x, y, width, height))):
        raise ValueError("not a box")
    return name, (x, y, width, height) if min(width, height) > 0 else None, number
