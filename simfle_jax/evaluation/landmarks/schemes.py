"""The two usual schemes of facial landmarks: which point is which, and which becomes which in a mirrored image."""

from typing import Any, NamedTuple

import numpy as np

from simfle_jax.errors import UserError
from simfle_jax.evaluation.looking import PARTS


class Scheme(NamedTuple):
    """One order of points. 'Left' is the left side of an image."""

    mirrored: np.ndarray  # [P]: point p of a mirrored image is point mirrored[p] of the image, with another x
    eyes: tuple[int, int]  # outer corners, left and right
    chin: int
    parts: dict[str, np.ndarray]  # numbers of the points of each part of the face


# Runs (first, last, length): point first + i and point last - i are each other's mirror.
RUNS = {
    68: ((0, 16, 9), (17, 26, 5), (31, 35, 3), (36, 45, 4), (40, 47, 2), (48, 54, 4), (55, 59, 3), (60, 64, 3),
         (65, 67, 2)),
    98: ((0, 32, 17), (33, 46, 5), (38, 50, 4), (55, 59, 3), (60, 72, 5), (65, 75, 3), (76, 82, 4), (83, 87, 3),
         (88, 92, 3), (93, 95, 2), (96, 97, 1)),
}  # fmt: skip
PARTS_98 = {"jaw": range(33), "brows": range(33, 51), "nose": range(51, 60), "eyes": (*range(60, 76), 96, 97),
            "mouth": range(76, 96)}  # fmt: skip


def scheme_of(count: int, where: str) -> Scheme:
    """The scheme with so many points: 68 (300-W, Multi-PIE) or 98 (WFLW).

    Raises:
        UserError: another count; `where` names the file.
    """
    if count not in RUNS:
        raise UserError(
            f"{where} has {count} points of an image; known are 68 (300-W) and 98 (WFLW): give one of these"
        )
    mirrored = np.arange(count)
    for first, last, length in RUNS[count]:
        for i in range(length):
            mirrored[first + i], mirrored[last - i] = last - i, first + i
    if count == 68:
        return Scheme(mirrored, (36, 45), 8, {name: np.arange(68)[rows] for name, rows in PARTS.items()})
    return Scheme(mirrored, (60, 72), 16, {name: np.array(rows) for name, rows in PARTS_98.items()})


def flipped(points: Any, scheme: Scheme) -> Any:
    """The points [..., P, 2] of the mirrored image, in shares of its side: x changes sides, left and right their names.

    An array of NumPy or of JAX, as `points` is.
    """
    return points[..., scheme.mirrored, :] * np.array([-1, 1], points.dtype) + np.array([1, 0], points.dtype)
