"""From a source to batches: which images a step sees, decoded in threads, the unreadable ones replaced.

The order is a function of (seed, step) and nothing else, so a run continues at any step without replaying, and any
number of processes sees the same global batch.
"""

import functools
import threading
from collections.abc import Iterator
from typing import NamedTuple

import grain
import numpy as np

from simfle_jax.data.decode import BadImage, decode
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError

BATCHES_AHEAD = 2  # finished batches that wait for the device, besides the one that each thread works on
ENOUGH_TO_JUDGE = 50  # images seen before a share of unreadable ones means anything
ENDLESS = 2**62


class _Decoded(NamedTuple):
    """A batch, with what it cost: the indices tried for it and the reasons of those that could not be read."""

    batch: dict[str, np.ndarray]
    tried: np.ndarray
    bad: dict[int, str]


class Reader:
    """Reads and decodes images of a source into batches, and remembers across threads which ones are bad."""

    def __init__(self, source: Source, canvas: int):
        self.source, self.canvas = source, canvas
        self.stopped = threading.Event()
        self._reasons: dict[int, str] = {}

    def read(self, index: int, out: np.ndarray) -> str | None:
        """Fills `out`, uint8 [S, S, 3], with image `index`; returns why it could not, or None."""
        if index in self._reasons:
            return self._reasons[index]
        try:
            decode(self.source[index].data, self.canvas, out)
            return None
        except BadImage as error:
            reason = str(error)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
        self._reasons[index] = reason
        return reason

    def empty_batch(self, rows: int) -> np.ndarray:
        return np.empty((rows, self.canvas, self.canvas, 3), np.uint8)


class _TrainSource:
    """Batch number `step` of the endless training order, as a random-access source for grain."""

    def __init__(self, reader: Reader, seed: int, batch_size: int, rows: slice):
        self.reader, self.seed, self.batch_size, self.rows = reader, seed, batch_size, rows
        self.count = len(reader.source)
        self.steps_per_epoch = self.count // batch_size

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, step: int) -> _Decoded:
        wanted = global_batch(self.count, self.seed, step, self.batch_size)[self.rows]
        images, used = self.reader.empty_batch(len(wanted)), wanted.copy()
        tried, bad = [wanted], {}
        for row, index in enumerate(wanted):
            if self.reader.stopped.is_set():
                break
            used[row], failed = self._read_next_readable(int(index), images[row])
            bad.update(failed)
            tried.append(np.fromiter(failed, np.int64))
        batch = {"image": images, "index": used.astype(np.int32)}
        if self.reader.source.labels is not None:
            batch["label"] = self.reader.source.labels[used].astype(np.int32)
        return _Decoded(batch, np.concatenate([*tried, used]), bad)

    def _read_next_readable(self, first: int, out: np.ndarray) -> tuple[int, dict[int, str]]:
        """Reads image `first` or, while unreadable, the next one of the listing: a choice that only the data make."""
        bad: dict[int, str] = {}
        for index in _cyclic(first, self.count):
            reason = self.reader.read(index, out)
            if reason is None:
                return index, bad
            bad[index] = reason
        raise UserError(f"none of the {self.count} images can be read: {_examples(self.reader.source, bad)}")


def _cyclic(first: int, count: int) -> Iterator[int]:
    return ((first + step) % count for step in range(count))


@functools.lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def global_batch(count: int, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Indices, int64 [batch_size], of the images of step `step`: epoch e walks a permutation drawn from (seed, e).

    An epoch has `count // batch_size` steps; the images left over at its end are other ones in every epoch.
    """
    epoch, number = divmod(step, count // batch_size)
    return _epoch_order(count, seed, epoch)[number * batch_size : (number + 1) * batch_size]


class TrainBatches:
    """Endless training batches of one process, from any step on.

    Each is a dict of `image` uint8 [b, S, S, 3], `index` int32 [b] (the image's number in the listing) and, for a
    labelled source, `label` int32 [b], with b = batch_size / process_count. Process p holds rows [p*b, (p+1)*b) of the
    global batch, as a sharding over the first axis wants them.

    An unreadable image is replaced by the next readable one of the listing and noted once in `bad` (name -> reason).

    Raises:
        UserError: a batch larger than the data or not divisible by the processes; when iterated: no readable image, or
            more than `max_bad_fraction` of the distinct images seen so far unreadable.
    """

    def __init__(
        self,
        source: Source,
        *,
        seed: int,
        batch_size: int,
        canvas: int,
        start_step: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 2,
        max_bad_fraction: float = 1.0,
    ):
        _check_batch(len(source), batch_size, process_count)
        local = batch_size // process_count
        rows = slice(process_index * local, (process_index + 1) * local)
        self._reader = Reader(source, canvas)
        self._batches = _TrainSource(self._reader, seed, batch_size, rows)
        self.steps_per_epoch = self._batches.steps_per_epoch
        self.step = start_step
        self.bad: dict[str, str] = {}
        self._seen = np.zeros(len(source), bool)
        self._max_bad_fraction = max_bad_fraction
        self._iterator = _prefetched(self._batches, threads)
        self._iterator.set_state({"next_index": start_step})

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        decoded = next(self._iterator)
        self._account(decoded)
        self.step += 1
        return decoded.batch

    def _account(self, decoded: _Decoded) -> None:
        # Here, not in the threads, so that what is counted does not depend on how far they have read ahead.
        source = self._reader.source
        self._seen[decoded.tried] = True
        self.bad.update({source.name(index): reason for index, reason in decoded.bad.items()})
        epoch_ends = (self.step + 1) % self.steps_per_epoch == 0
        seen = int(self._seen.sum()) if self.bad else 0
        if self.bad and (seen >= ENOUGH_TO_JUDGE or epoch_ends) and len(self.bad) > self._max_bad_fraction * seen:
            self.close()
            raise UserError(
                f"{len(self.bad)} of {seen} images cannot be read, more than data.max_bad_fraction="
                f"{self._max_bad_fraction:g}: {_examples_of(self.bad)}; mend them or raise the limit"
            )

    def close(self) -> None:
        """Stops the threads; what they were decoding is thrown away."""
        self._reader.stopped.set()
        self._iterator.close()

    def __enter__(self) -> "TrainBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _EvalSource:
    """Batch `number` of one pass in order, the last one padded."""

    def __init__(self, reader: Reader, batch_size: int):
        self.reader, self.batch_size = reader, batch_size
        self.count = len(reader.source)

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __getitem__(self, number: int) -> _Decoded:
        first = number * self.batch_size
        wanted = np.arange(first, min(first + self.batch_size, self.count))
        images, bad = np.zeros((self.batch_size, *[self.reader.canvas] * 2, 3), np.uint8), {}
        valid = np.zeros(self.batch_size, bool)
        for row, index in enumerate(wanted):
            if self.reader.stopped.is_set():
                break
            reason = self.reader.read(int(index), images[row])
            valid[row] = reason is None
            if reason is not None:
                bad[int(index)] = reason
                images[row] = 0
        batch = {"image": images, "index": _padded(wanted, self.batch_size), "valid": valid}
        if self.reader.source.labels is not None:
            batch["label"] = _padded(self.reader.source.labels[wanted], self.batch_size)
        return _Decoded(batch, wanted, bad)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    canvas: int,
    threads: int = 2,
    max_bad_fraction: float = 1.0,
    bad: dict[str, str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Every image once, in the order of the listing, in batches of one shape.

    Yields dicts as `TrainBatches` does, with `valid` bool [b] besides: False on the rows that pad the last batch and on
    unreadable images (black). Index and label of padding are 0. `bad` collects name -> reason of the unreadable ones.

    Raises:
        UserError: none of the images can be read, or more than `max_bad_fraction` of them cannot.
    """
    reader, bad = Reader(source, canvas), {} if bad is None else bad
    iterator, found = _prefetched(_EvalSource(reader, batch_size), threads), 0
    try:
        for decoded in iterator:
            found += len(decoded.bad)
            bad.update({source.name(index): reason for index, reason in decoded.bad.items()})
            yield decoded.batch
    finally:
        reader.stopped.set()
        iterator.close()
    if found == len(source) or found > max_bad_fraction * len(source):
        raise UserError(
            f"{found} of {len(source)} images cannot be read (data.max_bad_fraction={max_bad_fraction:g}): "
            f"{_examples_of(bad)}"
        )


def _prefetched(source: _TrainSource | _EvalSource, threads: int) -> grain.DatasetIterator:
    # One element is a whole batch, so that grain's cost per element is paid once a batch; decoders release the GIL.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + BATCHES_AHEAD if threads else 0)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))


def _check_batch(count: int, batch_size: int, process_count: int) -> None:
    if batch_size > count:
        raise UserError(f"batch_size={batch_size} is larger than the data, {count} images: give a smaller batch_size")
    if batch_size % process_count:
        raise UserError(f"batch_size={batch_size} cannot be divided among {process_count} processes")


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.pad(values, (0, length - len(values))).astype(np.int32)


def _examples(source: Source, bad: dict[int, str]) -> str:
    return _examples_of({source.name(index): reason for index, reason in list(bad.items())[:3]})


def _examples_of(bad: dict[str, str]) -> str:
    return "; ".join(f"{name} ({reason})" for name, reason in list(bad.items())[:3])
