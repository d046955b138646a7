"""What a data set is to become, before any file is written: its images, and what was left out and why."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from simfle_jax.data.files import EXTENSIONS, is_image
from simfle_jax.data.listing import entries
from simfle_jax.data.prepare import layout as layouts
from simfle_jax.data.prepare.names import distinct
from simfle_jax.errors import UserError

EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SPLITS = ("train", "val")
# Images in these files are re-encoded as PNG: the sources list files of EXTENSIONS only.
OTHER_SUFFIXES = (".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2")
FIRST_NAMES = 5  # names kept for each reason of skipping: enough to go and look

Published = dict[str, dict[str, int] | int]  # of a split: counts per class, or only their sum


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One image to be. Exactly one of `path` and `pixels` is set; with `box`, that part of the image is cut out.

    `name` is the file it becomes; a name that ends otherwise than `path` asks for re-encoding.
    `box` is a square (x, y, side, side) in pixels of the upright image; `pixels` are 48 x 48 grey levels.
    `label` None: an image without a class, for pre-training only. `votes` are people's, for each of the plan's choices.
    `points` are landmarks, x and y of each in turn in pixels of the upright image; `subsets` the parts of the data set
    that its owners count the image to. `frame`, counted from 1, is that of a video, which `path` then is.
    """

    split: str
    label: str | None
    name: str
    path: str | None = None
    box: tuple[float, float, float, float] | None = None
    pixels: bytes | None = None
    points: tuple[float, ...] = ()
    subsets: tuple[str, ...] = ()
    frame: int = 0
    votes: tuple[int, ...] = dataclasses.field(default=(), compare=False)


class File(NamedTuple):
    """A file of the source: its name, and its path."""

    name: str
    path: str


class Skipped:
    """Counts what was left out by reason, with the first names of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        self.counts[reason] += 1
        names = self.first.setdefault(reason, [])
        if len(names) < FIRST_NAMES:
            names.append(name)

    def as_json(self) -> dict[str, dict]:
        return {reason: {"count": self.counts[reason], "first": self.first[reason]} for reason in sorted(self.counts)}


class Plan:
    """The images of one data set, the rules that chose them, and the counts its owners published."""

    def __init__(self, dataset: str, rules: dict, published: Published | None = None) -> None:
        self.dataset = dataset
        self.rules = rules
        self.published = published or {}
        self.choices: tuple[str, ...] = ()  # what people could vote for
        self.items: list[Item] = []
        self.skipped = Skipped()
        self._taken: set[Item] = set()

    def add(self, item: Item) -> None:
        """Takes an image; one that was taken already is skipped."""
        stem, suffix = os.path.splitext(item.name)
        if suffix.lower() not in EXTENSIONS:
            item = dataclasses.replace(item, name=stem + ".png")
        if item in self._taken:
            self.skipped.add("listed twice", item.name)
            return
        self._taken.add(item)
        self.items.append(item)

    def settle(self) -> None:
        """Gives every image of a class a name of its own: other pictures may want the same one (x.png and x.bmp).

        Those that keep the ending of their file come first, so that they keep their names.
        """
        endings = [os.path.splitext(item.path or item.name)[1] for item in self.items]
        order = sorted(range(len(endings)), key=lambda i: not self.items[i].name.endswith(endings[i]))
        wanted = [((self.items[i].split, self.items[i].label), self.items[i].name) for i in order]
        for i, name in zip(order, distinct(wanted, [endings[i] for i in order])):
            if name != self.items[i].name:
                self.items[i] = dataclasses.replace(self.items[i], name=name)

    def add_file(self, item: Item) -> None:
        """Takes an image that is a file, if it is there."""
        assert item.path is not None
        if os.path.isfile(item.path):
            self.add(item)
        else:
            self.skipped.add("image file missing", item.name)


def find_root(source: Path, is_root: Callable[[Path], object], dataset: str, looked_for: str, layout: str) -> Path:
    """The folder of the owners' layout: `source`, or one a folder or two below (archives bring top folders along).

    Raises UserError that names what was looked for and how the layout should be, or the folders where there are several.
    """
    if not source.is_dir():
        raise UserError(f"{dataset}: no folder {source}; give the unpacked data set as --source")
    root = layouts.only(layouts.first_level(source, is_root), dataset, looked_for)
    if root is None:
        raise UserError(f"{dataset}: looked for {looked_for} in {source} and did not find it; expected: {layout}")
    return root


def images_in(folder: Path, skipped: Skipped) -> Iterator[File]:
    """The image files of one folder by name; others are counted as skipped, those of the system passed over."""
    for entry in sorted(entries(os.fsencode(folder))):
        name = os.fsdecode(entry.name)
        if is_image(name, EXTENSIONS + OTHER_SUFFIXES) and stat.S_ISREG(entry.kind):
            yield File(name, os.fsdecode(entry.path))
        elif not stat.S_ISDIR(entry.kind):
            skipped.add("not an image file", name)
