"""Normalisation by the batch against the same written out and differentiated by JAX, and against its law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simfle_jax.kernels.batch_norm import EPSILON, normalise_batch
from simfle_jax.kernels.column_sums import column_sums


def written_out(x, scale, bias):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + EPSILON) * scale + bias


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 1, 3, 6), (9, 6)])
def test_value_statistics_and_gradients(shape):
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(0.5, 2, shape), jnp.float32) for _ in range(2))
    scale, bias = (jnp.asarray(rng.normal(size=shape[-1]), jnp.float32) for _ in range(2))
    (y, mean, var), gradient = jax.vjp(normalise_batch, x, scale, bias)
    expected, expected_gradient = jax.vjp(written_out, x, scale, bias)
    axes = tuple(range(len(shape) - 1))
    for name, found, right in [
        ("value", y, expected),
        ("mean", mean, x.mean(axes)),
        ("variance", var, x.var(axes)),
        *zip(("dx", "dscale", "dbias"), gradient((dy, jnp.ones_like(mean), jnp.ones_like(var))), expected_gradient(dy)),
    ]:
        np.testing.assert_allclose(found, right, rtol=2e-5, atol=2e-5, err_msg=name)


def test_bfloat16_is_normalised_in_float32():
    x = jnp.asarray(np.random.default_rng(1).normal(100, 1, (4, 6, 6, 3)), jnp.bfloat16)
    y, mean, var = normalise_batch(x, jnp.ones(3), jnp.zeros(3))
    assert y.dtype == jnp.bfloat16 and mean.dtype == var.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.asarray(x, np.float64).mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 2.0, 10.0])
def test_bfloat16_has_the_error_of_its_values_and_not_of_its_factors(mean):
    """A factor that is rounded to bfloat16 moves a whole channel."""
    x = jnp.asarray(np.random.default_rng(0).normal(mean, 1, (4096, 64)), jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    found = np.asarray(normalise_batch(x, jnp.ones(64), jnp.zeros(64))[0], np.float64)
    assert np.sqrt(((found - exact) ** 2).mean()) < 0.0022 and np.abs((found - exact).mean(0)).max() < 0.001


def test_column_sums_of_maps_are_those_of_their_rows():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 7, 5, 4)), jnp.float32)
    maps = column_sums(lambda x: (x, x**2), x)
    rows = column_sums(lambda x: (x, x**2), x.reshape(-1, 4))
    np.testing.assert_allclose(maps, rows, rtol=1e-5)
