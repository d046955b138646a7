"""Settings of a probe; configs/probe.py holds the values.

A field that came later than its neighbours has a default, which means "as before": probes that an earlier version
recorded go on.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simfle_jax.config import check_seed, one_of, require, typed, with_defaults
from simfle_jax.errors import UserError
from simfle_jax.weights.hub import is_hub_name

DATASETS = {"affectnet8": 8, "affectnet7": 7, "rafdb": 7, "ferplus": 8, "sfew": 7}  # class folders of each
# Seen by the names of their files, because importing them imports JAX.
PROTOCOLS = tuple(
    sorted(path.stem for path in (Path(__file__).parent / "protocols").glob("[a-z]*.py") if path.stem != "base")
)
OLD_NAMES = {"paper": "linear"}  # of protocols


@dataclasses.dataclass(frozen=True)
class ProbeData:
    """Labelled images: `path`/train/CLASS/IMAGE and `path`/val/CLASS/IMAGE."""

    path: str
    source: str  # 'folder', 'array_record', or 'tfds:NAME[/CONFIG][:SPLIT]...' (docs/data.md)
    val: tuple[str, ...]  # further sets to report on: folders of class folders, or splits beside train and val
    canvas: int  # side of the uint8 square handed to the device; 0: that of the encoder's views
    threads: int  # decoding threads; 0: one per core
    max_bad_fraction: float  # share of unreadable images above which the probe stops


@dataclasses.dataclass(frozen=True)
class CachedSettings:
    """What the protocol 'cached' has beside the settings of 'linear'."""

    lrs: tuple[float, ...] = ()  # rates in place of `lr`, all trained at once; the best one on the holdout is kept


@dataclasses.dataclass(frozen=True)
class KnnSettings:
    """The vote of the protocol 'knn'; of several values the best one on a part of train is taken."""

    k: tuple[int, ...] = (20,)  # neighbours that vote
    temperature: tuple[float, ...] = (0.07,)  # a neighbour's vote weighs exp(cosine / temperature)


@dataclasses.dataclass(frozen=True)
class LowLabelSettings:
    """How few labels the protocol 'lowlabel' has."""

    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.25)  # of every class's training images, at least one image
    draws: int = 5  # random subsets for each share


@dataclasses.dataclass(frozen=True)
class Probe:
    """One probe of a frozen encoder."""

    encoder: str  # folder of a pre-training run, or a file with a trunk under torchvision's or timm's names
    untrained: bool  # probe a fresh network of that encoder's architecture instead: the baseline
    dataset: str  # '' or one of DATASETS, which only checks the class folders
    protocol: str  # a file in evaluation/protocols: 'linear' as published, 'cached', 'logistic', 'knn', 'lowlabel'
    seed: int
    epochs: int
    batch_size: int
    lr: float  # for a batch of 256; scaled linearly with the batch
    momentum: float
    balance: str  # 'none', 'sampling' (classes drawn equally often), or 'loss' (classes weigh equally)
    select_on: str  # where the best epoch is chosen: 'val' as published, or 'train-holdout', a part of train
    holdout: float  # share of train that 'train-holdout' keeps apart
    eval_only: bool  # no training: the probe in the workdir on the val images
    data: ProbeData
    features: str = ""  # a .npz, .parquet or .npy file of features in place of an encoder
    cached: CachedSettings = CachedSettings()
    knn: KnnSettings = KnnSettings()
    lowlabel: LowLabelSettings = LowLabelSettings()


def probing(settings: Any) -> Probe:
    """The checked settings of a probe from a ConfigDict or a plain mapping; raises UserError."""
    probe = typed(Probe, settings)
    probe = dataclasses.replace(probe, protocol=OLD_NAMES.get(probe.protocol, probe.protocol))
    one_of("protocol", probe.protocol, PROTOCOLS)
    one_of("balance", probe.balance, ("none", "sampling", "loss"))
    one_of("select_on", probe.select_on, ("val", "train-holdout"))
    one_of("dataset", probe.dataset, ("", *DATASETS))
    require(probe.epochs >= 1, f"epochs = {probe.epochs} must be at least 1")
    require(probe.batch_size >= 1, f"batch_size = {probe.batch_size} must be at least 1")
    require(probe.lr > 0, f"lr = {probe.lr} must be positive")
    require(0 <= probe.momentum < 1, f"momentum = {probe.momentum} must lie in 0..1")
    require(0 < probe.holdout < 1, f"holdout = {probe.holdout} must lie between 0 and 1")
    check_seed(probe.seed, "config: seed")
    require(probe.data.threads >= 0, f"data.threads = {probe.data.threads} must not be negative")
    share = probe.data.max_bad_fraction
    require(0 <= share <= 1, f"data.max_bad_fraction = {share} must lie in 0..1")
    require(probe.data.canvas >= 0, f"data.canvas = {probe.data.canvas} must not be negative")
    _check_groups(probe)
    _check_paths(probe)
    return probe


def upgraded(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What a probe's folder recorded, by this or an earlier version, in today's form."""
    found = with_defaults(Probe, recorded)
    found.pop("features")  # recorded by their content, as an encoder is
    return found | {"protocol": OLD_NAMES.get(found.get("protocol", ""), found.get("protocol"))}


def _check_groups(probe: Probe) -> None:
    lrs, knn, few = probe.cached.lrs, probe.knn, probe.lowlabel
    require(all(lr > 0 for lr in lrs), f"cached.lrs = {lrs} must all be positive")
    require(len(set(lrs)) == len(lrs), f"cached.lrs = {lrs} names one rate twice")
    if lrs:
        require(probe.protocol == "cached", f"cached.lrs is for protocol = 'cached', not {probe.protocol!r}")
        require(
            probe.select_on == "train-holdout",
            "cached.lrs are compared on a part of train, never on val: give --config.select_on=train-holdout",
        )
    require(len(knn.k) > 0 and min(knn.k) >= 1, f"knn.k = {knn.k} must name one or more numbers of at least 1")
    require(
        len(knn.temperature) > 0 and min(knn.temperature) > 0,
        f"knn.temperature = {knn.temperature} must name one or more positive numbers",
    )
    require(
        len(few.shares) > 0 and all(0 < share <= 1 for share in few.shares),
        f"lowlabel.shares = {few.shares} must name one or more shares within 0..1",
    )
    require(len(set(few.shares)) == len(few.shares), f"lowlabel.shares = {few.shares} names one share twice")
    require(few.draws >= 1, f"lowlabel.draws = {few.draws} must be at least 1")


def _check_paths(probe: Probe) -> None:
    """Tells of a wrong path at once, before anything slow is imported."""
    if probe.features:
        _check_features(probe)
    elif not probe.encoder:
        raise UserError("encoder is empty: give --config.encoder=RUN, the folder of a pre-training run")
    elif not is_hub_name(probe.encoder) and not os.path.exists(probe.encoder):
        raise UserError(f"no encoder at {probe.encoder}: give --config.encoder=RUN, the folder of a pre-training run")
    if probe.data.source == "folder" and not os.path.isdir(probe.data.path):
        raise UserError(f"no folder {probe.data.path!r}: give --config.data.path=DIR, which holds train/ and val/")


def _check_features(probe: Probe) -> None:
    if probe.encoder or probe.untrained:
        raise UserError("config: features stand in place of an encoder: leave encoder and untrained out")
    if not os.path.isfile(probe.features):
        raise UserError(f"no file {probe.features}: give --config.features=FILE.npz, .parquet or .npy")
