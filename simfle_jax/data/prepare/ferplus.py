"""FERPlus: the images of FER2013 with the votes of ten people each, in either of the two ways it is kept.

    fer2013.csv (`emotion,pixels,Usage`) beside fer2013new.csv, row by row the same images; or
    FER2013Train/ FER2013Valid/ FER2013Test/, each with `fer0000000.png` and a header-less `label.csv`

Which label ten votes make decides what is in the test set, so the rule is an option and is recorded.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare.plan import Item, Plan, Published
from simfle_jax.errors import UserError

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")  # then unknown, NF
CHOICES = len(VOTES) + 2
SIDE = 48  # pixels
USAGES = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
FOLDERS = {"FER2013Train": "train", "FER2013Valid": "valid", "FER2013Test": "test"}
LABEL_FILE = "label.csv"
# Images kept per part; the two ways of keeping the votes differ in a few rows.
PUBLISHED = {
    ("csv", "majority"): {"train": 25060, "valid": 3199, "test": 3153},
    ("csv", "argmax"): {"train": 28561, "valid": 3579, "test": 3574},
    ("folders", "majority"): {"train": 25045, "valid": 3191, "test": 3137},
    ("folders", "argmax"): {"train": 28558, "valid": 3579, "test": 3573},
}
LAYOUT = "fer2013.csv beside fer2013new.csv, or FER2013Train/, FER2013Valid/ and FER2013Test/ with label.csv in each"


def plan(source: Path, labels: str = "majority", test_split: str = "test") -> Plan:
    """Plans FERPlus: `labels` is the vote rule, `test_split` (test or valid) the part that becomes val."""
    root = plans.find_root(source, _layout, "ferplus", "fer2013new.csv or FER2013Train/label.csv", LAYOUT)
    layout = _layout(root)
    kept = PUBLISHED[layout, labels]
    published: Published = {"train": kept["train"], "val": kept[test_split]}
    result = Plan("ferplus", {"layout": layout, "labels": labels, "val": test_split}, published)
    splits = {"train": "train", test_split: "val"}
    if layout == "csv":
        _add_csv(result, root, splits, labels)
    else:
        _add_folders(result, root, splits, labels)
    return result


def emotion(votes: list[int], rule: str) -> tuple[str | None, str]:
    """The class that ten votes (eight emotions, unknown, not a face) make, or None and the reason.

    majority: single votes are dropped; the first of the ten choices must have more than half of the votes that
    are left, and be an emotion (Barsoum et al. 2016, arXiv 1608.01041). argmax: the emotion with most votes, the
    first of them on a tie, whatever unknown and not-a-face have.
    """
    if rule == "argmax":
        votes = votes[: len(VOTES)]
        best = max(votes)
        return (VOTES[votes.index(best)], "") if best > 0 else (None, "no vote for an emotion")
    votes = [vote if vote > 1 else 0 for vote in votes]
    best = max(votes)
    if 2 * best <= sum(votes) or best == 0:
        return None, "no majority"
    winner = votes.index(best)
    return (VOTES[winner], "") if winner < len(VOTES) else (None, "majority for unknown or not a face")


def _layout(root: Path) -> str:
    if (root / "fer2013new.csv").is_file():
        return "csv"
    return "folders" if (root / "FER2013Train" / LABEL_FILE).is_file() else ""


def _votes(cells: list[str]) -> list[int] | None:
    try:
        votes = [int(float(cell)) for cell in cells]
    except (ValueError, OverflowError):
        return None
    return votes if len(votes) == CHOICES and min(votes) >= 0 else None


def _label(result: Plan, name: str, cells: list[str], rule: str) -> str | None:
    """The class of a row, or None when it is skipped (and counted)."""
    votes = _votes(cells)
    if not name:
        result.skipped.add("no image name: not a face", ",".join(cells))
    elif votes is None or "/" in name or "\\" in name:
        result.skipped.add("row not readable", name)
    else:
        label, reason = emotion(votes, rule)
        if label is None:
            result.skipped.add(reason, name)
        return label
    return None


def _add_folders(result: Plan, root: Path, splits: dict[str, str], rule: str) -> None:
    for folder, part in FOLDERS.items():
        if part not in splits:
            continue
        path = root / folder / LABEL_FILE
        if not path.is_file():
            raise UserError(f"ferplus: no file {path}; expected: {LAYOUT}")
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.reader(file):
                # name, box (always the whole image), ten votes
                label = _label(result, row[0].strip(), row[2:], rule) if row else None
                if label is not None:
                    name = row[0].strip()
                    result.add_file(Item(splits[part], label, name, path=str(root / folder / name)))


def _add_csv(result: Plan, root: Path, splits: dict[str, str], rule: str) -> None:
    for number, (usage, pixels, row) in enumerate(_rows(root), start=2):
        part = USAGES.get(usage)
        if part is None:
            result.skipped.add("row not readable", f"line {number}")
        elif part in splits:
            name = row[1].strip()
            label = _label(result, name, row[2:], rule)
            if label is not None:
                _add_pixels(result, Item(splits[part], label, name), pixels)


def _add_pixels(result: Plan, item: Item, text: str) -> None:
    try:
        pixels = bytes(map(int, text.split()))
    except ValueError:
        pixels = b""
    if len(pixels) == SIDE * SIDE:
        result.add(Item(item.split, item.label, item.name, pixels=pixels))
    else:
        result.skipped.add("pixels not readable", item.name)


def _rows(root: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(usage, pixels, row of votes) of the two files read side by side; UserError when they do not belong together."""
    images, votes = root / "fer2013.csv", root / "fer2013new.csv"
    if not images.is_file():
        raise UserError(f"ferplus: no file {images}, which holds the pixels; expected: {LAYOUT}")
    with images.open(newline="", encoding="utf-8-sig") as one, votes.open(newline="", encoding="utf-8-sig") as other:
        pairs = zip_longest(filter(None, csv.reader(one)), filter(None, csv.reader(other)))
        next(pairs, None)  # headers
        for number, (image, row) in enumerate(pairs, start=2):
            usage = image[2].strip() if image and len(image) > 2 else ""
            if image is None or row is None or (usage in USAGES and row[0].strip() != usage):
                raise UserError(
                    f"ferplus: {images.name} and {votes.name} part at line {number}: they must hold the same images "
                    "in the same order; fetch both again"
                )
            yield usage, image[1] if len(image) > 1 else "", row if len(row) > 1 else [usage, ""]
