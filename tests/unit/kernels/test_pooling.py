"""Both forms of maximum pooling agree, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simfle_jax.kernels.pooling import by_axes, by_lax


@pytest.mark.parametrize("shape", [(2, 6, 8, 5), (2, 7, 9, 3), (1, 1, 2, 2), (1, 2, 1, 2)])
def test_values_and_gradients_are_those_of_lax(shape):
    rng = np.random.default_rng(0)
    # Whole numbers, and zeros where negative as behind a ReLU: most windows hold their maximum several times.
    x = jnp.asarray(np.maximum(rng.integers(-2, 3, shape), 0), jnp.float32)
    ours, our_gradient = jax.vjp(by_axes, x)
    theirs, their_gradient = jax.vjp(by_lax, x)
    np.testing.assert_array_equal(ours, theirs)
    dy = jnp.asarray(rng.normal(size=ours.shape), jnp.float32)
    np.testing.assert_allclose(our_gradient(dy)[0], their_gradient(dy)[0], atol=1e-6)
