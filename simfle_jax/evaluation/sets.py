"""The labelled sets of a probe: what it learns from, chooses its epoch on, and reports on."""

import os
from typing import NamedTuple

import numpy as np

from simfle_jax.data.classes import numbering, with_classes
from simfle_jax.data.opening import open_source
from simfle_jax.data.sources import Record, Source
from simfle_jax.errors import UserError
from simfle_jax.evaluation.linear import holdout_rows
from simfle_jax.evaluation.settings import DATASETS, Probe
from simfle_jax.storage import is_bucket


class Subset:
    """The records of a source at the given rows, as a source of its own."""

    def __init__(self, source: Source, rows: np.ndarray):
        self.source, self.rows = source, rows
        self.classes = source.classes
        self.labels = None if source.labels is None else source.labels[rows]

    @property
    def fingerprint(self) -> str:
        """That of the whole source."""
        return self.source.fingerprint

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.rows[index])]

    def name(self, index: int) -> str:
        return self.source.name(int(self.rows[index]))


class Sets(NamedTuple):
    """The sources of one probe."""

    train: Source
    apart: dict[str, Source]  # all that is not trained on, by name; the first one chooses the epoch
    classes: tuple[str, ...]
    fingerprints: dict[str, str]


def open_sets(probe: Probe) -> Sets:
    """Opens and checks all sets of a probe that is to be trained; raises UserError."""
    train = open_source(probe.data.source, probe.data.path, labelled=True, split="train")
    assert train.labels is not None and train.classes is not None
    numbering(train.classes, "train")
    check_dataset(probe.dataset, train.classes)
    apart = open_val(probe, train.classes)
    fingerprints = {name: source.fingerprint for name, source in {"train": train, **apart}.items()}
    if probe.select_on == "train-holdout":
        kept_apart = holdout_rows(train.labels, probe.holdout, probe.seed)
        apart = {"train-holdout": Subset(train, np.flatnonzero(kept_apart)), **apart}
        train = Subset(train, np.flatnonzero(~kept_apart))
    return Sets(train, apart, train.classes or (), fingerprints)


def open_val(probe: Probe, classes: tuple[str, ...]) -> dict[str, Source]:
    """`val` and the sets of `data.val` by name, each with these classes, numbered in this order; raises UserError."""
    sets = {"val": open_source(probe.data.source, probe.data.path, labelled=True, split="val")}
    for name in probe.data.val:
        is_folder = is_bucket(name) or os.path.isdir(name)
        path, split = (name, None) if is_folder else (probe.data.path, name)
        kind = "folder" if is_folder else probe.data.source
        try:
            sets[name] = open_source(kind, path, labelled=True, split=split)
        except UserError as error:
            raise UserError(f"data.val: {name!r}: {error}") from None
    return {name: with_classes(source, classes, name) for name, source in sets.items()}


def check_dataset(dataset: str, classes: tuple[str, ...]) -> None:
    """Raises UserError unless the class folders are as many as the data set has classes."""
    if dataset and len(classes) != DATASETS[dataset]:
        found = ", ".join(classes)
        raise UserError(f"{dataset} has {DATASETS[dataset]} classes, but train holds {len(classes)} folders: {found}")
