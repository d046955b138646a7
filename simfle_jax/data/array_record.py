"""Images in ArrayRecord shards (see `packing`): few large files in place of many small ones.

    PACK/index.json                     format, count, classes, fingerprint, crop of aligned faces, names and counts of the shards
    PACK/index.npz                      joined names (uint8), their ends, labels (-1: none), sizes (-1: unreadable)
    PACK/00000-of-00004.array_record    records in the order of the listing
    PACK/train/... PACK/val/...         the same for each split, where the folder had splits

A record is: label (int32), length of the name (uint32), both little-endian; the name; the file's own bytes.
So a pack gives the same names, labels, fingerprint and batches as the folder it was made of.
"""

import bisect
import functools
import os
import struct
import threading
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from simfle_jax.data.files import BadImage, record_error
from simfle_jax.data.packs import pack_at_hand
from simfle_jax.data.read_back import parse_json, read_npz
from simfle_jax.data.sources import Record, fingerprint
from simfle_jax.errors import UserError

FORMAT = "simfle pack 1"
HEADER = struct.Struct("<iI")
SPLITS = ("train", "val")
AGAIN = "pack the data again"


class ArrayRecordSource:
    """The images of a pack, on a disk or in a bucket; see `FolderSource` for what the same arguments give.

    Raises:
        UserError: no pack there, one without the split or without labels, or a shard missing or cut short.
    """

    def __init__(self, path: str | os.PathLike[str], labelled: bool = False, split: str | None = None):
        self.root = pack_at_hand(os.fspath(path))
        folders = _pack_folders(self.root, split)
        parts = [_Part(folder, prefix) for folder, prefix in folders]
        if labelled and (len(parts) > 1 or parts[0].classes is None):
            raise UserError(f"the pack {folders[0][0]} has no labels: pack a folder of train/CLASS and val/CLASS")
        self._parts, self._starts = parts, np.cumsum([0, *(len(part) for part in parts)]).tolist()
        self.classes = parts[0].classes if labelled else None
        self.labels = parts[0].labels if labelled else None

    def __len__(self) -> int:
        return self._starts[-1]

    def name(self, index: int) -> str:
        part, position = self._find(index)
        return part.name(position)

    def __getitem__(self, index: int) -> Record:
        part, position = self._find(index)
        label = None if self.labels is None else int(self.labels[index])
        return Record(part.name(position), part.read(position), label)

    @functools.cached_property
    def fingerprint(self) -> str:
        """That of the packed folder, from its names and sizes as they were."""
        if len(self._parts) == 1 and self._parts[0].fingerprint:  # what takes seconds for millions is recorded
            return self._parts[0].fingerprint
        return fingerprint((part.name(i), int(part.sizes[i])) for part in self._parts for i in range(len(part)))

    def _find(self, index: int) -> tuple["_Part", int]:
        number = bisect.bisect_right(self._starts, index) - 1
        return self._parts[number], index - self._starts[number]


class _Part:
    """One folder of shards with its index; `prefix` is put before the names."""

    def __init__(self, folder: str, prefix: str):
        index, (names, ends, labels, sizes) = read_index(folder), _read_arrays(folder)
        self.folder, self.prefix, self.shards = folder, prefix, index["shards"]
        self.classes = tuple(index["classes"]) if index["classes"] else None
        self.fingerprint = str(index.get("fingerprint", ""))
        self._names, self._ends, self.labels, self.sizes = names.tobytes(), ends, labels, sizes
        _check_whole(folder, self.classes, self.shards, len(self._names), ends, labels, sizes)
        self._starts = np.cumsum([0, *(shard["count"] for shard in self.shards)]).tolist()
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()
        _check_shards(folder, self.shards)

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self.prefix + os.fsdecode(self._names[start : self._ends[index]])

    def read(self, index: int) -> bytes:
        """The bytes of the image; BadImage where it never was one or is damaged, OSError when it cannot be read now."""
        if self.sizes[index] < 0:
            raise BadImage("unreadable when it was packed")
        number = bisect.bisect_right(self._starts, index) - 1
        try:
            record = self._reader(number).read([index - self._starts[number]])[0]
            label, length = HEADER.unpack_from(record)
        except (ValueError, RuntimeError, IndexError) as error:
            raise record_error(error, f"shard {self.shards[number]['name']}") from None
        except struct.error:
            raise BadImage(f"damaged shard {self.shards[number]['name']}: a record without its beginning") from None
        end = HEADER.size + length
        start = self._ends[index - 1] if index else 0
        if label != self.labels[index] or record[HEADER.size : end] != self._names[start : self._ends[index]]:
            raise UserError(f"index and {self.shards[number]['name']} in {self.folder} are of different packs: {AGAIN}")
        return record[end:]

    def _reader(self, number: int) -> Any:
        # One reader a shard, shared by all threads: it may be read from several at once.
        with self._lock:
            if number not in self._readers:
                path = os.path.join(self.folder, self.shards[number]["name"])
                self._readers[number] = ArrayRecordReader(
                    path, "readahead_buffer_size:0", file_reader_buffer_size=32768
                )
            return self._readers[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}


def _pack_folders(root: str, split: str | None) -> list[tuple[str, str]]:
    """The folders of shards to read with the prefix of their names, in the order in which a folder would list them."""
    if not root:
        raise UserError("data.path is empty: give the folder of the pack with --config.data.path=DIR")
    folder = os.path.join(root, split) if split else root
    if os.path.exists(os.path.join(folder, "index.json")):
        return [(folder, "")]
    inside = [name for name in SPLITS if os.path.exists(os.path.join(folder, name, "index.json"))]
    if not inside:
        raise UserError(f"no pack in {folder}: make one with python -m simfle_jax.prepare --pack FOLDER --out PACK")
    return [(os.path.join(folder, name), f"{name}/") for name in inside]


def read_index(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, "index.json")
    try:
        with open(path) as file:
            index = parse_json(file.read())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {AGAIN}") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise UserError(f"{path} is not of the format {FORMAT!r}: {AGAIN}")
    classes, shards = index.get("classes"), index.get("shards")
    is_right = isinstance(shards, list) and all(map(_is_shard, shards)) and isinstance(index.get("fingerprint"), str)
    if (
        not is_right
        or "classes" not in index
        or not (classes is None or (isinstance(classes, list) and all(isinstance(c, str) for c in classes)))
    ):
        raise UserError(f"{path} is damaged: {AGAIN}")
    return index


def _is_shard(shard: Any) -> bool:
    if not isinstance(shard, dict) or not isinstance(shard.get("name"), str):
        return False
    numbers = shard.get("count"), shard.get("bytes")
    return os.path.basename(shard["name"]) == shard["name"] and all(type(n) is int and 0 <= n < 2**60 for n in numbers)


def _read_arrays(folder: str) -> list[np.ndarray]:
    """Joined names, ends, labels and sizes of the images of a pack."""
    path = os.path.join(folder, "index.npz")
    arrays = read_npz(path, ("names", "ends", "labels", "sizes"), AGAIN)
    if any(array.ndim != 1 or array.dtype.kind not in "iu" for array in arrays):
        raise UserError(f"{path} is damaged: {AGAIN}")
    return arrays


def _check_whole(
    folder: str,
    classes: tuple[str, ...] | None,
    shards: list[dict[str, Any]],
    names: int,
    ends: np.ndarray,
    labels: np.ndarray,
    sizes: np.ndarray,
) -> None:
    """Raises UserError where the two files of an index do not tell the same."""
    count = sum(shard["count"] for shard in shards)
    fits = count > 0 and len(ends) == len(labels) == len(sizes) == count
    fits = fits and ends[0] >= 0 and bool((np.diff(ends) >= 0).all()) and ends[-1] == names
    if not fits or labels.min() < -1 or (classes and labels.max() >= len(classes)):
        raise UserError(f"index.json and index.npz in {folder} do not fit each other: {AGAIN}")


def _check_shards(folder: str, shards: list[dict[str, Any]]) -> None:
    for shard in shards:
        path = os.path.join(folder, shard["name"])
        found = os.path.getsize(path) if os.path.exists(path) else None
        if found != shard["bytes"]:
            state = "is missing" if found is None else f"has {found} bytes in place of {shard['bytes']}"
            raise UserError(f"{path} {state}: copy it again or pack the data again")
