"""SFEW 2.0 as its owners ship it: `Train|Val/<Emotion>/*.png`, or the faces they aligned (143 x 181) under
`Train/Train_Aligned_Faces/<Emotion>/`. The labels of its test part are not public."""

from __future__ import annotations

from pathlib import Path

from simfle_jax.data.prepare import layout
from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare.folder import class_name
from simfle_jax.data.prepare.plan import Item, Plan, Published
from simfle_jax.errors import UserError

CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")  # their Angry, Disgust ...
SPLITS = {"Train": "train", "Val": "val"}
PUBLISHED: dict[str, Published] = {
    "aligned": {"train": 891, "val": 431},
    "original": {"train": 958, "val": 436},
}
LAYOUT = (
    "Train/<Emotion>/ and Val/<Emotion>/, or Train/Train_Aligned_Faces/<Emotion>/ and Val/Val_Aligned_Faces/<Emotion>/"
)


def plan(source: Path, alignment: str = "auto") -> Plan:
    """Plans SFEW; `auto` takes the aligned faces where both parts have them."""
    root = plans.find_root(source, _is_root, "sfew", "Train/ and Val/", LAYOUT)
    if alignment == "auto":
        alignment = "aligned" if all(_aligned(root, part) for part in SPLITS) else "original"
    result = Plan("sfew", {"alignment": alignment}, PUBLISHED[alignment])
    for part, split in SPLITS.items():
        _add_part(result, _part(root, part, alignment), split)
    return result


def _is_root(folder: Path) -> bool:
    return all(_aligned(folder, part) or layout.child(folder, part) for part in SPLITS)


def _aligned(root: Path, part: str) -> Path | None:
    name = f"{part}_Aligned_Faces"
    places = ([part, name], [part, part, name], [name])
    return next(filter(None, (layout.child(root, *place) for place in places)), None)


def _part(root: Path, part: str, alignment: str) -> Path:
    aligned = _aligned(root, part)
    if alignment == "aligned" and aligned:
        return layout.nested(aligned)
    try:
        return layout.folder_of(root, f"{part}/{part}_Aligned_Faces" if alignment == "aligned" else part)
    except UserError as error:
        raise UserError(f"sfew: {error}; expected: {LAYOUT}") from None


def _add_part(result: Plan, folder: Path, split: str) -> None:
    """Takes the class folders of a part. Raises UserError for one that lacks, or is none of the owners'."""
    found: set[str] = set()
    for path in layout.subfolders(folder):
        images, label = list(plans.images_in(path, result.skipped)), class_name(path.name)
        if images and label not in CLASSES:
            raise UserError(f"sfew: {path} is none of the owners' classes ({', '.join(CLASSES)}): move it away")
        found.add(label)
        for entry in images:
            result.add(Item(split, label, entry.name, path=entry.path))
    for label in CLASSES:
        if label not in found:
            raise UserError(f"sfew: no folder for {label} in {folder}; expected: {LAYOUT}")
