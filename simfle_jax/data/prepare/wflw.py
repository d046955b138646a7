"""WFLW as its owners ship it: lists with 98 points, a face box, six attributes and the image of each face.

WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt   7,500 faces, become train
WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt    2,500, become val
WFLW_images/0--Parade/*.jpg

A row is x, y of 98 points, the box's corners (left, top, right, bottom), pose, expression, illumination, make-up,
occlusion and blur as 0 or 1, and the image's path. The attributes are the owners' subsets of val.
"""

from __future__ import annotations

import math
from pathlib import Path

from simfle_jax.data.prepare import layout
from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare.encode import with_margin
from simfle_jax.data.prepare.plan import Item, Plan, Published
from simfle_jax.errors import UserError

LISTS, IMAGES = "WFLW_annotations/list_98pt_rect_attr_train_test", "WFLW_images"
FILES = {"train": "list_98pt_rect_attr_train.txt", "val": "list_98pt_rect_attr_test.txt"}
SUBSETS = ("pose", "expression", "illumination", "makeup", "occlusion", "blur")
PUBLISHED: Published = {"train": 7500, "val": 2500}
NUMBERS = 196 + 4 + len(SUBSETS)
CENTRE = 0.5  # their (0, 0) is the centre of the first pixel, ours its outer corner
LABEL = "faces"
LAYOUT = f"{LISTS}/{FILES['train']}, {FILES['val']} there, and {IMAGES}/"


def plan(source: Path, margin: float = 0.2) -> Plan:
    """Plans WFLW. `margin`: see `with_margin`, of the owners' boxes."""
    root = plans.find_root(source, _lists, "wflw", f"{LISTS}/", LAYOUT)
    lists = _lists(root)
    assert lists is not None
    try:
        images = layout.Finder(layout.folder_of(root, IMAGES))
    except UserError as error:
        raise UserError(f"wflw: {error}; expected: {LAYOUT}") from None
    result = Plan("wflw", {"margin": margin, "val": "test"}, PUBLISHED)
    for split, name in FILES.items():
        path = layout.child(lists, name)
        if path is None:
            raise UserError(f"wflw: no file {lists / name}; expected: {LAYOUT}")
        for number, line in enumerate(path.read_text(errors="surrogateescape").splitlines(), 1):
            if line.strip():
                _add(result, split, line, f"{name} line {number}", images, margin)
    return result


def _lists(root: Path) -> Path | None:
    return layout.child(root, *LISTS.split("/"))


def _add(result: Plan, split: str, line: str, where: str, images: layout.Finder, margin: float) -> None:
    cells = line.split(maxsplit=NUMBERS)
    try:
        numbers = [float(cell) for cell in cells[:NUMBERS]]
    except ValueError:
        numbers = []
    if len(cells) != NUMBERS + 1 or len(numbers) != NUMBERS or not all(map(math.isfinite, numbers)):
        result.skipped.add("row not readable", f"{where}: expected {NUMBERS} numbers and a path, found {line[:60]!r}")
        return
    name = cells[-1].strip()
    path = images.find(name)
    if path is None:
        result.skipped.add("image file missing", name)
        return
    left, top, right, bottom = numbers[196:200]
    if right <= left or bottom <= top:
        result.skipped.add("face box without area", name)
        return
    subsets = tuple(each for each, flag in zip(SUBSETS, numbers[200:]) if flag) if split == "val" else ()
    points = tuple(value + CENTRE for value in numbers[:196])
    box, flat = with_margin((left, top, right - left, bottom - top), margin), name.replace("/", "_")
    result.add(Item(split, LABEL, flat, path=path, box=box, points=points, subsets=subsets))
