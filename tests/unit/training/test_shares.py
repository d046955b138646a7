"""The share of the encoder's gradient that comes through the tie to FaceMAE."""

import jax
import numpy as np
import pytest
import small

from simfle_jax import compilation
from simfle_jax.training.shares import encoder_share
from simfle_jax.training.step import TrainStep

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)


def share(**facemae) -> float:
    train_step = TrainStep(small.config(facemae={"masking": "random", **facemae}), 10)
    quick = compilation.once()
    state = jax.jit(train_step.fresh_state, compiler_options=quick)()
    return float(jax.jit(lambda state: encoder_share(train_step, state, IMAGES), compiler_options=quick)(state))


def test_it_grows_with_the_weight_of_the_tie():
    one, ten = share(alpha=0.3), share(alpha=3.0)
    assert one > 0
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-3)


@pytest.mark.parametrize("tie", ["published", "patch"])
def test_without_weight_nothing_comes_through(tie):
    assert share(alpha=0.0, tie=tie) == 0


def test_a_tie_by_maps_reaches_the_encoder():
    assert share(alpha=0.3, tie="patch") > 0.01
