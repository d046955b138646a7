"""The images below a folder: the same list on every machine, in whatever order its file system names them."""

import errno
import heapq
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from absl import logging

from simfle_jax.data.files import is_image, is_service, patiently

CHUNK = 512  # files that a thread asks for their sizes at a time
THREADS = 16  # that wait for a file server at once


class Entry(NamedTuple):
    """What a folder holds. `kind` is the file type that stat gives, of a link's target; 0: a link to nowhere."""

    name: bytes
    path: bytes
    kind: int
    is_link: bool


class Listing(NamedTuple):
    """Sorted paths relative to the folder, those among them that are links to nowhere, and the folders that were read.

    The latter by their real paths, with the time of each one's last change *before* it was read: one that changes
    while the others are read is seen to have changed.
    """

    names: list[bytes]
    nowhere: frozenset[bytes]
    folders: Mapping[bytes, int]


def list_images(root: str) -> Listing:
    """Lists all images below `root`; no file but a link is asked for anything.

    Every folder is listed once: at its own place when that is below `root`, otherwise under the linked path that
    sorts first. Only regular files and links to nowhere are listed; a service folder is not entered.

    Raises:
        UserError: a folder that cannot be listed.
    """
    names, nowhere, lost = list[bytes](), set[bytes](), list[bytes]()
    listed = dict[bytes, int]()
    # By their path and not as found: the folders behind the first are walked, with the links in them, then the next.
    links = [(b"", os.path.realpath(os.fsencode(root)))]
    while links:
        prefix, target = heapq.heappop(links)
        for place, entry in _walk(target, prefix, listed):
            if stat.S_ISDIR(entry.kind):
                heapq.heappush(links, (place + b"/", os.path.realpath(entry.path)))
            elif is_image(entry.name) and (stat.S_ISREG(entry.kind) or not entry.kind):
                names.append(place)
                if not entry.kind:
                    nowhere.add(place)
            elif not entry.kind:
                lost.append(place)
                listed[os.path.realpath(entry.path)] = -1  # a folder that is not mounted yet, perhaps
    if lost:
        logging.warning("%d links below %s lead nowhere, such as %s: folders behind them are left out",
                        len(lost), root, os.fsdecode(lost[0]))  # fmt: skip
    return Listing(sorted(names), frozenset(nowhere), listed)


def last_change(folder: bytes) -> int:
    """When a folder was last changed, in nanoseconds; -1: it is gone."""
    status = _status(folder)
    return status.st_mtime_ns if status else -1


def _walk(top: bytes, prefix: bytes, listed: dict[bytes, int]) -> Iterator[tuple[bytes, Entry]]:
    """The relative path and entry of every file and link below the real folder `top`, unless `listed` has its folder."""
    pending = [(top, prefix)]
    while pending:
        folder, prefix = pending.pop()
        if folder in listed:
            continue
        listed[folder] = last_change(folder)
        for entry in entries(folder):
            if stat.S_ISDIR(entry.kind) and not entry.is_link:
                pending.append((entry.path, prefix + entry.name + b"/"))
            else:
                yield prefix + entry.name, entry


def entries(folder: bytes) -> list[Entry]:
    """What is in a folder, without service files and folders; raises UserError when it cannot be listed."""

    def read() -> list[Entry]:
        with os.scandir(folder) as found:
            return [Entry(each.name, each.path, _kind(each), each.is_symlink()) for each in found
                    if not is_service(each.name)]  # fmt: skip

    return patiently(read, f"{os.fsdecode(folder)} cannot be listed")


def _kind(entry: os.DirEntry[bytes]) -> int:
    # Most file systems tell folders and files without being asked for each.
    if not entry.is_symlink():
        if entry.is_file(follow_symlinks=False):
            return stat.S_IFREG
        return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFIFO
    status = _status(entry.path)
    return stat.S_IFMT(status.st_mode) if status else 0


def _status(path: str | bytes) -> os.stat_result | None:
    """The file's or, of a link, its target's; None: there is nothing."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return None
        raise


def file_size(path: str) -> int:
    """In bytes; -1: there is no such file. Raises UserError when that cannot be told."""
    status = patiently(lambda: _status(path), f"{path} cannot be looked at")
    return status.st_size if status else -1


def file_sizes(count: int, path: Callable[[int], str]) -> Iterator[int]:
    """The sizes of files 0 to count - 1, asked for in threads: a file server answers many as fast as one."""

    def some(start: int) -> list[int]:
        return [file_size(path(index)) for index in range(start, min(start + CHUNK, count))]

    pool = ThreadPoolExecutor(THREADS)
    try:
        for sizes in pool.map(some, range(0, count, CHUNK)):
            yield from sizes
    finally:
        pool.shutdown(cancel_futures=True)
