"""Reading and decoding whole batches, in whatever thread asks for one.

`TrainBatch[step]` and `EvalBatch[number]` are random-access sources for grain whose element is a batch:
grain's cost per element is paid once a batch, and images are decoded straight into the array that the device
will get.
"""

import itertools
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from simfle_jax.data.buffers import Buffers
from simfle_jax.data.decode import BadImage, decode, decode_at_own_size
from simfle_jax.data.files import patiently
from simfle_jax.data.order import global_batch
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError

KEEP = 4  # batches whose memory waits to be used again
ENDLESS = 2**62  # steps; grain asks every source for its length


class Decoded(NamedTuple):
    """A batch, the indices that were drawn for it (int64), and the reasons of all that proved unreadable meanwhile."""

    batch: dict[str, np.ndarray]
    drawn: np.ndarray
    bad: dict[int, str]


class Reader:
    """Reads single images of a source into a canvas; all threads share what it knows about the bad ones.

    `buffers` holds the memory of batches of `rows` canvases. `least` 0: every image fills its canvas, as by `decode`;
    otherwise it has its own size, as by `decode_at_own_size`, and batches hold `side`.
    """

    def __init__(self, source: Source, canvas: int, rows: int, least: int = 0):
        self.source, self.canvas, self.least = source, canvas, least
        self.buffers = Buffers((rows, canvas, canvas, 3), KEEP)
        self.stopped = threading.Event()
        self._reasons: dict[int, str] = {}

    def read(self, index: int, out: np.ndarray) -> int | str:
        """Fills `out`, uint8 [S, S, 3], with image `index`; returns its side, or the reason when that is impossible.

        Raises UserError when the image cannot be read now: it may be good, so no other one may take its place.
        """
        if index not in self._reasons:
            try:
                if self.least:
                    return decode_at_own_size(self._data(index), self.canvas, self.least, out)
                decode(self._data(index), self.canvas, out)
                return self.canvas
            except BadImage as error:
                self._reasons[index] = str(error)
        return self._reasons[index]

    def _data(self, index: int) -> bytes | np.ndarray:
        try:
            return self.source[index].data
        except OSError:  # the name, which may have to be read, is for the message alone
            return patiently(
                lambda: self.source[index].data, f"{self.source.name(index)} cannot be read", self.stopped.wait
            )

    def beside(self, indices: np.ndarray, sides: np.ndarray) -> dict[str, np.ndarray]:
        """What a batch holds beside the images: their numbers, sides and labels, as far as they have them."""
        return {"index": indices.astype(np.int32)} | ({"side": sides} if self.least else {}) | self._labels(indices)

    def _labels(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {} if self.source.labels is None else {"label": self.source.labels[indices].astype(np.int32)}


class TrainBatch:
    """This process's rows of the batch of a step, for steps without end."""

    def __init__(self, reader: Reader, seed: int, batch_size: int, rows: slice):
        self.reader, self.seed, self.batch_size, self.rows = reader, seed, batch_size, rows

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, step: int) -> Decoded:
        wanted = global_batch(len(self.reader.source), self.seed, step, self.batch_size)[self.rows]
        images, used, sides = self.reader.buffers.take(), wanted.copy(), np.zeros(len(wanted), np.int32)
        bad: dict[int, str] = {}
        for row, index in enumerate(wanted):
            if self.reader.stopped.is_set():
                break
            used[row], sides[row] = self._read_next_readable(int(index), images[row], bad)
        return Decoded({"image": images} | self.reader.beside(used, sides), wanted, bad)

    def _read_next_readable(self, first: int, out: np.ndarray, bad: dict[int, str]) -> tuple[int, int]:
        """Fills `out` with image `first` or the next readable one of the listing, and returns which, and its side.

        Only the data decide.
        """
        count = len(self.reader.source)
        for further in range(count):
            index = (first + further) % count
            side = self.reader.read(index, out)
            if isinstance(side, int):
                return index, side
            bad[index] = side
        raise UserError(f"none of the {count} images can be read: {examples(self.reader.source, bad)}")


class EvalBatch:
    """Batch `number` of one pass over the source in order; the last one is padded.

    parts: the number of batches is a multiple of it, so that `joined` makes whole ones; the last may hold no image.
    """

    def __init__(self, reader: Reader, batch_size: int, parts: int = 1):
        self.reader, self.batch_size, self.parts = reader, batch_size, parts

    def __len__(self) -> int:
        return self.parts * -(-len(self.reader.source) // (self.parts * self.batch_size))

    def __getitem__(self, number: int) -> Decoded:
        first = number * self.batch_size
        rows = np.arange(first, min(first + self.batch_size, len(self.reader.source)))
        images, sides = self.reader.buffers.take(), np.ones(self.batch_size, np.int32)  # a side of 0 would divide by 0
        valid = np.zeros(self.batch_size, bool)
        bad: dict[int, str] = {}
        for row, index in enumerate(rows.tolist()):
            if self.reader.stopped.is_set():
                break
            side = self.reader.read(index, images[row])
            if isinstance(side, int):
                sides[row], valid[row] = side, True
            else:
                bad[index], images[row] = side, 0
        images[len(rows) :] = 0
        batch = self.reader.beside(rows, sides[: len(rows)])
        padded = {key: np.pad(value, (0, self.batch_size - len(rows))) for key, value in batch.items()}
        if self.reader.least:
            padded["side"] = sides
        return Decoded({"image": images, "valid": valid} | padded, rows, bad)


def joined(batches: Iterator[Decoded], parts: int, buffers: Buffers) -> Iterator[Decoded]:
    """Every `parts` batches as one, its images in memory of `buffers`."""
    while found := list(itertools.islice(batches, parts)):
        whole = {"image": np.concatenate([part.batch["image"] for part in found], out=buffers.take())}
        for key in found[0].batch.keys() - whole.keys():
            whole[key] = np.concatenate([part.batch[key] for part in found])
        bad = {index: reason for part in found for index, reason in part.bad.items()}
        yield Decoded(whole, np.concatenate([part.drawn for part in found]), bad)


def examples(source: Source, bad: dict[int, str]) -> str:
    """The first three bad images with their reasons, for a message."""
    return "; ".join(f"{source.name(index)} ({reason})" for index, reason in list(bad.items())[:3])
