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
from simfle_jax.storage import is_bucket
from simfle_jax.weights.hub import is_hub_name

DATASETS = {"affectnet8": 8, "affectnet7": 7, "rafdb": 7, "ferplus": 8, "sfew": 7}  # class folders of each
# Seen by the names of their files, because importing them imports JAX.
PROTOCOLS = tuple(
    sorted(path.stem for path in (Path(__file__).parent / "protocols").glob("[a-z]*.py") if path.stem != "base")
)
OLD_NAMES = {"paper": "linear"}  # of protocols
USUAL_LR = 0.5  # of configs/probe.py, as published


@dataclasses.dataclass(frozen=True)
class ProbeData:
    """Labelled images: `path`/train/CLASS/IMAGE and `path`/val/CLASS/IMAGE."""

    path: str
    source: str  # 'folder', 'array_record', or 'tfds:NAME[/CONFIG][:SPLIT]...' (docs/data.md)
    val: tuple[str, ...]  # further sets to report on: folders of class folders, or splits beside train and val
    canvas: int  # side of the uint8 square handed to the device; 0: that of the encoder's views
    threads: int  # decoding threads; 0: one per core
    max_bad_fraction: float  # share of unreadable images above which the probe stops
    train_list: str = ""  # a text file that names the images of train, one a line; the others are left out
    val_list: str = ""  # the same of val
    classes: str = "same"  # those of val: the 'same' as in train, or only the 'shared' ones count
    votes: str = ""  # a csv of people's votes on the images of train, which are learned instead of one class
    groups: str = ""  # a csv of columns, such as age, by whose values the scores on val are told apart


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
    on: str = "logistic"  # what learns from them, or 'finetune', with the settings of that protocol


@dataclasses.dataclass(frozen=True)
class FineTuneSettings:
    """How the protocol 'finetune' trains the trunk with its classifier."""

    optimizer: str = "adamw"  # or 'sgd' (with the probe's momentum)
    lr: float = 1e-3  # for a batch of 256; scaled linearly with the batch
    weight_decay: float = 0.05  # of kernels alone
    warmup_epochs: float = 5.0  # the rate rises linearly from 0 over them, then falls by half a cosine
    layer_decay: float = 0.75  # a block's rate over that of the block behind it; 1: the same rate for all
    label_smoothing: float = 0.1  # share of each label that is spread over all classes
    mixup: float = 0.0  # alpha of the Beta distribution that mixes pairs of images; 0: none
    share: float = 1.0  # of every class's training images, at least one image


@dataclasses.dataclass(frozen=True)
class LandmarkSettings:
    """How the protocol 'landmarks' gets points out of feature maps."""

    head: str = "linear"  # on the whole map; 'attention', which pools the map's cells for each point; or 'finetune',
    # attention for which the trunk is trained, too, with the settings of the protocol 'finetune'
    file: str = (
        ""  # .npz, .csv, or a folder of .pts files; '': landmarks.npz below data.path, or .pts beside the images
    )
    lr: float = 1e-3  # of the attention's Adam


@dataclasses.dataclass(frozen=True)
class Probe:
    """One probe of an encoder."""

    encoder: str  # folder of a pre-training run, or a file with a trunk under torchvision's or timm's names
    untrained: bool  # probe a fresh network of that encoder's architecture instead: the baseline
    dataset: str  # '' or one of DATASETS, which only checks the class folders
    protocol: str  # a file in evaluation/protocols: 'linear' as published, 'cached', 'logistic' ...
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
    finetune: FineTuneSettings = FineTuneSettings()
    landmarks: LandmarkSettings = LandmarkSettings()
    seeds: tuple[int, ...] = ()  # several in place of `seed`: a probe of each, and intervals over them


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
    require(0 <= probe.momentum < 1, f"momentum = {probe.momentum} must be at least 0 and below 1")
    require(0 < probe.holdout < 1, f"holdout = {probe.holdout} must be above 0 and below 1")
    for seed in (probe.seed, *probe.seeds):
        check_seed(seed, "config: seed")
    require(
        len(set(probe.seeds)) == len(probe.seeds),
        f"seeds = {probe.seeds} names a seed twice, which shows nothing: leave it out",
    )
    require(probe.data.threads >= 0, f"data.threads = {probe.data.threads} must not be negative")
    share = probe.data.max_bad_fraction
    require(0 <= share <= 1, f"data.max_bad_fraction = {share} must lie in 0..1")
    require(probe.data.canvas >= 0, f"data.canvas = {probe.data.canvas} must not be negative")
    _check_groups(probe)
    _check_labels(probe)
    _check_paths(probe)
    return probe


def upgraded(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What a probe's folder recorded, by this or an earlier version, in today's form."""
    found = with_defaults(Probe, recorded)
    for name in ("features", "seeds"):  # recorded by their content, as an encoder is; and in folders of their own
        found.pop(name)
    found |= {"protocol": OLD_NAMES.get(found.get("protocol", ""), found.get("protocol"))}
    trained = _trains_trunk(found["protocol"], found["lowlabel"]["on"], found["landmarks"]["head"])
    return found | ({"lr": USUAL_LR} if trained else {})  # another one was recorded, and did nothing


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
        f"lowlabel.shares = {few.shares} must name one or more shares above 0 and at most 1",
    )
    require(len(set(few.shares)) == len(few.shares), f"lowlabel.shares = {few.shares} names one share twice")
    require(few.draws >= 1, f"lowlabel.draws = {few.draws} must be at least 1")
    one_of("lowlabel.on", few.on, ("logistic", "finetune"))
    _check_finetune(probe)
    _check_landmarks(probe)


def _check_landmarks(probe: Probe) -> None:
    one_of("landmarks.head", probe.landmarks.head, ("linear", "attention", "finetune"))
    require(probe.landmarks.lr > 0, f"landmarks.lr = {probe.landmarks.lr} must be positive")
    for name in ("val", "train_list", "val_list", "groups"):
        require(
            probe.protocol != "landmarks" or not getattr(probe.data, name),
            f"data.{name} is not for protocol = 'landmarks', which reports on val and the subsets that its file names",
        )
    file = probe.landmarks.file
    if file and not (file.endswith((".npz", ".csv")) if is_bucket(file) else os.path.exists(file)):
        raise UserError(f"no landmarks at {file}: give --config.landmarks.file=FILE.npz, .csv or, on a disk, a folder")


def trains_trunk(probe: Probe) -> bool:
    """Whether these settings train the trunk, with those of `finetune`."""
    return _trains_trunk(probe.protocol, probe.lowlabel.on, probe.landmarks.head)


def _trains_trunk(protocol: str, on: str, head: str) -> bool:
    return {"finetune": "finetune", "lowlabel": on, "landmarks": head}.get(protocol) == "finetune"


def _check_finetune(probe: Probe) -> None:
    tune = probe.finetune
    require(
        not trains_trunk(probe) or probe.lr == USUAL_LR,
        f"lr = {probe.lr} is of a layer on frozen features; where the trunk is trained give --config.finetune.lr",
    )
    one_of("finetune.optimizer", tune.optimizer, ("adamw", "sgd"))
    require(tune.lr > 0, f"finetune.lr = {tune.lr} must be positive")
    require(tune.weight_decay >= 0, f"finetune.weight_decay = {tune.weight_decay} must not be negative")
    require(tune.warmup_epochs >= 0, f"finetune.warmup_epochs = {tune.warmup_epochs:g} must not be negative")
    require(
        not trains_trunk(probe) or tune.warmup_epochs < probe.epochs,
        f"finetune.warmup_epochs = {tune.warmup_epochs:g} must be less than epochs = {probe.epochs}",
    )
    require(0 < tune.layer_decay <= 1, f"finetune.layer_decay = {tune.layer_decay} must be above 0 and at most 1")
    require(
        0 <= tune.label_smoothing < 1,
        f"finetune.label_smoothing = {tune.label_smoothing} must be at least 0 and below 1",
    )
    require(tune.mixup >= 0, f"finetune.mixup = {tune.mixup} must not be negative")
    require(0 < tune.share <= 1, f"finetune.share = {tune.share} must be above 0 and at most 1")
    if trains_trunk(probe) and probe.protocol != "finetune":
        require(tune.share == 1, f"finetune.share = {tune.share} is for protocol = 'finetune', not {probe.protocol!r}")
    require(
        tune.mixup == 0 or probe.protocol != "landmarks" or not trains_trunk(probe),
        f"finetune.mixup = {tune.mixup} mixes classes, and landmarks are none: leave it out",
    )


def _check_labels(probe: Probe) -> None:
    data = probe.data
    one_of("data.classes", data.classes, ("same", "shared"))
    for name in ("train_list", "val_list", "votes", "groups"):
        file = getattr(data, name)
        require(not file or is_bucket(file) or os.path.isfile(file), f"data.{name} = {file!r}: there is no such file")
    require(
        not data.votes or probe.balance == "none",
        f"data.votes leaves no class to balance: balance = {probe.balance!r} must be 'none'",
    )


def _check_paths(probe: Probe) -> None:
    """Tells of a wrong path at once, before anything slow is imported."""
    if probe.features:
        _check_features(probe)
    elif not probe.encoder:
        raise UserError("encoder is empty: give --config.encoder=RUN, the folder of a pre-training run")
    elif not (is_hub_name(probe.encoder) or is_bucket(probe.encoder) or os.path.exists(probe.encoder)):
        raise UserError(f"no encoder at {probe.encoder}: give --config.encoder=RUN, the folder of a pre-training run")
    if not is_bucket(probe.data.path) and probe.data.source == "folder" and not os.path.isdir(probe.data.path):
        raise UserError(f"no folder {probe.data.path!r}: give --config.data.path=DIR, which holds train/ and val/")


def _check_features(probe: Probe) -> None:
    if probe.encoder or probe.untrained:
        raise UserError("config: features stand in place of an encoder: leave encoder and untrained out")
    if not (is_bucket(probe.features) or os.path.isfile(probe.features)):
        raise UserError(f"no file {probe.features}: give --config.features=FILE.npz, .parquet or .npy")
