"""Batches for training and evaluation, decoded ahead in threads by grain.

The order is a function of (seed, step) alone (`order.global_batch`); neither threads nor processes change it.
"""

import contextlib
import math
from collections.abc import Generator, Iterator

import grain
import numpy as np

from simfle_jax.data.buffers import Buffers
from simfle_jax.data.order import steps_per_epoch
from simfle_jax.data.reading import KEEP, Decoded, EvalBatch, Reader, TrainBatch, examples, joined
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError
from simfle_jax.host import cores

# Images of an evaluation that a thread decodes at a time. An accelerator's batch of 512 in one thread would leave the
# other cores idle at the beginning, at the end, and all the time where the data are a batch or two.
PART = 64
AT_ONCE = 256  # images of a batch of `load_labelled`
BATCHES_AHEAD = 2  # decoded batches that wait, besides the one that each thread works on


class TrainBatches:
    """Endless training batches of one process, from any step on.

    Each is a dict of `image` uint8 [b, S, S, 3], `index` int32 [b] (the image's number in the listing), with `least`
    `side` int32 [b], and, from a labelled source, `label` int32 [b], with b = batch_size / process_count. Process p holds the rows
    [p*b, (p+1)*b) of the global batch, as a sharding over the first axis wants them. Use it in a `with`, or
    close it.

    An unreadable image is replaced by the next readable one of the listing and noted in `bad` (name ->
    reason).

    Args:
        source: the images.
        seed: of the order.
        batch_size: images of the global batch.
        canvas: side S in pixels.
        least: 0: every image is resized to S; otherwise it lies in a corner of its square at its own size, as
            `decode_at_own_size` tells.
        start_step: the first step to give; takes no time to go to.
        process_index, process_count: which part of the global batch to give.
        threads: decoding threads; 0: one per core.
        max_bad_fraction: share of bad images that is tolerated; exceeded when more than that share of all images is
            known to be bad, and before that as soon as chance can no longer explain so many among those drawn so far.

    Raises:
        UserError: a batch larger than the data or not divisible among the processes; while iterating: no readable
            image at all, or too many bad ones.
    """

    def __init__(
        self,
        source: Source,
        *,
        seed: int,
        batch_size: int,
        canvas: int,
        least: int = 0,
        start_step: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 0,
        max_bad_fraction: float = 1.0,
    ):
        _check_batch(len(source), batch_size, process_count)
        local = batch_size // process_count
        rows = slice(process_index * local, (process_index + 1) * local)
        self.steps_per_epoch = steps_per_epoch(len(source), batch_size)
        self.step = start_step
        self.bad: dict[str, str] = {}
        self._bad: dict[int, str] = {}
        self._drawn = np.zeros(len(source), bool)
        self._max_bad_fraction = max_bad_fraction
        self._reader = Reader(source, canvas, local, least)
        self._iterator = _prefetched(TrainBatch(self._reader, seed, batch_size, rows), threads)
        self._iterator.set_state({"next_index": start_step})

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        decoded = next(self._iterator)
        # Counted here and not in the threads: how far they have read ahead must not decide when a run stops.
        self._count(decoded)
        self.step += 1
        return decoded.batch

    def _count(self, decoded: Decoded) -> None:
        self._drawn[decoded.drawn] = True
        self._bad |= decoded.bad
        self.bad |= {self._reader.source.name(index): reason for index, reason in decoded.bad.items()}
        if not self._bad:
            return
        source, limit = self._reader.source, self._max_bad_fraction
        _check_bad(source, self._bad, len(self._bad), len(source), limit)
        # Only images that the order drew are a sample of all. Those tried in place of a bad one are not: damage often
        # comes in a row.
        bad, seen = int(self._drawn[list(self._bad)].sum()), int(self._drawn.sum())
        if bad > _plausible(limit, seen):
            _check_bad(source, self._bad, bad, seen, limit)

    def close(self) -> None:
        """Stops the threads; what they were decoding is thrown away."""
        self._reader.stopped.set()
        self._iterator.close()

    def __enter__(self) -> "TrainBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    canvas: int,
    least: int = 0,
    threads: int = 0,
    max_bad_fraction: float = 1.0,
    bad: dict[str, str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Every image once, in the order of the listing, in batches of one shape.

    Yields dicts as `TrainBatches` does, and in them `valid`, bool [b]: False on unreadable images (black) and
    on the rows that fill up the last batch (black, index and label 0). `bad` collects name -> reason of the
    unreadable.

    Raises:
        UserError: at the end, when no image or too few of them could be read.
    """
    found: dict[int, str] = {}
    with contextlib.closing(decoded_in_order(source, batch_size, canvas, threads, least)) as batches:
        for decoded in batches:
            found |= decoded.bad
            if bad is not None:
                bad |= {source.name(index): reason for index, reason in decoded.bad.items()}
            yield decoded.batch
    if len(found) == len(source):
        raise UserError(f"none of the {len(source)} images can be read: {examples(source, found)}")
    _check_bad(source, found, len(found), len(source), max_bad_fraction)


def load_labelled(
    source: Source, *, canvas: int, threads: int = 0, max_bad_fraction: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """All readable images of a labelled source in memory, uint8 [n, canvas, canvas, 3], and their labels int32 [n].

    Raises:
        UserError: as `eval_batches` does.
    """
    batches = list(eval_batches(source, batch_size=min(AT_ONCE, len(source)), canvas=canvas, threads=threads,
                                max_bad_fraction=max_bad_fraction))  # fmt: skip
    images, labels, valid = (np.concatenate([batch[key] for batch in batches]) for key in ("image", "label", "valid"))
    return images[valid], labels[valid]


def decoded_in_order(
    source: Source, batch_size: int, canvas: int, threads: int, least: int = 0
) -> Generator[Decoded, None, None]:
    """The batches of one pass with the indices of their bad images; closing the generator stops the threads."""
    parts = 1 if batch_size % PART else batch_size // PART
    reader = Reader(source, canvas, batch_size // parts, least)
    iterator = _prefetched(EvalBatch(reader, batch_size // parts, parts), threads)
    try:
        yield from (iterator if parts == 1 else joined(iterator, parts, Buffers((batch_size, canvas, canvas, 3), KEEP)))
    finally:
        reader.stopped.set()
        iterator.close()


def _prefetched(batches: TrainBatch | EvalBatch, threads: int) -> grain.DatasetIterator:
    threads = threads or cores()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + BATCHES_AHEAD)
    return iter(grain.MapDataset.source(batches).to_iter_dataset(options))


def _check_batch(count: int, batch_size: int, process_count: int) -> None:
    if batch_size > count:
        raise UserError(f"batch_size={batch_size} is larger than the data, {count} images: give a smaller one")
    if batch_size % process_count:
        raise UserError(f"batch_size={batch_size} cannot be divided among {process_count} processes")


def _plausible(share: float, seen: int) -> float:
    """How many bad images among those seen so far still fit a data set with just that share of them.

    Four standard deviations above the mean: a few bad ones among the first images are no reason to stop.
    """
    mean = share * seen
    return mean + 4 * math.sqrt(mean * (1 - share)) + 3 if share else 0


def _check_bad(source: Source, bad: dict[int, str], number: int, seen: int, max_bad_fraction: float) -> None:
    """Raises UserError, with the first of all that are `bad`, if `number` of `seen` images are too many."""
    if number > max_bad_fraction * seen:
        raise UserError(
            f"{number} of {seen} images cannot be read, more than "
            f"data.max_bad_fraction={max_bad_fraction:g}: {examples(source, bad)}; "
            "mend them, or raise the limit, or remove them, for another --workdir where this one has checkpoints already"
        )
