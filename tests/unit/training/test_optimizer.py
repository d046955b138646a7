"""The optimizer against PyTorch's SGD written out."""

import jax.numpy as jnp
import numpy as np
import small

from simfle_jax.training.optimizer import optimizer


def test_steps_are_those_of_pytorchs_sgd():
    """Over three epochs of two steps: the rate changes, so that it matters where it enters."""
    config = small.config(epochs=3, batch_size=64, lr=0.4, momentum=0.9, weight_decay=0.1)
    tx, random = optimizer(config, steps_per_epoch=2), np.random.default_rng(0)
    ours = random.normal(size=5).astype(np.float32)
    theirs, velocity, state = ours.astype(np.float64), 0.0, tx.init(jnp.asarray(ours))
    for step in range(6):
        gradient = random.normal(size=5).astype(np.float32)
        updates, state = tx.update(jnp.asarray(gradient), state, jnp.asarray(ours))
        ours = np.asarray(ours + updates)
        rate = 0.4 * 64 / 256 * 0.5 * (1 + np.cos(np.pi * (step // 2) / 3))
        velocity = 0.9 * velocity + gradient + 0.1 * theirs
        theirs = theirs - rate * velocity
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=f"step {step}")
