"""RAF-DB, the basic expressions, as its owners ship it.

EmoLabel/list_patition_label.txt       lines `train_00001.jpg 5` (the spelling is theirs)
Image/aligned/train_00001_aligned.jpg  100 x 100
Image/original/train_00001.jpg
"""

from __future__ import annotations

from pathlib import Path

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
LAYOUT = f"{LABEL_FILES[0]} and Image/aligned/ or Image/original/ (the folder `basic` of RAF-DB)"


def plan(source: Path, alignment: str = "aligned") -> Plan:
    """Plans RAF-DB from `Image/<alignment>`: the test part becomes val."""
    root = plans.find_root(source, _label_file, "rafdb", " or ".join(LABEL_FILES), LAYOUT)
    images = plans.nested(root / "Image" / alignment)
    if not images.is_dir():
        raise UserError(
            f"rafdb: no folder {images}; unpack it, or choose the other with --alignment; expected: {LAYOUT}"
        )
    result = Plan("rafdb", {"alignment": alignment, "val": "test"}, PUBLISHED)
    label_file = _label_file(root)
    assert label_file is not None
    for line in label_file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        if line.strip():
            _add(result, line, images, "_aligned" if alignment == "aligned" else "")
    return result


def _label_file(root: Path) -> Path | None:
    return next((root / name for name in LABEL_FILES if (root / name).is_file()), None)


def _add(result: Plan, line: str, images: Path, ending: str) -> None:
    name, _, number = line.strip().rpartition(" ")
    stem, dot, suffix = name.strip().rpartition(".")
    split = SPLITS.get(stem.partition("_")[0])
    if not (number.isascii() and number.isdigit() and int(number) in LABELS and dot and split) or "/" in name:
        result.skipped.add("line not readable", line.strip()[:80])
        return
    file_name = f"{stem}{ending}.{suffix}"
    result.add_file(Item(split, LABELS[int(number)], file_name, path=str(images / file_name)))
