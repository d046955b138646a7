"""AffectNet as its owners ship it, in either release.

newer  train_set/images/{id}.jpg, train_set/annotations/{id}_exp.npy, the same under val_set/; faces are cut out
older  Manually_Annotated_file_lists/{training,validation}.csv, pictures of any size under
       Manually_Annotated_Images/, to be cut with the face box of the list
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from simfle_jax.data.prepare import layout as layouts
from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare import tables
from simfle_jax.data.prepare.encode import with_margin
from simfle_jax.data.prepare.plan import Item, Plan, Published
from simfle_jax.data.prepare.tables import Row, Unreadable
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
NEEDED = [*COLUMNS[:5], "expression"]
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
    newer, older = layouts.child(root, "train_set", "annotations"), _list_file(root, "training.csv")
    if newer and older:
        raise UserError(f"affectnet: {root} holds both releases ({newer} and {older}): move one of them out of it")
    return "newer" if newer else "older" if older else ""


def _folder(root: Path, *choices: str) -> Path:
    try:
        return layouts.folder_of(root, *choices)
    except UserError as error:
        raise UserError(f"affectnet: {error}; expected: {LAYOUT}") from None


def _label(result: Plan, number: int, name: str, where: str, classes: int) -> str | None:
    """The class of an expression number, or None when it is skipped (and counted).

    Raises UserError for a number that is none of the owners'.
    """
    if 0 <= number < classes:
        return CLASSES[number]
    if 0 <= number < len(CLASSES):
        result.skipped.add(f"{CLASSES[number]}: not among the {classes} classes", name)
    elif number in OTHER_LABELS:
        result.skipped.add(f"label: {OTHER_LABELS[number]}", name)
    else:
        last = max(OTHER_LABELS)
        raise UserError(f"affectnet: {where} has the expression {number}; the owners' are 0 to {last}: fetch it again")
    return None


# --- newer release -------------------------------------------------------------------------------------------------


def _add_newer(result: Plan, root: Path, classes: int) -> None:
    for folder, split in FOLDERS.items():
        images = _folder(root, f"{folder}/images", f"{folder}/{folder}/images")
        annotations = _folder(root, f"{folder}/annotations", f"{folder}/{folder}/annotations")
        entries = list(plans.images_in(images, result.skipped))
        files = [str(annotations / f"{os.path.splitext(entry.name)[0]}_exp.npy") for entry in entries]
        for entry, file, number in zip(entries, files, _expressions(files, folder)):
            if isinstance(number, str):
                result.skipped.add(number, entry.name)
                continue
            label = _label(result, number, entry.name, file, classes)
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
    """The number in an `_exp.npy` (a text or a number of one element), or why there is none."""
    try:
        value = float(np.load(path, allow_pickle=False).item())
    except FileNotFoundError:
        return "annotation missing"
    except Exception:  # numpy raises nearly anything on damaged files
        return "annotation not readable as a number"
    return int(value) if value.is_integer() else "annotation not a whole number"


def _count_orphans(result: Plan, annotations: Path, stems: set[str]) -> None:
    for name in sorted(os.listdir(annotations)):
        stem, ending, _ = name.partition("_exp.npy")
        if ending and not name.startswith(".") and stem not in stems:
            result.skipped.add("image file missing", name)


# --- older release -------------------------------------------------------------------------------------------------


def _list_file(root: Path, name: str) -> Path | None:
    places = ([LISTS, name], [LISTS, LISTS, name], [name])
    return next(filter(None, (layouts.child(root, *place) for place in places)), None)


def _add_older(result: Plan, root: Path, classes: int, margin: float) -> None:
    images = _folder(root, IMAGES)
    finders = [layouts.Finder(folder) for folder in dict.fromkeys((images, images.parent))]
    for name, split in LIST_FILES.items():
        path = _list_file(root, name)
        if path is None:
            raise UserError(f"{result.dataset}: no file {root / LISTS / name}; expected: {LAYOUT}")
        parse = functools.partial(_face, result, classes)
        for face in tables.parsed(path, tables.rows(path, COLUMNS, NEEDED), parse, result.skipped):
            if face is not None:
                _add_face(result, split, face, finders, margin)


def _face(result: Plan, classes: int, row: Row) -> tuple[str, str, Box] | None:
    """(path in the images folder, class, face box) of a row, or None when it is skipped (and counted).

    Raises Unreadable, or UserError for a label that is none of the owners'.
    """
    name, label = _image_path(row), _label(result, row.whole("expression"), row.where, row.where, classes)
    if label is None:
        return None  # such rows often have no box at all
    x, y, width, height = (row.number(column) for column in COLUMNS[1:5])
    if min(width, height) <= 0:
        result.skipped.add("face box without area", name)
        return None
    return name, label, (x, y, width, height)


def _image_path(row: Row) -> str:
    """The path in the images folder, also of a path on another machine that leads through it. Raises Unreadable."""
    given = row.text(COLUMNS[0]).replace("\\", "/")
    name = given.rpartition(f"{IMAGES}/")[2]
    if not name or name.startswith("/") or ".." in name.split("/") or ":" in name:
        raise Unreadable(f"expected a path in {IMAGES}/ as {COLUMNS[0]!r}, found {given[:60]!r}")
    return name


def _add_face(
    result: Plan, split: str, face: tuple[str, str, Box], finders: list[layouts.Finder], margin: float
) -> None:
    name, label, box = face
    path = next(filter(None, (finder.find(name) for finder in finders)), None)
    if path is None:
        result.skipped.add("image file missing", name)
        return
    flat = os.path.splitext(name.replace("/", "_"))[0] + ".jpg"
    result.add(Item(split, label, flat, path=path, box=with_margin(box, margin)))
