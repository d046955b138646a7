"""Finding the owners' files where people unpacked them: a folder more or less, names in any case, service files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from simfle_jax.data.listing import entries
from simfle_jax.errors import UserError

DEPTH = 2  # folders around the owners' layout that archives and people add
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, by name, without hidden ones and those that systems keep for themselves."""
    found = [entry for entry in entries(os.fsencode(folder)) if stat.S_ISDIR(entry.kind)]
    return sorted(Path(os.fsdecode(entry.path)) for entry in found)


def child(folder: Path, *names: str) -> Path | None:
    """`folder/name/name...` as it is on disk, whatever the case of its letters; None where it is not there."""
    path = folder.joinpath(*names)
    if path.exists():
        return path
    for name in names:
        found = [inner for inner in _names(folder) if inner.lower() == name.lower()]
        if not found:
            return None
        folder /= found[0]
    return folder


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # no folder, or one that may not be listed: what is looked for is told to be missing
        return []


def nested(folder: Path) -> Path:
    """`folder`, or the folder of the same name in it, which some unpackers make."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def folder_of(root: Path, *choices: str) -> Path:
    """The first of the folders (paths below `root`) that is there, seen through a doubled one.

    Raises UserError that names the first choice and, where it lies there still packed, its archive.
    """
    for choice in choices:
        found = child(root, *choice.split("/"))
        if found and found.is_dir():
            return nested(found)
    archive = next(filter(None, (_packed(root / choice) for choice in choices)), None)
    raise UserError(f"no folder {root / choices[0]}" + (f": unpack {archive}, which lies there" if archive else ""))


def _packed(folder: Path) -> Path | None:
    places = (folder.parent, folder.parent.parent)
    names = [folder.with_name(folder.name + ending).name for ending in ARCHIVES]
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def first_level(source: Path, fits: Callable[[Path], object]) -> list[Path]:
    """The folders that fit, of the first level below `source` (itself the first) that has one."""
    level = [source]
    for _ in range(DEPTH + 1):
        if found := [folder for folder in level if fits(folder)]:
            return found
        level = [inner for folder in level for inner in _reachable(folder)]
    return []


def only(found: list[Path], dataset: str, what: str) -> Path | None:
    """The one folder found, or None. Raises UserError where there are several: which is meant only the user knows."""
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise UserError(f"{dataset}: {what} is in several folders ({names}): give the one you mean as --source")
    return found[0] if found else None


def _reachable(folder: Path) -> list[Path]:
    try:
        return subfolders(folder)
    except UserError:  # may not be listed: what is looked for is elsewhere, or is missed in the message that follows
        return []


class Finder:
    """Finds files below a folder by relative path, whatever the case of its letters. Listings are kept."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """The path of the file `name` (with forward slashes), or None."""
        path = os.path.join(self.root, name)
        if os.path.isfile(path):
            return path
        folder = self.root
        for part in name.split("/"):
            inner = self._listing(folder).get(part.lower())
            if inner is None:
                return None
            folder = os.path.join(folder, inner)
        return folder if os.path.isfile(folder) else None

    def _listing(self, folder: str) -> dict[str, str]:
        if folder not in self._listings:
            self._listings[folder] = {name.lower(): name for name in _names(Path(folder))}
        return self._listings[folder]


def walk(folder: Path, known: set[str] | None = None) -> Iterator[Path]:
    """`folder` and all folders below it, in order, each once; links to folders are followed, as in training."""
    known = set() if known is None else known
    real = os.path.realpath(folder)
    if real in known:
        return
    known.add(real)
    yield folder
    for inner in sorted(subfolders(folder), key=lambda path: (path.is_symlink(), path)):  # its own place comes first
        yield from walk(inner, known)
