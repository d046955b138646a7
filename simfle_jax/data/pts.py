"""The .pts files of 300-W: the points of one face as text.

They count the first pixel's centre as (1, 1); here (0, 0) is its outer corner, so half a pixel is taken off.
"""

import re
from pathlib import Path

import numpy as np

ENDING = ".pts"
HALF = 0.5


class NotPoints(ValueError):
    """The file is not whole, or has another number of points; the message says what was found."""


def read_pts(path: Path, count: int | None = None) -> np.ndarray:
    """The points [P, 2] of one file, `count` of them where that is given; raises NotPoints."""
    head, brace, body = path.read_text(errors="replace").partition("{")
    told = re.search(r"n_points:\s*(\d+)", head)
    cells = body.partition("}")[0].split()
    if not brace or not told or len(cells) != 2 * int(told[1]):
        promised = f"{told[1]} points told" if told else "no n_points"
        raise NotPoints(f"no whole {ENDING} file: {promised}, {len(cells)} numbers found")
    if count not in (None, len(cells) // 2):
        raise NotPoints(f"{len(cells) // 2} points, expected {count}")
    try:
        return np.array([float(cell) for cell in cells], np.float32).reshape(-1, 2) - np.float32(HALF)
    except ValueError as error:
        raise NotPoints(str(error)) from None
