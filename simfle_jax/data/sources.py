"""Where images come from: a source is a list of records that can be read in any order, by any thread.

A source has `len(source)`, `source[i] -> Record`, `source.name(i)`, `source.labels`, `source.classes` and
`source.fingerprint`. Nothing is decoded here.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from simfle_jax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


class Record(NamedTuple):
    """One stored image: its name in the data set, its content, and its class when it has one.

    The content is the bytes of its file or, from sources that hold pixels, uint8 [H, W, 3] RGB.
    """

    name: str
    data: bytes | np.ndarray
    label: int | None


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
        """Reads record `index`; raises OSError when its file cannot be read."""
        ...

    def name(self, index: int) -> str: ...


def open_source(source: str, path: str, labelled: bool = False, split: str | None = None) -> Source:
    """Opens the data set that `data.source` and `data.path` name.

    Raises:
        UserError: no such kind of source, or the data are not there or not laid out as it needs.
    """
    # The other kinds are imported when they are asked for: not everybody needs the packages behind them.
    if source == "folder":
        return FolderSource(path, labelled, split)
    if source == "array_record":
        from simfle_jax.data.array_record import ArrayRecordSource

        return ArrayRecordSource(path, labelled, split)
    if source.startswith("tfds:"):
        from simfle_jax.data.tfds_source import TfdsSource

        return TfdsSource(source.removeprefix("tfds:"), path, labelled, split)
    raise UserError(
        f"data.source={source!r} is none of folder, array_record, tfds:NAME[/CONFIG][:SPLIT]; docs/data.md tells more"
    )


class FolderSource:
    """The images below a folder, sorted by their path relative to it.

    Unlabelled, every image below `path` (or `path/split`) counts, whatever the folders are called. Labelled,
    the folders in `path/split` are the classes, in sorted order, and hold the images at any depth; images
    beside them have no class and are left out. Hidden files and folders are skipped, a link to nowhere is
    listed as any image. Names are kept as one string of bytes with offsets: a million of them are cheap to
    hold and to pickle.

    Raises:
        UserError: no such folder, no image in it, fewer than two classes, or a class without images.
    """

    def __init__(self, path: str | os.PathLike[str], labelled: bool = False, split: str | None = None):
        self.root = existing_folder(os.fspath(path), split)
        names = sorted(_images_below(self.root))
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
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """The path of image `index` relative to the folder, with forward slashes."""
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._joined[start : self._ends[index]])

    def __getitem__(self, index: int) -> Record:
        name = self.name(index)
        return Record(name, read_file(f"{self.root}/{name}"), None if self.labels is None else int(self.labels[index]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names and sizes; asks for every size on first use (-1: the file is gone)."""
        if self._fingerprint is None:
            names = map(self.name, range(len(self)))
            self._fingerprint = fingerprint((name, _file_size(f"{self.root}/{name}")) for name in names)
        return self._fingerprint


def fingerprint(names_and_sizes: Iterable[tuple[str, int]]) -> str:
    """SHA-256 over `name`, a zero byte, the size in decimals and a line feed, for every record in order."""
    digest = hashlib.sha256()
    for name, size in names_and_sizes:
        digest.update(os.fsencode(name) + b"\0%d\n" % size)
    return digest.hexdigest()


def check_same_classes(train: tuple[str, ...], other: tuple[str, ...], where: str) -> None:
    """Raises UserError, naming the differences, unless the classes found in `where` are those of train."""
    missing, extra = sorted(set(train) - set(other)), sorted(set(other) - set(train))
    if missing or extra:
        differences = [f"lacks {', '.join(missing)}"] if missing else []
        differences += [f"has {', '.join(extra)} besides"] if extra else []
        raise UserError(f"{where} has not the classes of train: it {' and '.join(differences)}; make them equal")


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


def read_file(path: str) -> bytes:
    """The whole file, in half the system calls of open().read(): these count when files are small and many."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # Windows reads text without it
    try:
        data = os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)
    return data


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _images_below(root: str) -> Iterator[bytes]:
    """Relative paths of the images below `root`, from the folders alone: no file is asked for anything."""
    extensions = tuple(extension.encode() for extension in EXTENSIONS)
    pending, followed = [(os.fsencode(root), b"")], {os.path.realpath(os.fsencode(root))}
    while pending:
        folder, prefix = pending.pop()
        for entry in _entries(folder):
            if entry.is_dir():
                if not entry.is_symlink() or _is_new(entry.path, followed):
                    pending.append((entry.path, prefix + entry.name + b"/"))
            elif entry.name.lower().endswith(extensions):
                yield prefix + entry.name


def _entries(folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(b".")]
    except OSError as error:
        raise UserError(f"{os.fsdecode(folder)} cannot be listed: {error.strerror}; mend it or move it away") from None


def _is_new(link: bytes, followed: set[bytes]) -> bool:
    """Whether a linked folder was not followed yet; it is from now on, so that a loop of links ends."""
    target = os.path.realpath(link)
    if target in followed:
        return False
    followed.add(target)
    return True


def _class_folders(root: str) -> tuple[str, ...]:
    classes = tuple(sorted(os.fsdecode(entry.name) for entry in _entries(os.fsencode(root)) if entry.is_dir()))
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
        raise UserError(f"no image in the class folder {', '.join(empty)} of {root}: fill it or remove it")
    return labels
