"""Where images come from: a source is a list of records that can be read in any order, by any thread.

Every source offers `len(source)`, `source[i] -> Record`, `source.name(i)`, `source.labels`, `source.classes` and
`source.fingerprint`. Nothing is decoded here.
"""

import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from simfle_jax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


class Record(NamedTuple):
    """One stored image: its name in the data set, the bytes of its file, and its class when it has one."""

    name: str
    data: bytes
    label: int | None


class Source(Protocol):
    """What the pipeline needs of a data set. `labels` is int32 [n] or None; `classes` are sorted names or None."""

    classes: tuple[str, ...] | None
    labels: np.ndarray | None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes, so that two listings of the same data agree."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Reads record `index`; raises OSError when its file cannot be read."""
        ...

    def name(self, index: int) -> str: ...


class FolderSource:
    """The images below a folder, sorted by their path relative to it.

    Unlabelled, every image below `path` (or `path/split`) counts, whatever the folders are called. Labelled, the
    folders in `path/split` are the classes, in sorted order, and hold the images at any depth. Hidden files and folders are
    skipped. Names are kept as one string of bytes with offsets, so that a million of them are cheap to hold and to
    send to another process.

    Raises:
        UserError: there is no such folder, no image in it, fewer than two classes, or a class without images.
    """

    def __init__(self, path: str | os.PathLike[str], labelled: bool = False, split: str | None = None):
        self.root = os.path.join(os.fspath(path), split) if split else os.fspath(path)
        check_folder(self.root)
        names = sorted(_images_below(self.root))
        self.classes: tuple[str, ...] | None = None
        self.labels: np.ndarray | None = None
        if labelled:
            self.classes = _class_folders(self.root)
            names = [name for name in names if b"/" in name]  # an image beside the class folders has no class
            self.labels = _labels_of(names, self.classes, self.root)
        if not names:
            raise UserError(
                f"no image in {self.root}: looked in it and the folders below it for {' '.join(EXTENSIONS)}, "
                "in small or capital letters; check the path"
            )
        self._joined = b"".join(names)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """The path of image `index` relative to the folder, with forward slashes."""
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._joined[start : self._ends[index]])

    def __getitem__(self, index: int) -> Record:
        name = self.name(index)
        with open(os.path.join(self.root, name), "rb", buffering=0) as file:
            data = file.read()
        return Record(name, data, None if self.labels is None else int(self.labels[index]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names and sizes. Asks the size of every file on first use; a file that is gone counts as -1."""
        if self._fingerprint is None:
            names = (self.name(i) for i in range(len(self)))
            self._fingerprint = fingerprint((name, file_size(os.path.join(self.root, name))) for name in names)
        return self._fingerprint


def fingerprint(names_and_sizes: Iterator[tuple[str, int]]) -> str:
    """SHA-256 over `name\\0size\\n` of every record, in order."""
    digest = hashlib.sha256()
    for name, size in names_and_sizes:
        digest.update(os.fsencode(name) + b"\0%d\n" % size)
    return digest.hexdigest()


def file_size(path: str) -> int:
    """The size in bytes, or -1 for a file that cannot be reached."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def check_folder(path: str) -> None:
    """Raises UserError unless `path` is a folder that can be listed."""
    if not path or not os.path.exists(path):
        raise UserError(f"no folder {path!r}: give an existing one with --config.data.path=DIR")
    if not os.path.isdir(path):
        raise UserError(f"{path} is a file: --config.data.path must be a folder of images")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"{path} cannot be listed: its permissions do not let this user read it")


def check_same_classes(train: tuple[str, ...] | None, other: tuple[str, ...] | None, where: str) -> None:
    """Raises UserError, naming the differences, unless `other` (the classes found in `where`) are those of train."""
    missing = sorted(set(train or ()) - set(other or ()))
    extra = sorted(set(other or ()) - set(train or ()))
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(extra)} besides"] * bool(extra)
        raise UserError(f"{where} has other classes than train: it {' and '.join(parts)}; make their folders the same")


def _images_below(root: str) -> Iterator[bytes]:
    """Yields the relative path of every image below `root`, asking the system for nothing but the folders' entries."""
    # Of a symbolic link to a folder the real path is kept, so that a loop of links ends.
    pending, followed = [(os.fsencode(root), b"")], {os.path.realpath(os.fsencode(root))}
    extensions = tuple(extension.encode() for extension in EXTENSIONS)
    while pending:
        folder, prefix = pending.pop()
        try:
            entries = os.scandir(folder)
        except PermissionError as error:
            raise UserError(f"{os.fsdecode(folder)} cannot be listed: {error.strerror}; change its permissions") from None
        with entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                if entry.is_dir():
                    if entry.is_symlink():
                        target = os.path.realpath(entry.path)
                        if target in followed:
                            continue
                        followed.add(target)
                    pending.append((entry.path, prefix + entry.name + b"/"))
                elif entry.name.lower().endswith(extensions):
                    yield prefix + entry.name


def _class_folders(root: str) -> tuple[str, ...]:
    with os.scandir(root) as entries:
        classes = tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UserError(
            f"{root} must hold one folder per class, at least two of them, and has {found}: labelled data are "
            "laid out as train/CLASS/IMAGE and val/CLASS/IMAGE"
        )
    return classes


def _labels_of(names: list[bytes], classes: tuple[str, ...], root: str) -> np.ndarray:
    numbers = {os.fsencode(name): number for number, name in enumerate(classes)}
    labels = np.fromiter((numbers[name.partition(b"/")[0]] for name in names), np.int32, len(names))
    counts = np.bincount(labels, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts) if not count]
    if empty:
        raise UserError(f"no image in the class folder {', '.join(empty)} of {root}: fill it or remove it")
    return labels
