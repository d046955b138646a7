"""Settings of a linear probe; configs/probe.py holds the values."""

import dataclasses
import os
from typing import Any

from simfle_jax.config import check_seed, one_of, require, typed
from simfle_jax.errors import UserError

DATASETS = {"affectnet8": 8, "affectnet7": 7, "rafdb": 7, "ferplus": 8, "sfew": 7}  # class folders of each


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
class Probe:
    """One linear probe of a frozen encoder."""

    encoder: str  # folder of a pre-training run, or a file with a ResNet under torchvision's names
    untrained: bool  # probe a fresh network of that encoder's architecture instead: the baseline
    dataset: str  # '' or one of DATASETS, which only checks the class folders
    protocol: str  # 'paper': random crops and flips in every epoch; 'cached': features computed once, unaugmented
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


def probing(settings: Any) -> Probe:
    """The checked settings of a probe from a ConfigDict or a plain mapping; raises UserError."""
    probe = typed(Probe, settings)
    one_of("protocol", probe.protocol, ("paper", "cached"))
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
    _check_paths(probe)
    return probe


def _check_paths(probe: Probe) -> None:
    """Tells of a wrong path at once, before anything slow is imported."""
    if not probe.encoder:
        raise UserError("encoder is empty: give --config.encoder=RUN, the folder of a pre-training run")
    if not os.path.exists(probe.encoder):
        raise UserError(f"no encoder at {probe.encoder}: give --config.encoder=RUN, the folder of a pre-training run")
    if probe.data.source == "folder" and not os.path.isdir(probe.data.path):
        raise UserError(f"no folder {probe.data.path!r}: give --config.data.path=DIR, which holds train/ and val/")
