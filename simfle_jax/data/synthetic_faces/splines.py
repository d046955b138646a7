"""Smooth curves through a few points."""

from functools import cache

import numpy as np


def smooth(points: np.ndarray, closed: bool = False, steps: int = 4) -> np.ndarray:
    """Catmull-Rom spline through points [n, 2], `steps` samples a segment."""
    return _weights(len(points), closed, steps) @ points


@cache
def _weights(count: int, closed: bool, steps: int) -> np.ndarray:
    """[samples, count]: each sample of the spline as a combination of the points."""
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    basis = 0.5 * np.concatenate(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], 1
    )
    segments = count if closed else count - 1
    weights = np.zeros((segments * steps + (not closed), count))
    for segment in range(segments):
        rows = slice(segment * steps, (segment + 1) * steps)
        for column, offset in enumerate((-1, 0, 1, 2)):
            index = segment + offset
            index = index % count if closed else min(max(index, 0), count - 1)
            weights[rows, index] += basis[:, column]
    if not closed:
        weights[-1, -1] = 1
    return weights
