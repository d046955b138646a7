"""The labelled sets of a probe: what it learns from, chooses its epoch on, and reports on."""

import hashlib
import os
from typing import NamedTuple

import numpy as np
from absl import logging

from simfle_jax.data.classes import class_key, numbering, with_classes
from simfle_jax.data.opening import crop_told, open_source
from simfle_jax.data.prepare.folder import class_name
from simfle_jax.data.sources import Record, Source
from simfle_jax.errors import UserError
from simfle_jax.evaluation.image_table import read_votes
from simfle_jax.evaluation.linear import holdout_rows
from simfle_jax.evaluation.settings import DATASETS, Probe
from simfle_jax.runs.at_hand import content
from simfle_jax.storage import Bucket, is_bucket

REMEDY = "make them equal, or give --config.data.classes=shared, which counts those that both have"


class Subset:
    """The records of a source at the given rows, as a source of its own."""

    def __init__(self, source: Source, rows: np.ndarray):
        self.source, self.rows = source, rows
        self.classes = source.classes
        self.labels = None if source.labels is None else source.labels[rows]

    @property
    def fingerprint(self) -> str:
        """Of the whole source and, where it is a part of it, of which one."""
        part = hashlib.sha256(self.rows.tobytes()).hexdigest()[:16]
        return f"{self.source.fingerprint}/{part}"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.rows[index])]

    def name(self, index: int) -> str:
        return self.source.name(int(self.rows[index]))


class SharedClasses(Subset):
    """The images of a source whose class is one of `classes`, numbered as there.

    Names that mean the same (`happy`, `happiness`) are the same. `mapping` names the classes that the source lacks,
    and counts the images of those that it has besides.
    """

    def __init__(self, source: Source, classes: tuple[str, ...], where: str):
        assert source.labels is not None and source.classes is not None
        known = {class_key(class_name(name)): number for number, name in enumerate(classes)}
        numbers = np.array([known.get(class_key(class_name(name)), -1) for name in source.classes], np.int32)
        found = set(numbers[numbers >= 0].tolist())
        if len(found) < 2:
            raise UserError(
                f"{where} shares {len(found)} of the classes {', '.join(classes)} with train: it has "
                f"{', '.join(source.classes)}; call its folders as those of train"
            )
        super().__init__(source, np.flatnonzero(numbers[source.labels] >= 0))
        self.classes, self.labels = classes, numbers[source.labels[self.rows]]
        besides = {
            name: int((source.labels == own).sum()) for own, name in enumerate(source.classes) if numbers[own] < 0
        }
        self.mapping = {"missing": [name for i, name in enumerate(classes) if i not in found], "left_out": besides}
        if self.mapping["missing"] or besides:
            told = ", ".join(f"{name} ({count} images)" for name, count in besides.items()) or "none"
            logging.warning("%s lacks the classes %s and has besides, left out: %s", where,
                            ", ".join(self.mapping["missing"]) or "none", told)  # fmt: skip

    def __getitem__(self, index: int) -> Record:
        assert self.labels is not None
        return super().__getitem__(index)._replace(label=int(self.labels[index]))


class Sets(NamedTuple):
    """The sources of one probe."""

    train: Source
    apart: dict[str, Source]  # all that is not trained on, by name; the first one chooses the epoch
    classes: tuple[str, ...]
    fingerprints: dict[str, str]
    votes: np.ndarray | None = None  # [images of train, K], shares of the votes


def open_sets(probe: Probe) -> Sets:
    """Opens and checks all sets of a probe that is to be trained; raises UserError."""
    train = open_split(probe, "train")
    assert train.labels is not None and train.classes is not None
    numbering(train.classes, "train")
    check_dataset(probe.dataset, train.classes)
    apart = open_val(probe, train.classes)
    if probe.data.source.startswith("tfds:") and not probe.data.val_list and not probe.data.train_list:
        refuse_overlap(train, open_source(probe.data.source, probe.data.path, split="val"))
    fingerprints = {name: source.fingerprint for name, source in {"train": train, **apart}.items()}
    votes = None
    if probe.data.votes:
        votes, fingerprints["votes"] = read_votes(probe.data.votes, train, "train", train.classes)
    if probe.select_on == "train-holdout":
        kept_apart = holdout_rows(train.labels, probe.holdout, probe.seed)
        apart = {"train-holdout": Subset(train, np.flatnonzero(kept_apart)), **apart}
        train = Subset(train, np.flatnonzero(~kept_apart))
        votes = None if votes is None else votes[~kept_apart]
    return Sets(train, apart, train.classes or (), fingerprints, votes)


def refuse_overlap(train: Source, val: Source) -> None:
    """Raises UserError where both are splits of TFDS, and a whole one is trained and reported on."""
    one, other = (getattr(source, "split", "") for source in (train, val))
    both = {part for part in one.split("+") if part and "[" not in part} & set(other.split("+"))
    if both:
        raise UserError(
            f"data.source: the split {min(both)} is trained and reported on: give others, as in tfds:NAME:SPLIT?val=SPLIT"
        )


def open_split(probe: Probe, split: str) -> Source:
    """`train` or `val`, or the images of it that a list names; raises UserError."""
    data = probe.data
    file = data.train_list if split == "train" else data.val_list
    if not file:
        return open_source(data.source, data.path, labelled=True, split=split)
    whole = data.source == "folder" and not _has(data.path, split)
    source = open_source(data.source, data.path, labelled=True, split=None if whole else split)
    if whole and data.train_list and data.val_list:
        theirs, other = ("val", data.val_list) if split == "train" else ("train", data.train_list)
        others = {name.removeprefix(f"{theirs}/") for name in read_list(other)}
        twice = next((name for name in read_list(file) if name.removeprefix(f"{split}/") in others), None)
        if twice:
            raise UserError(f"{twice} is in {data.train_list} and in {data.val_list}: an image is for one of the two")
    return _listed(source, file, split)


def _has(path: str, split: str) -> bool:
    """Whether a folder has one of that name."""
    return bool(Bucket(path).names(f"{split}/")) if is_bucket(path) else os.path.isdir(os.path.join(path, split))


def read_list(file: str) -> dict[str, int]:
    """The names in a text file, one a line, with the numbers of their lines; raises UserError for one that repeats."""
    names: dict[str, int] = {}
    try:
        lines = content(file).decode("utf-8-sig", "surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if line.strip() in names:
            raise UserError(f"{file}, line {number}: {line.strip()} is there twice")
        if line.strip():
            names[line.strip()] = number
    return names


def _listed(source: Source, file: str, split: str) -> Source:
    numbers, rows = {source.name(number): number for number in range(len(source))}, dict[int, None]()
    for name, line in read_list(file).items():
        row = numbers.get(name.removeprefix(f"{split}/"))
        if row is None:
            raise UserError(
                f"{file}, line {line}: no image {name}; names are as {source.name(0)}, below the folder of {split}"
            )
        if row in rows:
            raise UserError(f"{file}, line {line}: {name} is there twice, once with {split}/ before it")
        rows[row] = None
    found = Subset(source, np.array(sorted(rows), np.int64))
    assert found.labels is not None and found.classes is not None
    empty = [name for number, name in enumerate(found.classes) if number not in found.labels]
    if empty and split == "train":
        raise UserError(f"{file} names no image of the class {empty[0]}: name some, or take its folder away")
    return found


def open_val(probe: Probe, classes: tuple[str, ...]) -> dict[str, Source]:
    """`val` and the sets of `data.val` by name, each with these classes, numbered in this order; raises UserError."""
    sets = {"val": open_split(probe, "val")}
    for name in probe.data.val:
        if name in ("val", "train-holdout"):
            raise UserError(f"data.val: {name!r} is reported in any case: leave it out")
        kind, path, split = _further(probe, name)
        try:
            sets[name] = open_source(kind, path, labelled=True, split=split)
        except UserError as error:
            raise UserError(f"data.val: {name!r}: {error}") from None
    if probe.data.classes == "shared":
        return {name: SharedClasses(source, classes, name) for name, source in sets.items()}
    return {name: with_classes(source, classes, name, REMEDY) for name, source in sets.items()}


def _further(probe: Probe, name: str) -> tuple[str, str, str | None]:
    """Kind, path and split of a set of `data.val`: a folder, or a split beside train."""
    beside = os.sep not in name and probe.data.source == "folder" and _has(probe.data.path, name)
    if not beside and (is_bucket(name) or os.path.isdir(name)):
        return "folder", name, None
    return probe.data.source, probe.data.path, name


def crop_of_sets(probe: Probe) -> str:
    """How the images of all sets were cropped to the face, as far as they tell; raises UserError as `crop_told`."""
    return crop_told([(probe.data.source, probe.data.path), *(_further(probe, name)[:2] for name in probe.data.val)])


def check_dataset(dataset: str, classes: tuple[str, ...]) -> None:
    """Raises UserError unless the class folders are as many as the data set has classes."""
    if dataset and len(classes) != DATASETS[dataset]:
        found = ", ".join(classes)
        raise UserError(f"{dataset} has {DATASETS[dataset]} classes, but train holds {len(classes)} folders: {found}")
