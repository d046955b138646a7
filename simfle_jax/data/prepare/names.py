"""File names of which no two are the same."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from itertools import count


def distinct(wanted: Sequence[tuple[Hashable, str]], endings: Sequence[str]) -> list[str]:
    """A name for every (folder, wanted name), each once in its folder; the first to want a name gets it.

    The others put their own ending (`x.bmp` that becomes a PNG is `x_bmp.png`) or a number (`x_2.png`) after the
    stem. No name that anybody wants is given to somebody else.
    """
    free, taken = set(wanted), set[tuple[Hashable, str]]()
    return [_take(folder, name, ending, free, taken) for (folder, name), ending in zip(wanted, endings)]


def _take(folder: Hashable, name: str, ending: str, free: set, taken: set) -> str:
    if (folder, name) in free:
        free.discard((folder, name))
        taken.add((folder, name))
        return name
    chosen = next(c for c in _variants(name, ending) if (folder, c) not in free and (folder, c) not in taken)
    taken.add((folder, chosen))
    return chosen


def _variants(name: str, ending: str) -> Iterator[str]:
    stem, suffix = os.path.splitext(name)
    if ending and ending != suffix:
        yield f"{stem}_{ending.lstrip('.')}{suffix}"
    yield from (f"{stem}_{number}{suffix}" for number in count(2))
