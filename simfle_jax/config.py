"""Settings as frozen, typed dataclasses, made once from a ConfigDict; every check of a setting lives here.

The files in configs/ hold the values, these classes their types and meaning. A combination that cannot work is
refused here, before any data is read or any array made.
"""

import dataclasses
import difflib
import hashlib
import json
from typing import Any, TypeVar, get_type_hints

from simfle_jax.errors import UserError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Model:
    """Sizes of the networks; the defaults of the paper are ResNet-50 and MAE ViT-B/16 at 112 pixels."""

    stage_sizes: tuple[int, ...]  # bottleneck blocks per stage; (3, 4, 6, 3) is ResNet-50
    width: int  # channels of the stem; the trunk gives width * 4 * 2 ** (stages - 1)
    last_stride: int  # stride of the last stage, 2 as in torchvision
    head_hidden: int  # width inside every MLP head
    head_out: int  # width of projections and distilled vectors
    facemae: bool  # False: BYOL alone
    masking: str  # 'semantic', or 'random' as its baseline
    grouping_init: str  # 'grouped', 'he', or 'constant' as published
    patch: int  # side of a FaceMAE patch in pixels
    vit_width: int
    vit_depth: int
    vit_heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    init_from: str  # '' or a file with trunk weights under torchvision's names to start from

    @property
    def features(self) -> int:
        """Channels of the trunk's last feature map, 2048 in ResNet-50."""
        return self.width * 4 * 2 ** (len(self.stage_sizes) - 1)

    @property
    def stride(self) -> int:
        """Pixels per cell of the last feature map, 32 in ResNet-50."""
        return 4 * 2 ** (len(self.stage_sizes) - 2) * self.last_stride


@dataclasses.dataclass(frozen=True)
class Views:
    """How the two augmented views and the plain image are made, on the device."""

    size: int  # side of the augmented views in pixels
    plain_size: int  # side of the plain image that FaceMAE masks and restores
    scale: tuple[float, float]  # share of the image's area that a random crop keeps
    ratio: tuple[float, float]  # aspect of a random crop, width / height
    flip: float  # probability
    jitter: float  # probability of the colour jitter
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray: float  # probability
    blur: tuple[float, float]  # sigma of the Gaussian blur in pixels, drawn uniformly; (0, 0) turns it off


@dataclasses.dataclass(frozen=True)
class Data:
    """Where images come from and what the host does with them."""

    path: str
    source: str  # 'folder', 'array_record', or 'tfds:NAME[/CONFIG][:SPLIT]...' (docs/data.md)
    sources: tuple[str, ...]  # several mixed, each 'SOURCE@PATH=WEIGHT', in place of source and path; () for one
    canvas: int  # side of the uint8 square that the host hands to the device
    mean: tuple[float, float, float]  # RGB in [0, 1]
    std: tuple[float, float, float]
    threads: int  # decoding threads per process; 0: one per core
    max_bad_fraction: float  # share of unreadable images above which a run stops
    cache: str  # '' or a file to keep decoded canvases in


@dataclasses.dataclass(frozen=True)
class Config:
    """One pre-training run."""

    seed: int
    epochs: int
    batch_size: int  # of the whole job, whatever the number of devices
    optimizer: str  # 'sgd' as published, or 'adam'
    lr: float  # for a batch of 256; scaled linearly with the batch
    momentum: float
    weight_decay: float
    ema_decay: float  # share that the target network keeps at each step
    mask_ratio: float
    n_groups: int
    alpha: float  # weight of the distillation loss; 0 turns distillation off
    beta: float  # weight of the grouping loss
    temperature: float  # of the distillation
    dtype: str  # compute type, 'float32' or 'bfloat16'; parameters, statistics and losses stay float32
    accumulate: int  # micro-batches per step; BatchNorm and the grouping matrix then see one micro-batch
    remat: bool  # recompute activations in the backward pass: less memory, about a third more compute
    shard_state: bool  # spread parameters and optimizer state over the devices; the numbers are the same
    log_steps: int
    checkpoint_steps: int  # 0: at the end of every epoch
    keep_checkpoints: int
    tensorboard: bool
    wandb: bool
    model: Model
    views: Views
    data: Data

    @property
    def grid(self) -> int:
        """Patches along one side of the plain image, 7 in the paper."""
        return self.views.plain_size // self.model.patch

    @property
    def kept_patches(self) -> int:
        """Patches that the encoder of FaceMAE sees, 12 of 49 in the paper."""
        return int(self.grid**2 * (1 - self.mask_ratio))

    @property
    def feature_grid(self) -> int:
        """Cells along one side of the trunk's map of the plain image, 4 in the paper."""
        return -(-self.views.plain_size // self.model.stride)


def typed(cls: type[T], settings: Any, where: str = "") -> T:
    """Makes a dataclass of `settings` (a mapping), refusing keys that are missing, unknown or of a wrong type."""
    hints = get_type_hints(cls)
    unknown = set(settings) - set(hints)
    if unknown:
        key = sorted(unknown)[0]
        near = difflib.get_close_matches(key, hints, n=1)
        hint = f"; did you mean {where}{near[0]}?" if near else f"; known are {', '.join(sorted(hints))}"
        raise UserError(f"config: there is no setting {where}{key}{hint}")
    missing = sorted(set(hints) - set(settings))
    if missing:
        raise UserError(f"config: the setting {where}{missing[0]} is missing")
    return cls(**{key: _value(hint, settings[key], where + key) for key, hint in hints.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return typed(hint, value, name + ".")  # type: ignore[arg-type]
    if getattr(hint, "__origin__", None) is tuple:
        kind = hint.__args__[0]
        fixed = None if hint.__args__[-1] is Ellipsis else len(hint.__args__)
        if not isinstance(value, (tuple, list)) or (fixed and len(value) != fixed):
            raise UserError(f"config: {name} = {value!r} must be {fixed or 'some'} numbers in a tuple")
        return tuple(_value(kind, v, name) for v in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise UserError(f"config: {name} = {value!r} must be of type {hint.__name__}")
    return value


def pretraining(settings: Any) -> Config:
    """The checked settings of a pre-training run from a ConfigDict or a plain mapping; raises UserError."""
    config = typed(Config, settings)
    for check in (_check_training, _check_views, _check_model, _check_facemae):
        check(config)
    return config


def require(condition: bool, message: str) -> None:
    """Raises UserError(f"config: {message}") unless the condition holds."""
    if not condition:
        raise UserError(f"config: {message}")


def check_seed(seed: int, name: str) -> None:
    """Raises UserError unless a seed is one that JAX tells from all others: it uses 32 bits."""
    if not 0 <= seed < 2**32:
        raise UserError(f"{name} = {seed} must lie in 0..{2**32 - 1}: larger ones would repeat smaller ones")


def _check_training(c: Config) -> None:
    positive = ("epochs", "accumulate", "log_steps", "keep_checkpoints")
    for name in positive:
        require(getattr(c, name) >= 1, f"{name} = {getattr(c, name)} must be at least 1")
    require(c.batch_size >= 2, f"batch_size = {c.batch_size} must be at least 2: BatchNorm needs several images")
    require(
        c.batch_size % c.accumulate == 0, f"batch_size = {c.batch_size} is not divisible by accumulate = {c.accumulate}"
    )
    require(
        c.batch_size // c.accumulate >= 2, f"accumulate = {c.accumulate} leaves fewer than 2 images in a micro-batch"
    )
    require(c.lr > 0, f"lr = {c.lr} must be positive")
    require(c.temperature > 0, f"temperature = {c.temperature} must be positive")
    require(0 <= c.ema_decay <= 1, f"ema_decay = {c.ema_decay} must lie in 0..1")
    require(0 <= c.momentum < 1, f"momentum = {c.momentum} must lie in 0..1")
    check_seed(c.seed, "config: seed")
    for name in ("alpha", "beta", "weight_decay", "checkpoint_steps"):
        require(getattr(c, name) >= 0, f"{name} = {getattr(c, name)} must not be negative")
    _one_of("optimizer", c.optimizer, ("sgd", "adam"))
    _one_of("dtype", c.dtype, ("float32", "bfloat16"))


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    require(value in choices, f"{name} = {value!r} must be one of {', '.join(choices)}")


def _check_views(c: Config) -> None:
    v = c.views
    for name, size in (("views.size", v.size), ("views.plain_size", v.plain_size), ("data.canvas", c.data.canvas)):
        require(size >= 8, f"{name} = {size} must be at least 8 pixels")
    require(0 < v.scale[0] <= v.scale[1] <= 1, f"views.scale = {v.scale} must rise within 0..1")
    require(0 < v.ratio[0] <= v.ratio[1], f"views.ratio = {v.ratio} must be positive and rise")
    require(0 <= v.blur[0] <= v.blur[1], f"views.blur = {v.blur} must rise from 0")
    for name in ("flip", "jitter", "gray"):
        require(0 <= getattr(v, name) <= 1, f"views.{name} = {getattr(v, name)} is a probability: 0..1")
    for name in ("brightness", "contrast", "saturation"):
        require(0 <= getattr(v, name) <= 1, f"views.{name} = {getattr(v, name)} must lie in 0..1")
    require(0 <= v.hue <= 0.5, f"views.hue = {v.hue} must lie in 0..0.5 (half the colour circle)")
    require(min(c.data.std) > 0, f"data.std = {c.data.std} must be positive")
    require(0 <= c.data.max_bad_fraction <= 1, f"data.max_bad_fraction = {c.data.max_bad_fraction} must lie in 0..1")
    require(c.data.threads >= 0, f"data.threads = {c.data.threads} must not be negative")


def _check_model(c: Config) -> None:
    m = c.model
    require(len(m.stage_sizes) >= 2, f"model.stage_sizes = {m.stage_sizes} must name at least two stages")
    for name in (
        "width",
        "head_hidden",
        "head_out",
        "patch",
        "vit_width",
        "vit_depth",
        "vit_heads",
        "decoder_width",
        "decoder_depth",
        "decoder_heads",
    ):
        require(getattr(m, name) >= 1, f"model.{name} = {getattr(m, name)} must be at least 1")
    require(min(m.stage_sizes) >= 1, f"model.stage_sizes = {m.stage_sizes} must be at least 1 each")
    require(m.last_stride in (1, 2), f"model.last_stride = {m.last_stride} must be 1 or 2")
    _one_of("model.masking", m.masking, ("semantic", "random"))
    _one_of("model.grouping_init", m.grouping_init, ("grouped", "he", "constant"))


def _check_facemae(c: Config) -> None:
    m = c.model
    require(
        c.views.plain_size % m.patch == 0,
        f"views.plain_size = {c.views.plain_size} is not divisible by model.patch = {m.patch}",
    )
    require(
        1 <= c.kept_patches < c.grid**2,
        f"mask_ratio = {c.mask_ratio} keeps {c.kept_patches} of {c.grid**2} patches; it must keep some and mask some",
    )
    require(c.n_groups >= 2, f"n_groups = {c.n_groups} must be at least 2")
    require(
        m.features % c.n_groups == 0,
        f"the trunk's {m.features} channels are not divisible into n_groups = {c.n_groups}",
    )
    for part, width, heads in (("vit", m.vit_width, m.vit_heads), ("decoder", m.decoder_width, m.decoder_heads)):
        require(
            width % 4 == 0, f"model.{part}_width = {width} must be divisible by 4 (positions: two axes, sin and cos)"
        )
        require(width % heads == 0, f"model.{part}_width = {width} is not divisible by model.{part}_heads = {heads}")


def as_dict(config: Any) -> dict[str, Any]:
    """A settings dataclass as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def digest(config: Any) -> str:
    """Twelve hexadecimal digits that name these settings."""
    return hashlib.sha256(json.dumps(as_dict(config), sort_keys=True).encode()).hexdigest()[:12]
