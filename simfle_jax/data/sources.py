"""Where images come from: a source is a list of records that can be read in any order, by any thread.

A source has `len(source)`, `source[i] -> Record`, `source.name(i)`, `source.labels`, `source.classes` and
`source.fingerprint`. Nothing is decoded here.
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from simfle_jax.data.files import EXTENSIONS, BadImage, read_file
from simfle_jax.data.kept_listing import kept_listing
from simfle_jax.data.listing import Listing, entries, file_size, file_sizes, list_images
from simfle_jax.errors import UserError

SAMPLE = 64  # files whose sizes stand for those of all where only a few may be asked for


class Record(NamedTuple):
    """One stored image: its name in the data set, its content, and its class when it has one.

    The content is the bytes of its file or, from sources that hold pixels, uint8 [H, W, 3] RGB.
    """

    name: str
    data: bytes | np.ndarray
    label: int | None


@runtime_checkable
class Source(Protocol):
    """What the pipeline needs of a data set. Without labels `classes` and `labels` (int32 [n]) are None."""

    classes: tuple[str, ...] | None
    labels: np.ndarray | None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes, so that two listings of the same data agree."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Reads record `index`; raises OSError when it cannot be read now, BadImage when it never can."""
        ...

    def name(self, index: int) -> str: ...


@runtime_checkable
class WithPoints(Protocol):
    """A source that also holds the landmarks of its images."""

    def read_points(self) -> np.ndarray:
        """Of all images [n, P, 2], in pixels."""
        ...


class FolderSource:
    """The images below a folder, sorted by their path relative to it.

    Unlabelled, every image below `path` (or `path/split`) counts, whatever the folders are called. Labelled,
    the folders in `path/split` are the classes, in sorted order, and hold the images at any depth; images
    beside them have no class and are left out. `listing` says which files are images and how links are followed.
    Names are kept as one string of bytes with offsets: a million of them are cheap to hold and to pickle. `listing`: a
    file that keeps them (`kept_listing`); '' for none.

    Raises:
        UserError: no such folder, no image in it, fewer than two classes, or a class without images.
    """

    def __init__(
        self, path: str | os.PathLike[str], labelled: bool = False, split: str | None = None, listing: str = ""
    ):
        self.root = existing_folder(os.fspath(path), split)
        self._real = os.path.realpath(self.root)  # a link may come to lead elsewhere
        self._fingerprint: str | None = None
        if listing:
            (names, self.nowhere, _), self._fingerprint = kept_listing(self.root, listing, self._fingerprint_of)
        else:
            names, self.nowhere, _ = list_images(self.root)
        self.classes: tuple[str, ...] | None = None
        self.labels: np.ndarray | None = None
        if labelled:
            self.classes = _class_folders(self.root)
            names = [name for name in names if b"/" in name]
            self.labels = _labels_of(names, self.classes, self.root)
        if not names:
            raise UserError(
                f"no image in {self.root}: looked there and in the folders below for {' '.join(EXTENSIONS)} "
                "in small or capital letters; check the path"
            )
        self._joined = b"".join(names)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """The path of image `index` relative to the folder, with forward slashes."""
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._joined[start : self._ends[index]])

    def __getitem__(self, index: int) -> Record:
        name = self.name(index)
        if (
            self.nowhere and os.fsencode(name) in self.nowhere
        ):  # also when something is there by now: every run sees the same images
            raise BadImage("a link to nowhere")
        return Record(name, read_file(f"{self._real}/{name}"), None if self.labels is None else int(self.labels[index]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names and sizes; asks for every size on first use (-1: there is no such file)."""
        if self._fingerprint is None:
            sizes = file_sizes(len(self), self.path)
            self._fingerprint = fingerprint(zip(map(self.name, range(len(self))), sizes))
        return self._fingerprint

    def _fingerprint_of(self, listing: Listing) -> str:
        names = [os.fsdecode(name) for name in listing.names]
        return fingerprint(zip(names, file_sizes(len(names), lambda index: f"{self._real}/{names[index]}")))

    @property
    def quick_fingerprint(self) -> str:
        """SHA-256 over all names and the sizes of a few files: tells other data nearly always, at nearly no cost."""
        if self._fingerprint is not None:
            return self._fingerprint
        asked = set(np.linspace(0, len(self) - 1, min(SAMPLE, len(self)), dtype=int).tolist())
        return fingerprint(
            (self.name(index), file_size(self.path(index)) if index in asked else 0) for index in range(len(self))
        )

    def path(self, index: int) -> str:
        """Where image `index` lies."""
        return f"{self._real}/{self.name(index)}"


def fingerprint(names_and_sizes: Iterable[tuple[str, int]]) -> str:
    """SHA-256 over `name`, a zero byte, the size in decimals and a line feed, for every record in order."""
    digest = hashlib.sha256()
    for name, size in names_and_sizes:
        digest.update(os.fsencode(name) + b"\0%d\n" % size)
    return digest.hexdigest()


def check_same_classes(
    train: tuple[str, ...], other: tuple[str, ...], where: str, remedy: str = "make them equal"
) -> None:
    """Raises UserError, naming the differences, unless the classes found in `where` are those of train.

    Their order may differ; `classes.with_classes` maps it. remedy: what to do, at the end of the message.
    """
    missing, extra = sorted(set(train) - set(other)), sorted(set(other) - set(train))
    if missing or extra:
        differences = [f"lacks {', '.join(map(_shown, missing))}"] if missing else []
        differences += [f"has {', '.join(map(_shown, extra))} besides"] if extra else []
        raise UserError(f"{where} has not the classes of train: it {' and '.join(differences)}; {remedy}")


def _shown(name: str) -> str:
    """A name as it is, or with its invisible characters spelt out."""
    return name if name.isprintable() and name == name.strip() else ascii(name)


def existing_folder(path: str, split: str | None = None) -> str:
    """`path` or `path/split` when it is a folder that can be listed; UserError otherwise."""
    if not path:
        raise UserError("data.path is empty: give the folder of the images with --config.data.path=DIR")
    for folder in (path, os.path.join(path, split)) if split else (path,):
        if not os.path.exists(folder):
            needed = "" if folder == path else f" (labelled data are laid out as {split}/CLASS/IMAGE)"
            raise UserError(f"no folder {folder}{needed}: give an existing one with --config.data.path=DIR")
        if not os.path.isdir(folder):
            raise UserError(f"{folder} is a file: --config.data.path must name a folder of images")
    return folder


def _class_folders(root: str) -> tuple[str, ...]:
    found_folders = (entry.name for entry in entries(os.fsencode(root)) if stat.S_ISDIR(entry.kind))
    classes = tuple(sorted(map(os.fsdecode, found_folders)))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UserError(f"{root} must hold at least two class folders and has {found}: lay it out as CLASS/IMAGE")
    return classes


def _labels_of(names: list[bytes], classes: tuple[str, ...], root: str) -> np.ndarray:
    numbers = {os.fsencode(name): number for number, name in enumerate(classes)}
    labels = np.fromiter((numbers[name.partition(b"/")[0]] for name in names), np.int32, len(names))
    counts = np.bincount(labels, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts) if not count]
    if empty:
        raise UserError(
            f"no image in the class folder {', '.join(empty)} of {root}: fill it or remove it "
            "(a folder that is linked twice counts once)"
        )
    return labels
