"""Features of images that were computed elsewhere, found by the images' names: whatever model made them is probed."""

import hashlib
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from simfle_jax.data.bad_list import read_bad_list
from simfle_jax.data.read_back import one_line
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError
from simfle_jax.evaluation.feature_file import ENDINGS, import_parquet
from simfle_jax.evaluation.linear import Labelled
from simfle_jax.evaluation.records import TrainedProbe
from simfle_jax.runs.at_hand import borrowed

BAD, NAMES = (
    ".bad.txt",
    ".names.npy",
)  # of files beside one of features: NAME.npz.bad.txt, and NAME.names.npy of NAME.npy
PREFIX = "features-"  # of a hash that is one of features, not of an encoder


class FeatureTable:
    """The features in a file that `simfle_jax.embed` wrote, or one of the same form; in place of encoder and extractor.

    An image of the set `train` is found by a name that ends in train/CLASS/IMAGE; what stands before must be the same
    for all of a set. Images named in FILE.bad.txt, where `embed` lists those that it could not read, may be missing.

    Raises:
        UserError: the file, which may lie in a bucket, is not there, not whole, or of another form.
    """

    canvas = 0  # nothing is decoded here

    def __init__(self, file: str):
        self.file = file
        stem = Path(file)
        with borrowed(file, beside=(f"{stem.name}{BAD}", stem.with_suffix(NAMES).name)) as here:
            names, self.features = read_features(here)
            unreadable = read_bad_list(here.with_name(f"{stem.name}{BAD}"))
        self.names = [_key(name) for name in names]
        self.numbers = {name: number for number, name in enumerate(self.names)}
        if len(self.numbers) < len(names):
            twice = next(name for number, name in enumerate(self.names) if self.numbers[name] != number)
            raise UserError(f"{file} holds the name {twice} twice")
        self.unreadable = {_key(name): reason for name, reason in unreadable.items()}
        self.alike: dict[str, list[str]] = {}
        for name in (*self.numbers, *self.unreadable):
            self.alike.setdefault(_last(name), []).append(name)
        self.dim = self.features.shape[1]
        self.bad: dict[str, str] = {}
        self.bad_list: Path | None = None
        self.rows: dict[str, np.ndarray] = {}

    @cached_property
    def hash(self) -> str:
        """Over names and features, in their order."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(np.ascontiguousarray(self.features).data)
        return f"{PREFIX}{digest.hexdigest()[:16]}"

    @property
    def metadata(self) -> dict[str, str]:
        """What is known of the model: the width of its features."""
        return {"method": "features", "dim": str(self.dim)}

    def is_called(self, hash_: str) -> bool:
        """Whether a recorded hash is that of these features."""
        return hash_ == self.hash

    def check_probe(self, folder: Path, probe: TrainedProbe) -> None:
        """Raises UserError unless the probe in `folder` was trained on features of this width.

        Which model they come from is not known: features of other images are to be from the same one.
        """
        if not probe.encoder_hash.startswith(PREFIX):
            raise UserError(
                f"the probe in {folder} belongs to encoder {probe.encoder_hash}: give --config.encoder instead"
            )
        if probe.dim != self.dim:
            raise UserError(
                f"the probe in {folder} takes {probe.dim} features, {self.file} holds {self.dim} of an image"
            )

    def plain(self, source: Source, name: str) -> Labelled:
        """Features of the images of a set, in the order of its listing.

        Raises:
            UserError: an image has no features, and is not listed as unreadable.
        """
        tails = [_key(f"{_split(name)}/{source.name(number)}") for number in range(len(source))]
        before = self._before(tails)
        rows, found = [], []
        for number, tail in enumerate(tails):
            row = self.numbers.get(before + tail)
            if row is None:
                self.bad[f"{name}/{source.name(number)}"] = self._reason(before, tail)
            else:
                rows.append(number)
                found.append(row)
        self.rows[name] = np.array(rows)
        assert source.labels is not None
        return Labelled(jnp.asarray(self.features[found]), jnp.asarray(source.labels[rows]))

    def augmented(self, source: Source, epoch: int, tell: Callable[[int], None]) -> Labelled:
        """Raises UserError: a file of features holds no images to crop (`find_protocol` says so before)."""
        raise UserError(
            "features from a file cannot be augmented: choose a protocol that needs features alone, e.g. logistic"
        )

    def _before(self, tails: list[str]) -> str:
        """What stands in the file before the names of a set, as it does before the first one that is there."""
        for tail in tails:
            alike = self.alike.get(_last(tail), ())
            known = sorted({name[: -len(tail)] for name in alike if _ends_in(name, tail)})
            if len(known) > 1:
                where = " and of ".join(before + tail for before in known[:2])
                raise UserError(f"{self.file} has features of {where}: leave one of the two folders out")
            if known:
                return known[0]
        raise self._mismatch(tails[0])

    def _reason(self, before: str, tail: str) -> str:
        if before + tail not in self.unreadable:
            raise self._mismatch(tail)
        return self.unreadable[before + tail]

    def _mismatch(self, tail: str) -> UserError:
        return UserError(
            f"{self.file} has no features of {tail}: its names, such as {self.names[0]}, must end in train/CLASS/IMAGE or "
            "val/CLASS/IMAGE and hold every image below data.path"
        )


def _split(name: str) -> str:
    """The folder of a set: the holdout is a part of train."""
    return "train" if name == "train-holdout" else name.rstrip("/")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _ends_in(name: str, tail: str) -> bool:
    return name.endswith(tail) and name[: -len(tail)][-1:] in ("", "/")


def _key(name: str) -> str:
    """A name as it is compared: with forward slashes, and with what is no UTF-8 spelt out, as parquet files have it."""
    return os.fsencode(name).decode(errors="backslashreplace").replace(os.sep, "/")


def read_features(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and float32 features [n, D] of a file.

    Raises:
        UserError: not there, not whole, of another form, or with values that are not finite.
    """
    readers: dict[str, Callable[[Path], tuple[Any, Any]]] = {
        ".npz": _read_npz, ".npy": _read_npy, ".parquet": _read_parquet
    }  # fmt: skip
    if path.suffix not in readers:
        raise UserError(f"{path} must end in {' or '.join(ENDINGS)}")
    try:
        names, features = readers[path.suffix](path)
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, numpy and pyarrow raise nearly anything on damaged files
        raise UserError(f"{path} is no file of names and features: {one_line(error)}") from None
    if np.ndim(names) != 1:
        raise UserError(f"{path}: names must be [n], not {list(np.shape(names))}")
    names, features = [str(name) for name in names], np.asarray(features)
    if features.ndim != 2 or features.dtype.kind != "f" or len(names) != len(features) or not len(names):
        shape = f"{features.dtype} {list(features.shape)} with {len(names)} names"
        raise UserError(f"{path}: features must be floating-point [n, D] with n names, not {shape}")
    if not np.isfinite(features).all():
        raise UserError(f"{path}: the features of {names[int(np.argmin(np.isfinite(features).all(1)))]} are not finite")
    return names, features.astype(np.float32, copy=False)


def _read_npz(path: Path) -> tuple[Any, Any]:
    with path.open("rb") as opened, np.load(opened) as file:
        return file["names"], file["features"]


def _read_npy(path: Path) -> tuple[Any, Any]:
    return np.load(path.with_suffix(NAMES)), np.load(path)


def _read_parquet(path: Path) -> tuple[Any, Any]:
    _, parquet = import_parquet()
    table = parquet.read_table(path, columns=["name", "feature"])
    column = table["feature"].combine_chunks()
    return table["name"].to_pylist(), np.asarray(column.flatten()).reshape(len(column), -1)
