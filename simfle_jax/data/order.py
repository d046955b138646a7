"""Which images a training step sees: a function of (seed, step) alone.

So a run continues at any step without replaying the ones before, and any number of processes agrees on the
batch.
"""

import functools

import numpy as np


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in `count` images; those left over at the end are other ones in every epoch."""
    return count // batch_size


def global_batch(count: int, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Indices, int64 [batch_size], of a step's images: epoch e walks a permutation drawn from (seed, e)."""
    epoch, number = divmod(step, steps_per_epoch(count, batch_size))
    return _permutation(count, seed, epoch)[number * batch_size : (number + 1) * batch_size]


@functools.lru_cache(maxsize=4)  # threads work around the end of an epoch on both sides of it
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng((seed, epoch)).permutation(count)
    order.flags.writeable = False
    return order
