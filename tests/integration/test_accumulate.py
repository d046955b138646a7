"""Gradient accumulation against the micro-batches computed one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import small

from simfle_jax.training.step import TrainStep
from simfle_jax.views import image_keys


def test_accumulation_is_the_mean_over_micro_batches_with_statistics_carried_on():
    config = small.config(accumulate=2)
    train_step = TrainStep(config, 10)
    state = jax.jit(train_step.fresh_state)()
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    keys = image_keys(0, jnp.asarray(0), 8)
    grads, terms, stats, target_stats = jax.jit(train_step.accumulated)(state, keys, images)

    one = jax.jit(train_step.from_images)
    first = one(state, keys[0::2], images[0::2])
    second = one(dataclasses.replace(state, stats=first[2], target_stats=first[3]), keys[1::2], images[1::2])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # noqa: E731
    jax.tree.map(lambda mean, a, b: close(mean, (a + b) / 2), grads, first[0], second[0])
    jax.tree.map(lambda mean, a, b: close(mean, (a + b) / 2), terms, first[1], second[1])
    jax.tree.map(close, (stats, target_stats), second[2:])
