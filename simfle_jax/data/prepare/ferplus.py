"""FERPlus: the images of FER2013 with the votes of ten people each, in any of the ways it is kept.

    fer2013.csv (`emotion,pixels,Usage`) and fer2013new.csv, row by row the same images; or
    FER2013Train/ FER2013Valid/ FER2013Test/, each with `fer0000000.png` and a header-less `label.csv`; or
    the same folders without `label.csv` and fer2013new.csv, which names the images

In the owners' repository fer2013new.csv is at the root and the folders are in data/.

Which label ten votes make decides what is in the test set, so the rule is an option and is recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from simfle_jax.data.prepare import layout as layouts
from simfle_jax.data.prepare import tables
from simfle_jax.data.prepare.plan import Item, Plan, Published, Skipped
from simfle_jax.data.prepare.tables import Row, Unreadable
from simfle_jax.errors import UserError

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
CHOICES = (*VOTES, "unknown", "NF")
PEOPLE = 10  # who voted on each image
SIDE = 48  # pixels
USAGES = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
FOLDERS = {"FER2013Train": "train", "FER2013Valid": "valid", "FER2013Test": "test"}
PIXEL_FILE, VOTE_FILE, LABEL_FILE = "fer2013.csv", "fer2013new.csv", "label.csv"
PIXEL_COLUMNS = ("emotion", "pixels", "Usage")
VOTE_COLUMNS = ("Usage", "Image name", *CHOICES)
LABEL_COLUMNS = ("Image name", "box", *CHOICES)  # the box is always the whole image
# Images kept per part; the two ways of keeping the votes differ in a few rows.
PUBLISHED = {
    ("csv", "majority"): {"train": 25060, "valid": 3199, "test": 3153},
    ("csv", "argmax"): {"train": 28561, "valid": 3579, "test": 3574},
    ("folders", "majority"): {"train": 25045, "valid": 3191, "test": 3137},
    ("folders", "argmax"): {"train": 28558, "valid": 3579, "test": 3573},
}
LAYOUT = (
    "fer2013.csv and fer2013new.csv, or FER2013Train/, FER2013Valid/ and FER2013Test/ (also in data/) with label.csv "
    "in each or fer2013new.csv beside them"
)
BY_LIST = "folders with fer2013new.csv"  # the layout of folders without label.csv


class Image(NamedTuple):
    """One row of the owners' lists: part, file name and ten votes, with grey levels (a text) or with the file."""

    part: str
    name: str
    votes: list[int]
    pixels: str = ""
    path: str | None = None


def plan(source: Path, labels: str = "majority", test_split: str = "test") -> Plan:
    """Plans FERPlus: `labels` is the vote rule, `test_split` (test or valid) the part that becomes val."""
    if not source.is_dir():
        raise UserError(f"ferplus: no folder {source}; give the unpacked data set as --source")
    splits = {"train": "train", test_split: "val"}
    layout = _layout(source, list(splits))
    kept = PUBLISHED["folders" if layout == "folders" else "csv", labels]
    published: Published = {"train": kept["train"], "val": kept[test_split]}
    result = Plan("ferplus", {"layout": layout, "labels": labels, "val": test_split}, published)
    result.choices = CHOICES
    for image in _images(source, layout, list(splits), result.skipped):
        label = _label(result, image, labels) if image.part in splits else None
        if label is not None:
            _add(result, image, splits[image.part], label)
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


def _layout(source: Path, parts: list[str]) -> str:
    """csv, folders, or folders with fer2013new.csv: by what is there for these parts. Raises UserError."""
    votes, pixels, folders = _file(source, VOTE_FILE), _file(source, PIXEL_FILE), _folders(source)
    if votes and pixels:
        return "csv"
    if not votes and not folders:
        raise UserError(
            f"ferplus: looked for {VOTE_FILE} and FER2013Train/ in {source} and did not find them; expected: {LAYOUT}"
        )
    if not folders:
        raise UserError(f"ferplus: no file {PIXEL_FILE} in {source}, which holds the pixels; expected: {LAYOUT}")
    missing = [path for part in parts if not (path := _part_folder(folders, part) / LABEL_FILE).is_file()]
    if missing and not votes:
        raise UserError(f"ferplus: no file {missing[0]} and no {VOTE_FILE}; expected: {LAYOUT}")
    return BY_LIST if missing else "folders"


def _file(source: Path, name: str) -> Path | None:
    folder = layouts.only(layouts.first_level(source, lambda inner: layouts.child(inner, name)), "ferplus", name)
    return layouts.child(folder, name) if folder else None


def _folders(source: Path) -> Path | None:
    found = layouts.first_level(source, lambda inner: any(layouts.child(inner, name) for name in FOLDERS))
    return layouts.only(found, "ferplus", "FER2013Train/")


def _part_folder(folders: Path, part: str) -> Path:
    name = next(name for name, known in FOLDERS.items() if known == part)
    try:
        return layouts.folder_of(folders, name)
    except UserError as error:
        raise UserError(f"ferplus: {error}; expected: {LAYOUT}") from None


def _images(source: Path, layout: str, parts: list[str], skipped: Skipped) -> Iterator[Image]:
    """The readable rows of the owners' lists, for these parts at least."""
    votes, pixels, folders = _file(source, VOTE_FILE), _file(source, PIXEL_FILE), _folders(source)
    if layout == "csv":
        assert votes and pixels
        yield from tables.parsed(votes, _pairs(pixels, votes), _listed, skipped)
        return
    assert folders
    finders = {part: layouts.Finder(_part_folder(folders, part)) for part in parts}
    if layout == "folders":
        for part, finder in finders.items():
            path = Path(finder.root) / LABEL_FILE
            rows = tables.rows(path, LABEL_COLUMNS, ("Image name", *CHOICES))
            images = tables.parsed(path, rows, functools.partial(_image, part), skipped)
            yield from (image._replace(path=finder.find(image.name)) for image in images)
    else:
        assert votes
        images = tables.parsed(votes, tables.rows(votes, VOTE_COLUMNS), _listed, skipped)
        yield from (i._replace(path=finders[i.part].find(i.name)) for i in images if i.part in finders)


def _pairs(pixels: Path, votes: Path) -> Iterator[Row]:
    """The rows of votes, each with its pixels; UserError when the two files do not belong together."""
    images = tables.rows(pixels, PIXEL_COLUMNS, ("pixels", "Usage"))
    for image, row in zip_longest(images, tables.rows(votes, VOTE_COLUMNS)):
        usage = image.cells.get("Usage") if image else None
        if image is None or row is None or (usage and usage != row.cells.get("Usage")):
            raise UserError(
                f"ferplus: {pixels.name} and {votes.name} part at {(image or row).where}: they must hold the same "
                "images in the same order; fetch both again"
            )
        yield row._replace(cells={**row.cells, "pixels": image.cells.get("pixels", "")})


def _listed(row: Row) -> Image:
    """The image of a row of fer2013new.csv. Raises Unreadable, or UserError for a usage that is none of the owners'."""
    usage = row.text("Usage")
    if usage and usage not in USAGES:
        raise UserError(f"ferplus: {row.where} has the Usage {usage[:60]!r}; the owners' are {', '.join(USAGES)}")
    if not usage:
        raise Unreadable(f"expected one of {', '.join(USAGES)} as 'Usage', found nothing")
    return _image(USAGES[usage], row)


def _image(part: str, row: Row) -> Image:
    name = row.text("Image name")
    if "/" in name or "\\" in name:
        raise Unreadable(f"expected a file name without folders, found {name[:60]!r}")
    votes = [row.whole(choice) for choice in CHOICES]
    if min(votes) < 0 or max(votes) > PEOPLE:
        raise UserError(f"ferplus: {row.where} has the votes {votes}; the owners' are numbers of {PEOPLE} people")
    return Image(part, name, votes, row.cells.get("pixels", ""))


def _label(result: Plan, image: Image, rule: str) -> str | None:
    """The class of an image, or None when it is skipped (and counted)."""
    label, reason = emotion(image.votes, rule) if image.name else (None, "no image name: not a face")
    if label is None:
        result.skipped.add(reason, image.name or ",".join(map(str, image.votes)))
    return label


def _add(result: Plan, image: Image, split: str, label: str) -> None:
    if image.path:
        result.add(Item(split, label, image.name, path=image.path, votes=tuple(image.votes)))
        return
    pixels = _grey_levels(image.pixels)
    if pixels:
        result.add(Item(split, label, image.name, pixels=pixels, votes=tuple(image.votes)))
    else:
        result.skipped.add("pixels not readable" if image.pixels else "image file missing", image.name)


def _grey_levels(text: str) -> bytes | None:
    """48 x 48 bytes, or None."""
    try:
        pixels = bytes(map(int, text.split()))
    except ValueError:
        return None
    return pixels if len(pixels) == SIDE * SIDE else None
