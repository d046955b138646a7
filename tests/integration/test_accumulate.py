"""Gradient accumulation against the micro-batches computed one by one."""

from functools import partial

import jax
import numpy as np
import small

from simfle_jax.training.accumulation import in_parts
from simfle_jax.training.step import Statistics, TrainStep
from simfle_jax.views import image_keys


def test_accumulation_is_the_mean_over_micro_batches_with_statistics_carried_on():
    config = small.config(accumulate=2)
    train_step = TrainStep(config, 10)
    state = jax.jit(train_step.fresh_state)()
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    keys = image_keys(0, 0, 8)
    start, one = Statistics(state.stats, state.target_stats), partial(train_step.gradients_of_images, state)
    (grads, terms), stats = jax.jit(partial(in_parts, one, 2))(start, keys, images)
    (first_grads, first_terms), after_first = jax.jit(one)(start, keys[0::2], images[0::2])
    (second_grads, second_terms), after_second = jax.jit(one)(after_first, keys[1::2], images[1::2])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # noqa: E731
    jax.tree.map(lambda mean, a, b: close(mean, (a + b) / 2), grads, first_grads, second_grads)
    jax.tree.map(lambda mean, a, b: close(mean, (a + b) / 2), terms, first_terms, second_terms)
    jax.tree.map(close, stats, after_second)
