"""SFEW 2.0 as its owners ship it: `Train|Val/<Emotion>/*.png`, or the faces they aligned (143 x 181) under
`Train/Train_Aligned_Faces/<Emotion>/`. The labels of its test part are not public."""

from __future__ import annotations

from pathlib import Path

from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare.plan import Item, Plan, Published
from simfle_jax.errors import UserError

FOLDERS = {
    "Angry": "anger",
    "Disgust": "disgust",
    "Fear": "fear",
    "Happy": "happiness",
    "Neutral": "neutral",
    "Sad": "sadness",
    "Surprise": "surprise",
}
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
        alignment = "aligned" if all(_aligned(root, part).is_dir() for part in SPLITS) else "original"
    result = Plan("sfew", {"alignment": alignment}, PUBLISHED[alignment])
    for part, split in SPLITS.items():
        folder = _aligned(root, part) if alignment == "aligned" else root / part
        for name, label in FOLDERS.items():
            _add_class(result, folder / name, split, label)
    return result


def _is_root(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in SPLITS)


def _aligned(root: Path, part: str) -> Path:
    return plans.nested(root / part / f"{part}_Aligned_Faces")


def _add_class(result: Plan, folder: Path, split: str, label: str) -> None:
    if not folder.is_dir():
        raise UserError(f"sfew: no folder {folder}; expected: {LAYOUT}")
    for entry in plans.images_in(folder, result.skipped):
        result.add(Item(split, label, entry.name, path=entry.path))
