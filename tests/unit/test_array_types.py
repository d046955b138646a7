"""The annotations of arrays are checked in tests (tests/conftest.py), and cost nothing outside of them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from simfle_jax import augment, losses
from simfle_jax.kernels.convolution import convolve
from simfle_jax.models.facemae import patchify


def test_two_arguments_must_agree_in_an_axis():
    # Without the check the rows would be broadcast to a loss that looks like any other.
    with pytest.raises(TypeCheckError, match="target"):
        losses.similarity(jnp.ones((4, 8)), jnp.ones((1, 8)))


def test_images_must_have_four_axes_and_be_bytes():
    with pytest.raises(TypeCheckError, match="images"):
        patchify(jnp.ones((16, 16, 3)), 8)
    with pytest.raises(TypeCheckError, match="images"):
        augment.plain_view(np.zeros((2, 16, 16, 3), np.float32), 8)


def test_a_wrong_argument_is_found_in_tracing():
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 8), jnp.float32)
    with pytest.raises(TypeCheckError, match="kernel"):
        jax.eval_shape(lambda images, kernel: convolve(images, kernel, 1), images, kernel)


def test_numpy_float64_and_abstract_arrays_pass():
    assert augment.plain_view(np.zeros((2, 16, 16, 3), np.uint8), 8).shape == (2, 8, 8, 3)
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    assert jax.eval_shape(lambda x: patchify(x, 8), images).shape == (2, 4, 192)
    with jax.enable_x64(True):
        assert losses.similarity(jnp.ones((4, 8)), jnp.ones((4, 8))).dtype == jnp.float64


def test_outside_of_tests_nothing_checks():
    code = "import jax.numpy as jnp, sys; from simfle_jax.losses import similarity; "
    code += "similarity(jnp.ones((4, 8)), jnp.ones((1, 8))); sys.exit('beartype' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["simfle_jax", "simfle_jax.faces"])
def test_neither_the_package_nor_the_face_generator_waits_for_jax(module):
    code = f"import sys, {module}; sys.exit(not {{'jax', 'jaxtyping', 'flax'}}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)
