"""Decoded canvases kept in one memory-mapped file, for data sets that are read a hundred times.

The file is a page of JSON, then the pixels, uint8 [n, S, S, 3], then the sides, int32 [n], and the list of unreadable
images as JSON. It is built under a name of its own, PATH.TOKEN.partial, and takes its place by renaming: a run that is
killed leaves the old file.
One process builds it, which holds the lock PATH.lock; all others that want it wait.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import logging

try:
    import fcntl
except ImportError:  # Windows, where a run is one process
    fcntl = None  # type: ignore[assignment]

from simfle_jax.data.decode import BadImage
from simfle_jax.data.pipeline import decoded_in_order
from simfle_jax.data.read_back import parse_json
from simfle_jax.data.sources import Record, Source
from simfle_jax.errors import UserError
from simfle_jax.progress import Progress

FORMAT = "simfle canvases 3"  # the number changes with the layout of the file and with the numbers that decode gives
PAGE = 4096
ROWS = 64  # images written at a time
LOOK = 0.2  # seconds between two looks at the lock


class Decoding(NamedTuple):
    """How images are decoded: the side of their squares, and `least` and threads as for `TrainBatches`."""

    canvas: int
    least: int
    threads: int


class Interrupted(Exception):
    """The building of a cache was given up because that was asked for."""


class CachedSource:
    """A source whose records hold the decoded image, uint8 [side, side, 3], in place of the bytes of the file."""

    def __init__(self, source: Source, canvases: np.ndarray, sides: np.ndarray, bad: dict[int, str]):
        self._source, self._canvases, self._sides, self._bad = source, canvases, sides, bad
        self.classes, self.labels = source.classes, source.labels

    @property
    def fingerprint(self) -> str:
        return self._source.fingerprint

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        return self._source.name(index)

    def __getitem__(self, index: int) -> Record:
        if index in self._bad:
            raise BadImage(self._bad[index])
        label = None if self.labels is None else int(self.labels[index])
        side = int(self._sides[index])
        return Record(self.name(index), self._canvases[index, :side, :side], label)


def cached(
    source: Source,
    canvas: int,
    path: str,
    threads: int = 0,
    stopped: Callable[[], bool] = lambda: False,
    least: int = 0,
) -> Source:
    """The same source read from the cache at `path`, which is built or replaced when it is not that of the source.

    Where it cannot be written (a full disk, no permission) a warning tells so and the source comes back as it was.

    Args:
        source: what to keep.
        canvas: side S of the canvases in pixels; the file takes about n * S * S * 3 bytes.
        path: the file; a folder gets one file for each data set and canvas.
        threads: for decoding; 0: one per core.
        stopped: asked now and then while the cache is built or waited for, whether to give that up.
        least: as for `TrainBatches`.

    Raises:
        UserError: `path` is a file of another kind, or an image cannot be read now.
        Interrupted: `stopped` said so; what was built is removed.
    """
    key = hashlib.sha256(f"{FORMAT}\n{source.fingerprint}\n{canvas}\n{least}".encode()).hexdigest()
    if os.path.isdir(path) or path.endswith(os.sep):
        path = os.path.join(path, f"canvases-{key[:16]}")
    _check_replaceable(path)
    if (found := _open(path, source, canvas, key)) is not None:
        return found
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with _alone(path, stopped):
            if (found := _open(path, source, canvas, key)) is not None:
                return found  # another process has built it meanwhile
            _build(path, source, Decoding(canvas, least, threads), key, stopped)
    except OSError as error:
        if (found := _open(path, source, canvas, key)) is not None:
            return found  # another host, which locks do not reach here, was faster
        logging.warning("cannot write the cache %s (%s): decoding every time instead", path, error.strerror)
        return source
    return _open(path, source, canvas, key) or source


def _open(path: str, source: Source, canvas: int, key: str) -> CachedSource | None:
    """The cache at `path` if it is whole and of this source and canvas."""
    header, shape = _read_header(path), (len(source), canvas, canvas, 3)
    pixels = int(np.prod(shape, dtype=np.int64))
    if header.get("key") != key or os.path.getsize(path) != PAGE + pixels + header["tail"]:
        return None
    with open(path, "rb") as file:
        file.seek(PAGE + pixels)
        sides = np.frombuffer(file.read(4 * len(source)), np.int32)
        bad = {int(index): reason for index, reason in json.load(file).items()}
    return CachedSource(source, np.memmap(path, np.uint8, "r", PAGE, shape), sides, bad)


def _read_header(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            header = parse_json(file.read(PAGE))
        return header if str(header["format"]).startswith("simfle canvases") else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _check_replaceable(path: str) -> None:
    if os.path.exists(path) and not _read_header(path):
        raise UserError(f"{path} is not a cache and will not be overwritten: give another --config.data.cache=FILE")


@contextlib.contextmanager
def _alone(path: str, stopped: Callable[[], bool]) -> Iterator[None]:
    """Holds the lock of a cache; the system gives it up for a process that dies."""
    lock = _locked(f"{path}.lock", stopped)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.lock")
        os.close(lock)


def _locked(name: str, stopped: Callable[[], bool]) -> int:
    while True:
        lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _wait_for(lock, stopped)
            if os.path.exists(name) and os.path.samestat(os.fstat(lock), os.stat(name)):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # the process before has removed this one: others lock the one that is there now


def _wait_for(lock: int, stopped: Callable[[], bool]) -> None:
    while fcntl:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if stopped():
                raise Interrupted from None
        time.sleep(LOOK)


def _build(path: str, source: Source, how: Decoding, key: str, stopped: Callable[[], bool]) -> None:
    for end in (f".{'?' * 8}.partial", ".partial"):  # of processes that were killed; the second of earlier versions
        for left in glob.glob(glob.escape(path) + end):
            with contextlib.suppress(OSError):
                os.unlink(left)
    # Its own: locks of some network file systems do not reach other hosts, and two may build at once.
    temporary = f"{path}.{secrets.token_hex(4)}.partial"
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        tail = _write_canvases(file, source, how, stopped)
        header = json.dumps({"format": FORMAT, "key": key, "count": len(source), "canvas": how.canvas, "tail": tail})
        _write(file, header.encode().ljust(PAGE), 0)
        os.fsync(file)
        os.replace(temporary, path)
    finally:
        os.close(file)
        with contextlib.suppress(FileNotFoundError):  # it has its name by now
            os.unlink(temporary)


def _write_canvases(file: int, source: Source, how: Decoding, stopped: Callable[[], bool]) -> int:
    """Writes the pixels, the sides and the list of bad images; returns the length of the latter two in bytes."""
    size, count, bad = how.canvas**2 * 3, len(source), dict[int, str]()
    sides = np.full(count, how.canvas, np.int32)
    progress = Progress(count, "decoding into the cache")
    _reserve(file, PAGE + count * size)
    with contextlib.closing(decoded_in_order(source, ROWS, how.canvas, how.threads, how.least)) as batches:
        for batch, indices, found in batches:
            _write(file, batch["image"][: len(indices)].reshape(-1).data, PAGE + int(indices[0]) * size)
            bad |= found
            if "side" in batch:
                sides[indices] = batch["side"][: len(indices)]
            progress.update(int(indices[-1]) + 1)
            if stopped():
                raise Interrupted
    tail = sides.tobytes() + json.dumps(bad).encode()
    _write(file, tail, PAGE + count * size)
    return len(tail)


def _reserve(file: int, size: int) -> None:
    """Takes the space now, so that a disk that is too small says so before hours of decoding."""
    try:
        os.posix_fallocate(file, 0, size)
    except AttributeError:
        return  # not on every operating system
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not on every file system
            raise


def _write(file: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
