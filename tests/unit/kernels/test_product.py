"""Products, affine maps and their gradients are JAX's own, whichever factor is laid out anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simfle_jax.kernels.backend import tracing_for
from simfle_jax.kernels.product import affine, linear, product

FORMS = {
    "product": (product, lambda x, kernel: x @ kernel),
    "linear": (linear, lambda x, kernel, bias: x @ kernel + bias),
    "affine": (affine, lambda x, scale, bias: x * scale + bias),
}


def gradients(form, arrays):
    def scalar(*arrays):
        y = form(*arrays)
        return jnp.sum(y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)), y

    (_, y), grads = jax.jit(jax.value_and_grad(scalar, tuple(range(len(arrays))), has_aux=True))(*arrays)
    return y, *grads


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("x_shape", [(2, 5, 6, 8), (3, 7, 8), (4, 8)])
@pytest.mark.parametrize("outputs", [3, 8, 24])
@pytest.mark.parametrize("name", FORMS)
def test_value_and_gradients(name, outputs, x_shape, platform):
    ours, plain = FORMS[name]
    width = x_shape[-1]
    shapes = {"product": [(width, outputs)], "linear": [(width, outputs), (outputs,)], "affine": [(width,), (width,)]}
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (x_shape, *shapes[name])]
    expected = gradients(plain, arrays)
    with tracing_for(platform):
        found = gradients(ours, arrays)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_gradients_of_bfloat16_are_summed_in_float32():
    x = jnp.ones((4096, 2), jnp.bfloat16)
    gradient = jax.grad(lambda bias: linear(x, jnp.ones((2, 2), jnp.bfloat16), bias).astype(jnp.float32).sum())
    assert gradient(jnp.zeros(2, jnp.bfloat16)).tolist() == [4096, 4096], "bfloat16 counts to 256"
