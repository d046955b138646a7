"""Images that are there more than once: the same bytes, or the same picture re-encoded, resized or mirrored.

Near copies are proposed by a 64-bit perceptual hash and confirmed on 16 x 16 thumbnails. Pairs are found without
comparing all with all: two hashes that differ in at most four bits agree in at least two of six blocks, so it
suffices to sort by each of the fifteen pairs of blocks and to compare neighbours.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

BLOCKS = np.array_split(np.arange(64), 6)
MAX_BITS = 4  # by which near copies may differ: more would need more blocks
MIN_CORRELATION = 0.99  # of thumbnails; frames of one video reach .98
NEIGHBOURS = 64  # with which an image is compared in each order: bounds the work where many hashes agree
AT_ONCE = 8192  # images or pairs whose thumbnails are worked on as float32


def exact_groups(digests: list[bytes]) -> list[list[int]]:
    """Positions that share a digest, of every digest that occurs more than once."""
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, digest in enumerate(digests):
        places[digest].append(place)
    return [group for group in places.values() if len(group) > 1]


def near_groups(thumbnails: np.ndarray) -> list[list[int]]:
    """Groups of positions whose pictures are near copies. thumbnails: uint8 [n, 16, 16]."""
    pairs = candidates(perceptual_hash(thumbnails))
    parts = [pairs[start : start + AT_ONCE] for start in range(0, len(pairs), AT_ONCE)]
    return joined(tuple(pair) for part in parts for pair in part[_alike(*thumbnails[part.T])].tolist())


def mirrored_groups(thumbnails: np.ndarray) -> list[list[int]]:
    """Groups of positions of which one is a near copy of another's mirror image, and not of itself."""
    count, both = len(thumbnails), np.concatenate([thumbnails, thumbnails[:, :, ::-1]])
    pairs = candidates(perceptual_hash(both))
    pairs = pairs[(pairs[:, 0] < count) & (pairs[:, 1] >= count) & (pairs[:, 0] < pairs[:, 1] - count)]
    parts = [pairs[start : start + AT_ONCE] for start in range(0, len(pairs), AT_ONCE)]
    found = [(one, other - count) for part in parts for one, other in part[_alike(*both[part.T])].tolist()]
    # A picture that is its own mirror image is a near copy already.
    return joined(pair for pair in found if not _alike(*thumbnails[list(pair)][:, None])[0])


def perceptual_hash(thumbnails: np.ndarray) -> np.ndarray:
    """uint64 [n] of uint8 [n, 16, 16]: which of the 64 lowest frequencies lie above their median (Zauner 2010)."""
    parts = [_hash(thumbnails[start : start + AT_ONCE]) for start in range(0, len(thumbnails), AT_ONCE)]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def candidates(hashes: np.ndarray) -> np.ndarray:
    """Pairs i < j of hashes (uint64 [n]) that differ in at most MAX_BITS bits, sorted: int64 [m, 2]."""
    found = np.empty(0, np.int64)
    for one, other in itertools.combinations(BLOCKS, 2):
        mask = np.bitwise_or.reduce(np.uint64(1) << np.concatenate([one, other]).astype(np.uint64))
        found = np.unique(np.concatenate([found, *_neighbouring_pairs(hashes, hashes & mask)]))
    return np.stack(np.divmod(found, max(len(hashes), 1)), axis=1)


def joined(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The groups that the pairs connect, each sorted."""
    parent: dict[int, int] = {}

    def root(place: int) -> int:
        while parent.setdefault(place, place) != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for one, other in pairs:
        parent[root(one)] = root(other)
    groups: dict[int, list[int]] = defaultdict(list)
    for place in sorted(parent):
        groups[root(place)].append(place)
    return list(groups.values())


def _neighbouring_pairs(hashes: np.ndarray, keys: np.ndarray) -> Iterator[np.ndarray]:
    """The pairs i < j whose keys agree, as i * n + j: an array is a tenth of the same pairs as Python tuples."""
    order = np.lexsort((hashes, keys))
    keys, hashes = keys[order], hashes[order]
    for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
        same = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(same):
            return
        near = same[np.bitwise_count(hashes[same] ^ hashes[same + step]) <= MAX_BITS]
        ends = np.sort(np.stack([order[near], order[near + step]]), axis=0)
        yield ends[0] * len(order) + ends[1]


def _hash(thumbnails: np.ndarray) -> np.ndarray:
    side = thumbnails.shape[-1]
    waves = np.cos(np.pi / side * np.outer(np.arange(8), np.arange(side) + 0.5)).astype(np.float32)  # DCT-II
    frequencies = (waves @ thumbnails.astype(np.float32) @ waves.T).reshape(-1, 64)
    frequencies[:, 0] = 0.0  # the brightness says nothing about the picture
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return (bits.astype(np.uint64) << np.arange(64, dtype=np.uint64)).sum(1, dtype=np.uint64)


def _alike(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool [n]: whether the thumbnails of each pair, uint8 [n, 16, 16], correlate."""
    return (_normalised(ones) * _normalised(others)).sum(1) >= MIN_CORRELATION


def _normalised(thumbnails: np.ndarray) -> np.ndarray:
    """float32 [n, 256] of mean 0 and length 1, so that a product of two is their correlation; flat images are 0."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length > 0, length, 1)
