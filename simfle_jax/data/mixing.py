"""Several data sets mixed in given shares, for pre-training."""

import math
import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from simfle_jax.data.opening import open_source
from simfle_jax.data.sources import Record, Source, fingerprint
from simfle_jax.errors import UserError

FORM = "SOURCE@PATH=WEIGHT, as in folder@/data/faces=2 or tfds:celeb_a:train@/data/tfds=1"


class Part(NamedTuple):
    source: Source
    weight: float


class MixedSource:
    """A listing in which every part has its share, so that every epoch has it to within one image.

    The listing is as long as it must be to hold every image of every part: in that epoch the part which is
    largest for its weight is seen once, the others over and over. Names carry the number of their part,
    `1:dir/image.jpg`. There are no labels, because the parts need not have the same classes.
    """

    classes: tuple[str, ...] | None = None
    labels: np.ndarray | None = None

    def __init__(self, parts: list[Part]):
        total = sum(part.weight for part in parts)
        shares = [part.weight / total for part in parts]
        length = max(len(part.source) / share for part, share in zip(parts, shares))
        # The tolerance keeps 3 / 0.1 from becoming 31; no part may lose an image by rounding.
        counts = [max(len(p.source), math.ceil(share * length - 1e-6)) for p, share in zip(parts, shares)]
        self._parts = [part.source for part in parts]
        self._starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        number, position = self._find(index)
        return f"{number}:{self._parts[number].name(position)}"

    def __getitem__(self, index: int) -> Record:
        number, position = self._find(index)
        name, data, _ = self._parts[number][position]
        return Record(f"{number}:{name}", data, None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of the parts and the number of their places in the listing."""
        return self._fingerprint_of(part.fingerprint for part in self._parts)

    @property
    def quick_fingerprint(self) -> str:
        """The same over the quick ones of those parts that have one; see `FolderSource`."""
        quick = (getattr(part, "quick_fingerprint", None) or part.fingerprint for part in self._parts)
        return self._fingerprint_of(quick)

    def _fingerprint_of(self, parts: Iterable[str]) -> str:
        counts = np.diff(self._starts).tolist()
        # Before, the images left over a whole number of rounds were the first ones of their part.
        spread = any(count % len(part) for count, part in zip(counts, self._parts))
        return fingerprint([*zip(parts, counts), *([("spread", 1)] if spread else [])])

    def _find(self, index: int) -> tuple[int, int]:
        """The part of a place, and which of its images: all of them so many times, then some from all over its listing."""
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        position, length = int(index - self._starts[number]), len(self._parts[number])
        rounds, further = divmod(int(self._starts[number + 1] - self._starts[number]), length)
        surplus = position - rounds * length
        return number, position % length if surplus < 0 else surplus * length // further


def open_mixed(entries: tuple[str, ...]) -> MixedSource:
    """Opens the parts that `data.sources` names, each as SOURCE@PATH=WEIGHT.

    Raises:
        UserError: an entry of another form, a weight that is not positive, or what `open_source` raises.
    """
    return MixedSource([_open_part(entry) for entry in entries])


def taken_apart(entry: str) -> tuple[str, str, float]:
    """Source, path and weight of an entry; raises UserError where it has another form."""
    source, at, rest = entry.partition("@")
    path, equals, weight = rest.rpartition("=")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not (at and equals and 0 < number < math.inf):
        raise UserError(f"data.sources: {entry!r} is not of the form {FORM}, with a positive weight")
    return source, os.path.expanduser(path), number


def _open_part(entry: str) -> Part:
    source, path, weight = taken_apart(entry)
    try:
        return Part(open_source(source, path), weight)
    except UserError as error:
        raise UserError(f"data.sources: {entry!r}: {error}") from None
