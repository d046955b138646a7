"""The ceiling of a probe: the same trunk trained on the labels, by the probe's random crops and flips."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from simfle_jax import augment, compilation
from simfle_jax.encoder import Encoder
from simfle_jax.progress import Progress
from simfle_jax.training.state import statistics
from simfle_jax.views import image_keys


def train_supervised(
    encoder: Encoder, images: np.ndarray, labels: np.ndarray, classes: int, epochs: int, batch_size: int, seed: int
) -> Encoder:
    """An encoder trained from `encoder`'s arrays with a linear classifier and Adam (2e-3, cosine to zero).

    images: uint8 [N, S, S, 3]; labels: int [N]. Returns the trunk alone, to be probed as any other.
    """
    batch_size = min(batch_size, len(images))
    steps = len(images) // batch_size
    tx = optax.adam(optax.cosine_decay_schedule(2e-3, epochs * steps))
    weights = {"trunk": encoder.arrays["params"], "fc": jnp.zeros((encoder.dim, classes))}

    def loss_of(weights: Any, stats: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
        features, stats = encoder.training_features({"params": weights["trunk"], "stats": stats}, x, statistics)
        return optax.softmax_cross_entropy_with_integer_labels(features.pooled @ weights["fc"], y).mean(), stats

    @partial(jax.jit, compiler_options=compilation.training_options())
    def step(
        weights: Any, stats: Any, opt_state: Any, number: jax.Array, batch: jax.Array, y: jax.Array
    ) -> tuple[Any, Any, Any]:
        keys = image_keys(seed, number, batch_size)
        x = augment.random_crop_and_flip(keys, batch, encoder.size, (0.6, 1.0), (3 / 4, 4 / 3), 0.5)
        x = encoder.preprocess(x)
        with jax.default_matmul_precision("float32"):
            (_, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(weights, stats, x, y)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(weights, updates), stats, opt_state

    stats, opt_state = encoder.arrays["stats"], tx.init(weights)
    progress = Progress(epochs * steps, "supervised")
    for number in range(epochs * steps):
        epoch, at = divmod(number, steps)
        rows = np.random.default_rng((seed, epoch)).permutation(len(images))[at * batch_size : (at + 1) * batch_size]
        weights, stats, opt_state = step(weights, stats, opt_state, number, images[rows], labels[rows])
        progress.update(number + 1)
    trained = jax.device_get({"params": weights["trunk"], "stats": stats})
    return Encoder(trained, encoder.trunk, encoder.metadata | {"method": "supervised"})
