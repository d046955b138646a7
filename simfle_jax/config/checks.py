"""Every check of a setting, before any data is read or any array made."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simfle_jax.config.settings import Config
from simfle_jax.config.typed import check_seed, one_of, require, typed

# Found by file name, because importing a method imports JAX.
METHODS = tuple(
    sorted(path.stem for path in (Path(__file__).parents[1] / "methods").glob("[a-z]*.py") if path.stem != "base")
)


def pretraining(settings: Mapping[str, Any]) -> Config:
    """The checked settings of a pre-training run from a ConfigDict or a plain mapping.

    Raises:
        UserError: a setting is unknown, missing, of a wrong type or value, or does not go with another.
    """
    config = typed(Config, settings)
    for check in CHECKS:
        check(config)
    return config


def _check_training(c: Config) -> None:
    for name in ("epochs", "accumulate", "log_steps", "keep_checkpoints"):
        require(getattr(c, name) >= 1, f"{name} = {getattr(c, name)} must be at least 1")
    require(c.batch_size >= 2, f"batch_size = {c.batch_size} must be at least 2: BatchNorm needs several images")
    require(
        c.batch_size % c.accumulate == 0, f"batch_size = {c.batch_size} is not divisible by accumulate = {c.accumulate}"
    )
    require(
        c.batch_size // c.accumulate >= 2, f"accumulate = {c.accumulate} leaves fewer than 2 images in a micro-batch"
    )
    for name in ("checkpoint_steps", "report_every"):
        require(getattr(c, name) >= 0, f"{name} = {getattr(c, name)} must not be negative")
    check_seed(c.seed, "config: seed")
    one_of("dtype", c.dtype, ("float32", "bfloat16"))
    one_of("method", c.method, METHODS)
    require(c.monitor.epochs >= 1, f"monitor.epochs = {c.monitor.epochs} must be at least 1")
    one_of("monitor.protocol", c.monitor.protocol, ("knn", "logistic"))


def _check_optimizer(c: Config) -> None:
    o = c.optimizer
    one_of("optimizer.name", o.name, ("sgd", "adam", "adamw", "lars"))
    one_of("optimizer.schedule", o.schedule, ("epoch", "step"))
    one_of("optimizer.ema_schedule", o.ema_schedule, ("constant", "cosine"))
    one_of("optimizer.decay", o.decay, ("all", "kernels"))
    for name in ("lr", "trust"):
        require(getattr(o, name) > 0, f"optimizer.{name} = {getattr(o, name)} must be positive")
    for name in ("weight_decay", "warmup_epochs", "predictor_lr", "clip"):
        require(getattr(o, name) >= 0, f"optimizer.{name} = {getattr(o, name)} must not be negative")
    require(0 <= o.ema_decay <= 1, f"optimizer.ema_decay = {o.ema_decay} must lie in 0..1")
    require(0 <= o.momentum < 1, f"optimizer.momentum = {o.momentum} must be at least 0 and below 1")
    require(
        o.warmup_epochs < c.epochs, f"optimizer.warmup_epochs = {o.warmup_epochs} must be less than epochs = {c.epochs}"
    )


def _check_views(c: Config) -> None:
    v = c.views
    for name, size in (("views.size", v.size), ("views.plain_size", v.plain_size)):
        require(size >= 8, f"{name} = {size} must be at least 8 pixels")
    require(0 < v.scale[0] <= v.scale[1] <= 1, f"views.scale = {v.scale} must rise, from above 0 to at most 1")
    require(0 < v.ratio[0] <= v.ratio[1], f"views.ratio = {v.ratio} must be positive and rise")
    require(0 <= v.blur[0] <= v.blur[1], f"views.blur = {v.blur} must rise from 0")
    for name in ("flip", "jitter", "gray"):
        require(0 <= getattr(v, name) <= 1, f"views.{name} = {getattr(v, name)} is a probability: 0..1")
    for name in ("brightness", "contrast", "saturation"):
        require(0 <= getattr(v, name) <= 1, f"views.{name} = {getattr(v, name)} must lie in 0..1")
    require(0 <= v.hue <= 0.5, f"views.hue = {v.hue} must lie in 0..0.5 (half the colour circle)")
    require(v.light >= 0, f"views.light = {v.light} must not be negative")
    one_of("views.standardise", v.standardise, ("dataset", "image"))


def _check_data(c: Config) -> None:
    d = c.data
    require(d.canvas == 0 or d.canvas >= 8, f"data.canvas = {d.canvas} must be at least 8 pixels, or 0 to fit the data")
    require(d.fitted >= 0, f"data.fitted = {d.fitted} must not be negative")
    require(min(d.std) > 0, f"data.std = {d.std} must be positive")
    require(0 <= d.max_bad_fraction <= 1, f"data.max_bad_fraction = {d.max_bad_fraction} must lie in 0..1")
    require(d.threads >= 0, f"data.threads = {d.threads} must not be negative")


def _check_trunk(c: Config) -> None:
    t = c.trunk
    one_of("trunk.kind", t.kind, ("bottleneck", "basic", "vit"))
    require(t.width >= 1, f"trunk.width = {t.width} must be at least 1")
    require(len(t.stage_sizes) > 0, "trunk.stage_sizes is empty; (3, 4, 6, 3) is ResNet-50")
    require(min(t.stage_sizes) >= 1, f"trunk.stage_sizes = {t.stage_sizes} must be at least 1 each")
    for name in ("hidden", "out"):
        require(getattr(c.heads, name) >= 1, f"heads.{name} = {getattr(c.heads, name)} must be at least 1")
    require(c.heads.temperature > 0, f"heads.temperature = {c.heads.temperature} must be positive")
    (_check_vit if t.kind == "vit" else _check_resnet)(c)


def _check_resnet(c: Config) -> None:
    t = c.trunk
    require(len(t.stage_sizes) >= 2, f"trunk.stage_sizes = {t.stage_sizes} must name at least two stages")
    require(t.last_stride in (1, 2), f"trunk.last_stride = {t.last_stride} must be 1 or 2")


def _check_vit(c: Config) -> None:
    t = c.trunk
    require(len(t.stage_sizes) == 1, f"trunk.stage_sizes = {t.stage_sizes}: a ViT has one stage, e.g. (12,)")
    require(t.patch >= 1, f"trunk.patch = {t.patch} must be at least 1")
    _check_tokens("trunk", t.width, t.heads)
    for name, size in (("views.size", c.views.size), ("views.plain_size", c.views.plain_size)):
        require(size % t.patch == 0, f"{name} = {size} is not divisible by trunk.patch = {t.patch}")


def _check_tokens(room: str, width: int, heads: int, names: tuple[str, str] = ("width", "heads")) -> None:
    require(heads >= 1, f"{room}.{names[1]} = {heads} must be at least 1")
    require(width % 4 == 0, f"{room}.{names[0]} = {width} must be divisible by 4 (positions: two axes, sin and cos)")
    require(width % heads == 0, f"{room}.{names[0]} = {width} is not divisible by {room}.{names[1]} = {heads}")


def _check_facemae(c: Config) -> None:
    m = c.facemae
    for name in ("patch", "width", "depth", "decoder_width", "decoder_depth"):
        require(getattr(m, name) >= 1, f"facemae.{name} = {getattr(m, name)} must be at least 1")
    for name in ("alpha", "beta"):
        require(getattr(m, name) >= 0, f"facemae.{name} = {getattr(m, name)} must not be negative")
    require(m.temperature > 0, f"facemae.temperature = {m.temperature} must be positive")
    one_of("facemae.masking", m.masking, ("semantic", "random", "block"))
    one_of("facemae.tie", m.tie, ("published", "variance", "target", "patch"))
    one_of("facemae.grouping_init", m.grouping_init, ("grouped", "he", "constant"))
    _check_tokens("facemae", m.width, m.heads)
    _check_tokens("facemae", m.decoder_width, m.decoder_heads, ("decoder_width", "decoder_heads"))
    if c.method in ("simfle", "mae"):
        _check_masking(c)


def _check_masking(c: Config) -> None:
    m = c.facemae
    size = c.views.plain_size
    require(size % m.patch == 0, f"views.plain_size = {size} is not divisible by facemae.patch = {m.patch}")
    require(
        1 <= c.kept_patches < c.grid**2,
        f"facemae.mask_ratio = {m.mask_ratio} keeps {c.kept_patches} of {c.grid**2} patches; "
        "it must keep some and mask some",
    )
    if c.method == "mae":
        _check_mae(c)
        return
    require(m.n_groups >= 2, f"facemae.n_groups = {m.n_groups} must be at least 2")
    require(
        c.trunk.features % m.n_groups == 0,
        f"the trunk's {c.trunk.features} channels are not divisible into facemae.n_groups = {m.n_groups}",
    )


def _check_mae(c: Config) -> None:
    require(
        c.facemae.masking == "random",
        "method = 'mae' has no encoder whose channels could choose patches: give facemae.masking = 'random'",
    )
    require(c.trunk.kind == "vit", "method = 'mae' masks patches of a ViT: choose one, e.g. :vit_small_patch16_224")
    require(
        c.trunk.patch == c.facemae.patch,
        f"method = 'mae' masks the trunk's patches: facemae.patch = {c.facemae.patch} must be trunk.patch = {c.trunk.patch}",
    )


CHECKS: tuple[Callable[[Config], None], ...] = (
    _check_training, _check_optimizer, _check_views, _check_data, _check_trunk, _check_facemae,
)  # fmt: skip
