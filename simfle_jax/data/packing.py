"""Packing folders of images into ArrayRecord shards, in the form that `array_record` describes and reads."""

import hashlib
import json
import os
import re
import secrets
import shutil
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from simfle_jax.data.array_record import FORMAT, HEADER, SPLITS, read_index
from simfle_jax.data.files import BadImage, patiently
from simfle_jax.data.listing import file_sizes
from simfle_jax.data.photographs.crop import NOT_ALIGNED, crop_of
from simfle_jax.data.read_back import one_line
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError
from simfle_jax.host import scratch
from simfle_jax.progress import Progress
from simfle_jax.storage import Bucket, is_bucket

SHARD_BYTES = 256 * 2**20
PACKED = re.compile(r"((train|val)/)?(index\.(json|npz)|\d{5}-of-\d{5}\.array_record)")  # names in a bucket


def pack(folder: str, out: str, shard_bytes: int = SHARD_BYTES) -> dict[str, int]:
    """Packs a folder: `train/` and `val/` with their classes where it has them, all its images otherwise.

    What is packed already stays as it is; a pack appears under its name only when it is whole.

    Returns:
        The number of images in each split ('' for a folder without).

    Raises:
        UserError: a folder that cannot be read as such, or a pack of other data at `out`.
    """
    if is_bucket(out):
        return _pack_into_bucket(folder, out, shard_bytes)
    splits = [split for split in SPLITS if os.path.isdir(os.path.join(folder, split))]
    if not splits:
        return {"": pack_source(FolderSource(folder), out, shard_bytes)}
    os.makedirs(out, exist_ok=True)
    sources = {split: FolderSource(folder, labelled=True, split=split) for split in splits}
    return {split: pack_source(source, os.path.join(out, split), shard_bytes) for split, source in sources.items()}


def _pack_into_bucket(folder: str, out: str, shard_bytes: int) -> dict[str, int]:
    """The same on this machine first; then every object is written once, a part's index.json last."""
    bucket = Bucket(out)
    bucket.require_folder()
    there = bucket.names()
    indices = {name: data for name in there if name.rpartition("/")[2] == "index.json" and (data := bucket.read(name))}
    if foreign := [name for name in there if not PACKED.fullmatch(name)]:
        raise UserError(f"{out} holds something else than a pack, such as {foreign[0]}: give another name")
    with scratch(out) as place:
        packed = pack(folder, str(place / "pack"), shard_bytes)
        files = {path.relative_to(place / "pack").as_posix(): path for path in (place / "pack").rglob("*.*")}
        found = {name: path.read_bytes() for name, path in files.items() if path.name == "index.json"}
        if indices == found:
            return packed
        if indices:
            raise UserError(f"{out} exists and is not the pack of {folder}: remove it or give another name")
        order = sorted(files, key=lambda name: (name.endswith("index.json"), name))
        progress = Progress(len(order), f"copying to {out}, files")
        for number, name in enumerate(order, 1):
            bucket.write(name, files[name].read_bytes())
            progress.update(number)
    return packed


def pack_source(source: FolderSource, out: str, shard_bytes: int = SHARD_BYTES) -> int:
    """Packs the records of one source into the folder `out`; returns how many there are."""
    if os.path.exists(out):
        if os.path.exists(os.path.join(out, "index.json")) and _is_of(read_index(out), source):
            return len(source)
        raise UserError(f"{out} exists and is not the pack of {source.root}: remove it or give another name")
    temporary = f"{out}.{os.getpid()}-{secrets.token_hex(4)}.partial"
    os.makedirs(temporary)
    try:
        sizes, counts = _write_shards(source, temporary, shard_bytes)
        _refuse_changed(source, sizes)
        _write_index(source, temporary, sizes, counts)
        os.rename(temporary, out)
    except (OSError, RuntimeError, ValueError) as error:  # the writer of records raises the latter two
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise UserError(
            f"{out} cannot be written ({reason}): make room or mend that, and give the same command again"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already when all went well
    return len(source)


def _refuse_changed(source: FolderSource, sizes: np.ndarray) -> None:
    """Raises UserError where files are not as they were packed: the pack would pass for that of the folder as it is."""
    now = np.fromiter(file_sizes(len(source), source.path), np.int64, len(source))
    changed = np.flatnonzero((sizes >= 0) & (sizes != now))
    if len(changed):
        raise UserError(
            f"{len(changed)} files in {source.root} changed while they were packed, such as {source.name(int(changed[0]))}: "
            "pack them when nothing writes there any more"
        )


def _is_of(index: dict[str, Any], source: FolderSource) -> bool:
    return index["fingerprint"] == source.fingerprint and index.get("crop", NOT_ALIGNED) == crop_of(source.root)


def _write_shards(source: FolderSource, out: str, shard_bytes: int) -> tuple[np.ndarray, list[int]]:
    """Writes all records; returns the size of each image and the number of records in each shard."""
    sizes, counts, written = np.full(len(source), -1, np.int64), [0], 0
    progress, writer = Progress(len(source), "packing"), _writer(out, 0)
    for index in range(len(source)):
        if written >= shard_bytes:
            writer.close()
            writer, written = _writer(out, len(counts)), 0
            counts.append(0)
        data = _read(source, index)
        name = os.fsencode(source.name(index))
        label = -1 if source.labels is None else int(source.labels[index])
        writer.write(HEADER.pack(label, len(name)) + name + (data or b""))
        sizes[index] = -1 if data is None else len(data)
        counts[-1] += 1
        written += len(data or b"")
        progress.update(index + 1)
    writer.close()
    return sizes, counts


def _writer(out: str, number: int) -> Any:
    # Images are compressed already; groups of one make single records cheap to reach.
    return ArrayRecordWriter(os.path.join(out, f"{number:05d}.array_record"), "group_size:1,uncompressed")


def _read(source: FolderSource, index: int) -> bytes | None:
    """The file's bytes; None of what is no file. What cannot be read now is none of that: it stops the packing."""
    try:
        data = patiently(lambda: source[index].data, f"{source.name(index)} cannot be read")
    except BadImage:
        return None
    assert isinstance(data, bytes)  # of a folder they are files
    return data


def _write_index(source: FolderSource, out: str, sizes: np.ndarray, counts: list[int]) -> None:
    names = [os.fsencode(source.name(index)) for index in range(len(source))]
    shards = [f"{number:05d}-of-{len(counts):05d}.array_record" for number in range(len(counts))]
    for number, shard in enumerate(shards):
        os.rename(os.path.join(out, f"{number:05d}.array_record"), os.path.join(out, shard))
    np.savez(
        os.path.join(out, "index.npz"),
        names=np.frombuffer(b"".join(names), np.uint8),
        ends=np.cumsum([len(name) for name in names], dtype=np.int64),
        labels=np.full(len(source), -1, np.int32) if source.labels is None else source.labels,
        sizes=sizes,
    )
    crop = crop_of(source.root)
    index = {
        "format": FORMAT,
        "count": len(source),
        "classes": source.classes,
        "fingerprint": source.fingerprint,
        **({} if crop == NOT_ALIGNED else {"crop": crop}),
        "shards": [
            {
                "name": shard,
                "count": count,
                "bytes": os.path.getsize(os.path.join(out, shard)),
                "sha256": _sha256(os.path.join(out, shard)),
            }
            for shard, count in zip(shards, counts)
        ],
    }
    with open(os.path.join(out, "index.json"), "w") as file:
        json.dump(index, file, indent=2)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
