"""Any folder of images: class folders under train/ and val/, class folders alone, or images without classes.

Usual other names of the splits and of the eight expressions (`Angry`, `happy`) become the canonical ones; other
class names stay as they are.
"""

from __future__ import annotations

from pathlib import Path

from simfle_jax.data.prepare import layout
from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare.plan import Item, Plan, Skipped
from simfle_jax.errors import UserError

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test", "testing")}
SYNONYMS = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
}
LAYOUT = "train/<class>/ and val/<class>/, or <class>/, or images without class folders (for pre-training)"


def plan(source: Path) -> Plan:
    """Plans any folder; what has no split is train, what has no class folder goes to pre-training only."""
    if not source.is_dir():
        raise UserError(f"folder: no folder {source}; give the folder of images as --source")
    top, source = source, _root(source)
    found = {split: _split_folder(source, split) for split in plans.SPLITS}
    if found["val"] and not found["train"]:
        raise UserError(f"folder: {source} has {found['val'].name}/ but no train/; expected: {LAYOUT}")
    folders = {split: path for split, path in found.items() if path} or {"train": source}
    result = Plan("folder", {"splits": {split: path.name if found[split] else "." for split, path in folders.items()}})
    if source != top:  # named, so that a folder that an earlier version prepared otherwise is not taken for this one
        result.rules["root"] = source.relative_to(top).as_posix()
    for split, path in folders.items():
        _add_split(result, split, path)
    if found["train"]:
        _count_beside(result, source, set(folders.values()))
    return result


def _root(source: Path) -> Path:
    """The folder with train/ in it: `source`, or one below, as archives have it; `source` where there is none.

    Raises UserError where there are several: an image of val must not be taken for one of train.
    """
    found = layout.first_level(source, lambda folder: _split_folder(folder, "train"))
    return layout.only(found, "folder", "a folder of train") or source


def class_name(folder: str) -> str:
    """The canonical class of a folder name."""
    name = folder.strip().lower()
    return SYNONYMS.get(name, name if name in plans.EMOTIONS else folder)


def _split_folder(source: Path, split: str) -> Path | None:
    by_name = {path.name.lower(): path for path in layout.subfolders(source)}
    return next((by_name[name] for name in SPLIT_NAMES[split] if name in by_name), None)


def _count_beside(result: Plan, source: Path, taken: set[Path]) -> None:
    """Counts what lies beside the splits: a second validation folder, or images without a folder."""
    for path in layout.subfolders(source):
        if path not in taken:
            result.skipped.add("folder beside train and val", path.name)
    for entry in plans.images_in(source, Skipped()):
        result.skipped.add("image beside train and val", entry.name)


def _add_split(result: Plan, split: str, folder: Path) -> None:
    for entry in plans.images_in(folder, result.skipped):
        if split == "train":
            result.add(Item(split, None, entry.name, path=entry.path))
        else:
            result.skipped.add("no class folder", entry.name)
    for path in layout.subfolders(folder):
        _add_class(result, split, class_name(path.name), path)


def _add_class(result: Plan, split: str, label: str, folder: Path) -> None:
    """Takes the images of a class folder and of the folders in it (named after them)."""
    for directory in layout.walk(folder):
        inner = directory.relative_to(folder).parts
        for entry in plans.images_in(directory, result.skipped):
            result.add(Item(split, label, "_".join((*inner, entry.name)), path=entry.path))
