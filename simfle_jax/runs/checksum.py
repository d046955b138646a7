"""A number that tells whether a training state is the one that was saved."""

import json
import math
from typing import Any

import jax
import numpy as np

from simfle_jax.runs.peers import gather_texts

_WEIGHTS = 2 * np.arange(1 << 15, dtype=np.uint32) + np.uint32(1)


def checksum(state: Any) -> int:
    """A number that changes with any bit of any array: the sum of all 32-bit words, weighted by position, mod 2**32.

    The same however the arrays are spread; all processes must call it. On the host, because a program of five hundred
    sums takes ten seconds to compile and runs once an epoch.
    """
    return survey(state)[0]


def survey(state: Any) -> tuple[int, str]:
    """The checksum, and the name of an array that holds a number that is not finite ('' if there is none).

    In one walk, because every part is copied from its device for it; all processes must call it.
    """
    mine, poisoned = 0, ""
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    for i, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(state)[0]):
        for part, index in _parts(leaf):
            mine += (2 * i + 1) * sum_of_words(part, index, leaf.shape)
            if not poisoned and part.dtype.kind == "f" and not np.isfinite(part).all():
                poisoned = jax.tree_util.keystr(path, simple=True, separator=".")
    found = [json.loads(text) for text in gather_texts(json.dumps([mine, poisoned]))]
    return sum(number for number, _ in found) % 2**32, next((name for _, name in found if name), "")


def _parts(leaf: Any) -> list[tuple[np.ndarray, tuple[slice, ...]]]:
    """What this process counts of an array, and where in it that is: each part counts once, whoever holds it."""
    if isinstance(leaf, np.ndarray):
        return [(leaf, ())]
    return [(np.asarray(shard.data), shard.index) for shard in leaf.addressable_shards if not shard.replica_id]


def sum_of_words(part: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    """The sum over a part of an array of this shape: every 32-bit word times (2 x its position + 1), mod 2**32.

    In blocks that stay in a cache: at once, a state of paper size would need 6 GB beside it.
    """
    if not part.size:
        return 0
    own = np.ascontiguousarray(part.reshape(part.shape or (1,))).view(np.uint32)
    whole = _in_words(shape, own.itemsize, part.itemsize)
    # Rows of words that follow each other in the whole array too: all axes from the last one that is cut.
    axis = max((a for a in range(own.ndim) if own.shape[a] != whole[a]), default=0)
    rows = own.reshape(math.prod(own.shape[:axis]), -1)
    start = (index[axis].start or 0) * own.shape[axis] // part.shape[axis] if part.shape and index else 0
    before = np.arange(math.prod(whole[:axis]), dtype=np.uint32).reshape(whole[:axis])[index[:axis]].reshape(-1, 1)
    starts = before * np.uint32(math.prod(whole[axis:]) % 2**32) + np.uint32(
        start * math.prod(whole[axis + 1 :]) % 2**32
    )
    total, height = 0, max(1, len(_WEIGHTS) // rows.shape[1])
    for top in range(0, len(rows), height):
        for left in range(0, rows.shape[1], len(_WEIGHTS)):
            block = rows[top : top + height, left : left + len(_WEIGHTS)]
            at = starts[top : top + height] + np.uint32(left % 2**32)
            moved = 2 * at * block.sum(1, dtype=np.uint32, keepdims=True)
            total += int((block * _WEIGHTS[: block.shape[1]]).sum(dtype=np.uint32)) + int(moved.sum(dtype=np.uint32))
    return total % 2**32


def _in_words(shape: tuple[int, ...], word: int, item: int) -> tuple[int, ...]:
    """The shape of an array of such items when it is viewed as words."""
    return (*shape[:-1], shape[-1] * item // word) if shape else (item // word,)
