"""The end of a residual block: relu(x + y) to the bit, and computed once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simfle_jax.kernels.backend import tracing_for
from simfle_jax.kernels.residual import add_relu


def plain(x, y):
    return jax.nn.relu(x + y)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_value_and_gradients_are_those_of_relu_to_the_bit(dtype):
    x, y = (jnp.asarray(a, dtype) for a in np.random.default_rng(0).normal(size=(2, 500)))
    y = y.at[:50].set(-x[:50]).at[50:60].multiply(1e-6).at[60:70].multiply(1e6)  # sums of zero, and lost digits

    def probe(form):
        def scalar(x, y):
            z = form(x, y)
            return jnp.sum(z * jnp.sin(jnp.arange(z.size)).astype(dtype)), z

        (_, z), gradients = jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True))(x, y)
        return z, *gradients

    for ours, theirs in zip(probe(add_relu), probe(plain), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("form, maxima", [(add_relu, 5), (plain, 15)])
def test_a_block_does_not_repeat_the_blocks_before_it(form, maxima):
    """Five blocks in a row take five maxima; if the plain form does so too, add_relu has lost its reason."""

    def stage(x, kernels):
        for kernel in kernels:
            x = form(x, x @ kernel)
        return x

    program = jax.jit(stage).lower(jnp.ones((64, 32)), [jnp.ones((32, 32))] * 5).compile().as_text()
    assert len(re.findall(r" maximum\(", program)) == maxima


def test_other_backends_get_the_plain_form():
    with tracing_for("tpu"):
        program = str(jax.make_jaxpr(add_relu)(jnp.ones(3), jnp.ones(3)))
    assert "neg" not in program and "max" in program
