"""Every form of a convolution gives lax's numbers, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simfle_jax.kernels.convolution import by_cells, by_lax, by_patches, convolve
from simfle_jax.kernels.product import product

SHAPES = {  # x, kernel, stride
    "narrow stem": ((2, 20, 20, 3), (7, 7, 3, 8), 2),
    "narrow stem, odd side": ((2, 19, 21, 3), (7, 7, 3, 8), 2),
    "small map": ((2, 2, 2, 64), (3, 3, 64, 16), 1),
    "small map, stride 2": ((2, 6, 5, 64), (3, 3, 64, 16), 2),
    "large map": ((2, 15, 15, 64), (3, 3, 64, 8), 2),
    "1x1 to more channels": ((2, 5, 6, 8), (1, 1, 8, 24), 1),
    "1x1 to fewer channels": ((2, 5, 6, 24), (1, 1, 24, 8), 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_value_and_gradients_are_those_of_lax(name):
    x_shape, kernel_shape, stride = SHAPES[name]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (x_shape, kernel_shape))

    def probe(form):
        def scalar(x, kernel):
            y = form(x, kernel, stride)
            return jnp.sum(y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)), y

        (_, y), grads = jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True))(x, kernel)
        return y, *grads

    form = convolve if kernel_shape[0] > 1 else lambda x, kernel, _: product(x, kernel[0, 0])
    for ours, theirs in zip(probe(form), probe(by_lax), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_forms_agree_with_a_convolution_written_out():
    rng = np.random.default_rng(1)
    x, kernel = rng.normal(size=(1, 5, 6, 2)), rng.normal(size=(3, 3, 2, 4))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((1, 3, 3, 4))
    for i, j in np.ndindex(3, 3):
        expected[0, i, j] = np.einsum("hwc,hwcd->d", padded[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel)
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    for form in (by_lax(x, kernel, 2), by_patches(x, kernel, 2), by_cells(x, kernel)):
        np.testing.assert_allclose(form, expected, rtol=1e-5, atol=1e-5)
