"""Gradient descent as PyTorch does it, with the published schedule."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from simfle_jax.config import Config


def peak_learning_rate(config: Config) -> float:
    """The first learning rate: `lr` is for a batch of 256 and grows with the batch."""
    return config.lr * config.batch_size / 256


def schedule(config: Config, steps_per_epoch: int) -> Callable[[jax.Array], jax.Array]:
    """Learning rate at a step: half a cosine over the epochs, constant within each of them, no warm-up."""

    def at(step: jax.Array) -> jax.Array:
        epoch = step // steps_per_epoch
        return 0.5 * peak_learning_rate(config) * (1 + jnp.cos(jnp.pi * epoch / config.epochs))

    return at


def optimizer(config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD in PyTorch's order: weight decay joins the gradient of every parameter, the rate multiplies the momentum."""
    if config.optimizer == "adam":
        inner = optax.scale_by_adam()
    else:
        inner = optax.trace(config.momentum)
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        inner,
        optax.scale_by_learning_rate(schedule(config, steps_per_epoch)),
    )
