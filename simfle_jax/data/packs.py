"""Packs in a bucket: copied once to this machine, checked, and shared by all its processes.

Below `host_folder("packs")` every pack has a folder, named by its place and its index: a pack that is replaced in the bucket
is another one, and a run that reads the old one goes on with it. Copies that nobody reads make room for new ones.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import logging

from simfle_jax import storage
from simfle_jax.errors import UserError
from simfle_jax.host import digest, holding, host_folder, remove_if_free
from simfle_jax.progress import Progress
from simfle_jax.storage import Bucket
from simfle_jax.writing import write_whole

PARTS = ("", "train", "val")  # where a pack's index may lie
STREAMS = 8  # pieces that are read at once
SPARE = 2**30  # bytes of the disk that stay free
AGAIN = "start again, and the new one is copied"

_held = contextlib.ExitStack()  # packs that this process reads, until it ends


def pack_at_hand(location: str) -> str:
    """The folder of a pack on this machine: itself, or a copy of one in a bucket, made now where there is none yet.

    Raises:
        UserError: no pack there, too little room for it, or it changed while it was copied.
    """
    if not storage.is_bucket(location):
        return location
    if folder := find_pack(location):
        return folder
    raise UserError(f"no pack in {location}: python -m simfle_jax.prepare --pack FOLDER --out {location} makes one")


def find_pack(location: str) -> str:
    """As `pack_at_hand`, of a location in a bucket; '' where no pack lies there."""
    bucket = Bucket(location)
    bucket.require_folder()
    indices = {part: data for part in PARTS if (data := bucket.read(_in(part, "index.json"))) is not None}
    if not indices:
        return ""
    held = held_by_us(digest(location.rstrip("/").encode() + b"\0".join(indices.values())))
    folder = held.with_suffix("")
    with holding(held.with_suffix(".filling")):
        _fill(bucket, folder, indices)
    os.utime(held)
    return str(folder)


def held_by_us(name: str) -> Path:
    """The lock file of a copy, whose folder is called like it: nobody removes that while this process lives."""
    held = host_folder("packs") / f"{name}.held"
    _held.enter_context(holding(held, alone=False))
    return held


def _in(part: str, name: str) -> str:
    return f"{part}/{name}" if part else name


def _fill(bucket: Bucket, folder: Path, indices: dict[str, bytes]) -> None:
    """Copies what is missing; index.json last, by which a pack is known."""
    shards = [(part, shard) for part, data in indices.items() for shard in _shards(bucket, part, data)]
    missing = [(part, shard) for part, shard in shards if _size(folder / part / shard["name"]) != shard["bytes"]]
    if missing:
        make_room(folder, sum(shard["bytes"] for _, shard in missing), bucket.location)
    for part in indices:
        (folder / part).mkdir(parents=True, exist_ok=True)
    count, done = sum(shard["bytes"] for _, shard in missing), 0
    progress = Progress(_mib(count), f"copying {bucket.location}, MiB")
    for part, shard in missing:
        for written in _copied(bucket, _in(part, shard["name"]), folder / part / shard["name"], shard):
            done += written
            progress.update(_mib(done))
    for part, data in indices.items():
        if not (folder / part / "index.json").exists():
            write_copy(folder / part / "index.npz", _required(bucket, _in(part, "index.npz")))
            write_copy(folder / part / "index.json", data)


def _shards(bucket: Bucket, part: str, index: bytes) -> list[dict[str, Any]]:
    try:
        found = [{"name": str(s["name"]), "bytes": int(s["bytes"]), "sha256": s.get("sha256")}
                 for s in json.loads(index)["shards"]]  # fmt: skip
        if any(os.path.basename(shard["name"]) != shard["name"] for shard in found):
            raise ValueError
        return found
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{bucket.location}/{_in(part, 'index.json')} is damaged: pack the data again") from None


def _copied(bucket: Bucket, name: str, path: Path, shard: dict[str, Any]) -> Iterator[int]:
    """Copies a shard, several pieces at a time, and checks it; yields the bytes of each piece."""
    size, partial = shard["bytes"], path.with_name(f".{path.name}.partial")
    versions, checked = set[bytes](), hashlib.sha256()

    def piece(start: int) -> storage.Content:
        return bucket.piece(name, start, min(start + storage.PIECE, size))

    with ThreadPoolExecutor(STREAMS) as pool, _told(path.parent), partial.open("wb") as file:
        for start in range(0, size, STREAMS * storage.PIECE):  # no more than these in memory
            stop = min(start + STREAMS * storage.PIECE, size)
            for found in pool.map(piece, range(start, stop, storage.PIECE)):
                data = found.data or b""
                versions.add(found.version)
                checked.update(data)
                file.write(data)
                yield len(data)
    expected = shard["sha256"] or checked.hexdigest()  # packs of earlier versions have none
    if len(versions) != 1 or _size(partial) != size or checked.hexdigest() != expected:
        raise UserError(f"{bucket.location}/{name} is not what its index tells: it is damaged, or the pack was replaced "
                        f"meanwhile; {AGAIN}")  # fmt: skip
    with _told(path.parent):
        os.replace(partial, path)


def _required(bucket: Bucket, name: str) -> bytes:
    data = bucket.read(name)
    if data is None:
        raise UserError(f"{bucket.location} has no {name}: copy it again, or pack the data again")
    return data


def write_copy(path: Path, data: bytes) -> None:
    """Writes a file of a copy whole or not at all; raises UserError."""
    with _told(path.parent):
        write_whole(path, data)


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror}; SIMFLE_CACHE_DIR=DIR names another disk"
        ) from None


def make_room(folder: Path, needed: int, location: str) -> None:
    """Removes copies that nobody reads, those not read for the longest first, until `needed` bytes are free."""
    others = [held for held in folder.parent.glob("*.held") if held.with_suffix("") != folder]
    for held in sorted(others, key=lambda each: each.stat().st_mtime):
        if shutil.disk_usage(folder.parent).free >= needed + SPARE:
            break
        if remove_if_free(held):
            logging.warning("another copy made room: %s", held.with_suffix(""))
    free = shutil.disk_usage(folder.parent).free
    if free < needed + SPARE:
        raise UserError(
            f"{location} needs {needed / 2**30:.1f} GiB of {folder.parent} and 1 to spare, {free / 2**30:.1f} are free: "
            "make room, or name a folder on a larger disk with SIMFLE_CACHE_DIR=DIR"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _mib(size: int) -> int:
    return -(-size // 2**20)
