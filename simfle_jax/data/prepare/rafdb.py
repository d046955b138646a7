"""RAF-DB, the basic expressions, as its owners ship it.

EmoLabel/list_patition_label.txt       lines `train_00001.jpg 5` (the spelling is theirs)
Image/aligned/train_00001_aligned.jpg  100 x 100
Image/original/train_00001.jpg
"""

from __future__ import annotations

import functools
import os
from pathlib import Path, PurePosixPath

from simfle_jax.data.prepare import layout, tables
from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare.plan import Item, Plan, Published
from simfle_jax.errors import UserError

LABELS = dict(enumerate(("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), start=1))
PUBLISHED: Published = {
    "train": dict(zip(LABELS.values(), (1290, 281, 717, 4772, 1982, 705, 2524))),
    "val": dict(zip(LABELS.values(), (329, 74, 160, 1185, 478, 162, 680))),
}
SPLITS = {"train": "train", "test": "val"}  # by the start of the file name
LABEL_FILES = ("EmoLabel/list_patition_label.txt", "EmoLabel/list_partition_label.txt")
COLUMNS = ("image", "label")
LAYOUT = f"{LABEL_FILES[0]} and Image/aligned/ or Image/original/ (the folder `basic` of RAF-DB)"


def plan(source: Path, alignment: str = "aligned") -> Plan:
    """Plans RAF-DB from `Image/<alignment>`: the test part becomes val."""
    looked_for = " or ".join(LABEL_FILES)
    root = plans.find_root(source, functools.partial(_is_root, source), "rafdb", looked_for, LAYOUT)
    images = _images(root, alignment)
    result = Plan("rafdb", {"alignment": alignment, "val": "test"}, PUBLISHED)
    label_file = _label_file(root)
    assert label_file is not None
    rows = tables.rows(label_file, COLUMNS, delimiters=" " + tables.DELIMITERS)
    for name, label in tables.parsed(label_file, rows, _parse, result.skipped):
        _add(result, name, label, images, "_aligned" if alignment == "aligned" else "")
    return result


def _is_root(source: Path, folder: Path) -> bool:
    """Whether the folder has the list; `compound`, which lies beside `basic`, has another of that name."""
    return (
        "compound" not in folder.relative_to(source).as_posix().lower().split("/") and _label_file(folder) is not None
    )


def _label_file(root: Path) -> Path | None:
    """The list, also where it lies without its folder."""
    places = [name.split("/") for name in LABEL_FILES]
    return next(filter(None, (layout.child(root, *place) for place in (*places, *(p[1:] for p in places)))), None)


def _images(root: Path, alignment: str) -> layout.Finder:
    try:
        return layout.Finder(layout.folder_of(root, f"Image/{alignment}", alignment))
    except UserError as error:
        raise UserError(f"rafdb: {error}; or choose the other with --alignment; expected: {LAYOUT}") from None


def _parse(row: tables.Row) -> tuple[str, str]:
    """(image name without folders, class) of a row.

    Raises Unreadable, or UserError for a number that is none of the owners'.
    """
    name, number = PurePosixPath(row.text("image").replace("\\", "/")).name, row.whole("label")
    if name.partition("_")[0] not in SPLITS or "." not in name:
        raise tables.Unreadable(f"expected an image name as train_00001.jpg, found {name[:60]!r}")
    if number not in LABELS:
        raise UserError(
            f"rafdb: {row.where} has the label {number}; the owners' are 1 to 7 "
            f"({', '.join(LABELS.values())}): fetch their list again"
        )
    return name, LABELS[number]


def _add(result: Plan, name: str, label: str, images: layout.Finder, ending: str) -> None:
    stem, suffix = os.path.splitext(name)
    wanted = f"{stem.removesuffix('_aligned')}{ending}{suffix}"
    path = images.find(wanted)
    if path is None:
        result.skipped.add("image file missing", wanted)
    else:
        result.add(Item(SPLITS[name.partition("_")[0]], label, os.path.basename(path), path=path))
