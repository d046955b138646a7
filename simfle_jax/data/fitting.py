"""The side of the canvas that fits a data set: as large as nearly all of its images need, and no larger."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simfle_jax.data.decode import read_header, reduction
from simfle_jax.data.files import BadImage, patiently
from simfle_jax.data.listing import THREADS
from simfle_jax.data.sources import Source

SAMPLE = 512  # images whose headers are looked at
SHARE = 0.95  # of them fit as they are; one huge image must not make all others travel in squares of its size
SMALLEST = 8  # pixels, as for a canvas that is given


def fitting_canvas(source: Source, largest: int, least: int) -> int:
    """The side, SMALLEST to `largest`, that 95 % of the images need to travel at their own size.

    It is found from the headers of a sample that the number of images decides alone, so that every process and every
    kind of source of the same images finds the same. What is larger is reduced, as `decode_at_own_size` tells.

    Args:
        source: the images; unreadable ones count for nothing, and where all are, the side is `largest`.
        largest: no canvas is larger; an image above that is reduced.
        least: pixels that a reduced image keeps.

    Raises:
        UserError: an image cannot be read now.
    """
    count = len(source)
    sample = np.random.default_rng(0).choice(count, min(count, SAMPLE), replace=False)
    with ThreadPoolExecutor(THREADS) as pool:
        shorter = np.array(list(pool.map(lambda index: _shorter_side(source, int(index)), sample)))
    needed = [
        min(largest, -(-side // (reduction(side, largest, least) or 1))) for side in shorter[shorter > 0].tolist()
    ]
    if not needed:
        return largest
    return max(SMALLEST, int(np.quantile(needed, SHARE, method="higher")))


def _shorter_side(source: Source, index: int) -> int:
    """In pixels; 0: the image cannot be used."""
    try:
        data = patiently(lambda: source[index].data, f"{source.name(index)} cannot be read")
        return min(data.shape[:2] if isinstance(data, np.ndarray) else read_header(data).size)
    except BadImage:
        return 0
