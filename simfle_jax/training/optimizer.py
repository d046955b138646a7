"""Gradient descent as PyTorch does it, with the published schedule; LARS, AdamW and warm-up beside it."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer

from simfle_jax.config import OptimizerSettings


@runtime_checkable
class Course(Protocol):
    """What decides how parameters move: of pre-training, whose `Config` is one, or of fine-tuning."""

    @property
    def optimizer(self) -> OptimizerSettings: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def epochs(self) -> int: ...


def peak_learning_rate(config: Course) -> float:
    """The highest learning rate: `lr` is for a batch of 256 and grows with the batch."""
    return config.optimizer.lr * config.batch_size / 256


def schedule(config: Course, steps_per_epoch: int) -> Callable[[Integer[Array, ""]], Float[Array, ""]]:
    """Learning rate at a step: linear warm-up, then half a cosine, constant within each epoch or by step."""
    settings, peak = config.optimizer, peak_learning_rate(config)
    warmup = settings.warmup_epochs * steps_per_epoch

    def at(step: Integer[Array, ""]) -> Float[Array, ""]:
        if settings.schedule == "epoch" and not warmup:
            return 0.5 * peak * (1 + jnp.cos(jnp.pi * (step // steps_per_epoch) / config.epochs))
        if settings.schedule == "epoch":
            done = (step // steps_per_epoch - settings.warmup_epochs) / (config.epochs - settings.warmup_epochs)
        else:
            done = (step - warmup) / (config.epochs * steps_per_epoch - warmup)
        falling = 0.5 * peak * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
        return jnp.where(step < warmup, peak * (step + 1) / max(warmup, 1), falling)

    return at


def ema_decay(config: Course, steps_per_epoch: int, step: Integer[Array, ""]) -> Float[Array, ""] | float:
    """Share that the target network keeps at a step: constant as published, or rising to 1 by a cosine (BYOL's).

    BYOL, appendix B: tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2.
    """
    base = config.optimizer.ema_decay
    if config.optimizer.ema_schedule == "constant":
        return base
    done = step / (config.epochs * steps_per_epoch)
    return 1 - (1 - base) * 0.5 * (1 + jnp.cos(jnp.pi * done))


def optimizer(config: Course, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD in PyTorch's order: weight decay joins the gradient of every parameter, the rate multiplies the momentum."""
    settings = config.optimizer
    parts = [optax.clip_by_global_norm(settings.clip)] if settings.clip else []
    parts += _direction(config)
    if settings.predictor_lr != 1.0:
        parts.append(optax.masked(optax.scale(settings.predictor_lr), _of_predictor))
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule(config, steps_per_epoch)))


def _direction(config: Course) -> list[optax.GradientTransformation]:
    """What turns gradients into a direction, before the learning rate; decay in each paper's place."""
    settings = config.optimizer
    mask = _kernels if settings.decay == "kernels" else None
    decay = optax.add_decayed_weights(settings.weight_decay, mask)
    if settings.name == "adam":
        return [decay, optax.scale_by_adam()]
    if settings.name == "adamw":
        return [optax.scale_by_adam(), decay]
    if settings.name == "lars":  # biases and normalisations are neither decayed nor scaled, as in BYOL
        scaled = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=settings.trust), _kernels)
        return [optax.add_decayed_weights(settings.weight_decay, _kernels), scaled, optax.trace(settings.momentum)]
    return [decay, optax.trace(settings.momentum)]


def _kernels(params: Any) -> Any:
    """Which parameters are kernels: all but biases and the scales of normalisations."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def _of_predictor(params: Any) -> Any:
    return {name: jax.tree.map(lambda _, here=name == "predictor": here, part) for name, part in params.items()}
