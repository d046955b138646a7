"""What commands read in buckets, and what they make for them, as paths on this machine. A path on a disk is itself."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from simfle_jax.errors import UserError
from simfle_jax.host import digest, host_folder, scratch
from simfle_jax.runs.mirror import Mirror, named_by
from simfle_jax.storage import Bucket, is_bucket

ALL = 2**31  # checkpoints


@contextlib.contextmanager
def borrowed(location: str, checkpoints: int = 0, beside: tuple[str, ...] = ()) -> Iterator[Path]:
    """A file, or the folder of a run or a probe, to be read; the copy of one in a bucket is then removed.

    checkpoints: how many of a run's are copied, the newest that are whole. beside: names of files that are copied with a
    file if they lie beside it.

    Raises:
        UserError: in a bucket, nothing lies there, or something else.
    """
    if not is_bucket(location):
        yield Path(location)
        return
    parent, name = _parted(location)
    with scratch(location) as top, named_by(top, parent):
        here = top / name
        if not parent.endswith("/") and (bucket := Bucket(parent)).is_there(name):
            for each in (name, *beside):
                if (data := bucket.read(each)) is not None:
                    (top / each).write_bytes(data)
        else:
            here.mkdir()
            _bring(Mirror(location, here, writes=False), checkpoints)
        yield here


def content(file: str) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: of one on a disk, it cannot be read.
        UserError: of one in a bucket.
    """
    with borrowed(file) as here:
        return here.read_bytes()


def _bring(mirror: Mirror, checkpoints: int) -> None:
    mirror.fetch()
    if not mirror.steps and not any(mirror.folder.iterdir()):
        raise UserError(f"nothing lies at {mirror.location}: is it the name of a run, a probe or a file?")
    for step in mirror.steps:
        if checkpoints == 0:
            return
        problem = mirror.fetch_checkpoint(step)
        if problem:
            logging.warning("checkpoint %d of %s is damaged (%s)", step, mirror.location, problem)
        checkpoints -= not problem


@contextlib.contextmanager
def delivered(location: str, new: bool = False, kept: str = "") -> Iterator[Path]:
    """Where a command writes a file or a folder. What is for a bucket is copied there at a good end, this file last.

    new: refuse a location in a bucket where something lies already. kept: what is made, in words; if it could not be
    copied, it is still here the next time that this is made, so that work of hours is not done twice.

    Raises:
        UserError: no name in a bucket, or one that is taken.
    """
    if not is_bucket(location):
        yield Path(location)
        return
    parent, name = _parted(location)
    if parent.endswith("/"):
        raise UserError(f"{location} names no file in a bucket: write {location}/NAME")
    bucket = Bucket(parent)
    if new and any(each == name or each.startswith(f"{name}/") for each in bucket.names(name)):
        raise UserError(f"{location} exists already: give another name, or remove it first")
    with _kept(f"{location} {kept}") if kept else scratch(location) as top, named_by(top, parent):
        yield top / name
        files = sorted((path for path in top.rglob("*") if path.is_file()), key=lambda path: path == top / name)
        for path in files:
            bucket.write(path.relative_to(top).as_posix(), path.read_bytes())


@contextlib.contextmanager
def _kept(what: str) -> Iterator[Path]:
    folder = host_folder("made", digest(what))
    yield folder
    shutil.rmtree(folder)


def _parted(location: str) -> tuple[str, str]:
    """What a location lies in, and its last name."""
    parent, _, name = location.rstrip("/").rpartition("/")
    return parent, name
