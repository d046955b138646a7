"""Tokens by their places."""

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax.kernels.gather import tokens_at


def test_values_and_gradients_are_those_of_one_token_after_the_other():
    rng = np.random.default_rng(0)
    tokens, places = rng.normal(size=(3, 7, 2)), np.stack([rng.permutation(7)[:4] for _ in range(3)])
    found, back = jax.vjp(lambda x: tokens_at(x, jnp.asarray(places)), jnp.asarray(tokens, jnp.float32))
    gradient, expected = rng.normal(size=found.shape).astype(np.float32), np.zeros(tokens.shape, np.float32)
    for image, at in np.ndindex(places.shape):
        np.testing.assert_array_equal(found[image, at], tokens[image, places[image, at]].astype(np.float32))
        expected[image, places[image, at]] = gradient[image, at]
    np.testing.assert_array_equal(back(gradient)[0], expected)
