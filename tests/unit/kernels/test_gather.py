"""Tokens by their places, and that no sum of a step's gradient is left to atomic additions."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import settings

from simfle_jax import canvases, parallel
from simfle_jax.config import pretraining
from simfle_jax.kernels.backend import tracing_for
from simfle_jax.kernels.gather import tokens_at
from simfle_jax.training.step import TrainStep


def test_values_and_gradients_are_those_of_one_token_after_the_other():
    rng = np.random.default_rng(0)
    tokens, places = rng.normal(size=(3, 7, 2)), np.stack([rng.permutation(7)[:4] for _ in range(3)])
    found, back = jax.vjp(lambda x: tokens_at(x, jnp.asarray(places)), jnp.asarray(tokens, jnp.float32))
    gradient, expected = rng.normal(size=found.shape).astype(np.float32), np.zeros(tokens.shape, np.float32)
    for image, at in np.ndindex(places.shape):
        np.testing.assert_array_equal(found[image, at], tokens[image, places[image, at]].astype(np.float32))
        expected[image, places[image, at]] = gradient[image, at]
    np.testing.assert_array_equal(back(gradient)[0], expected)


@pytest.mark.parametrize("tie", ["patch", "published"])
def test_a_step_for_a_gpu_adds_nothing_in_an_order_of_its_own(tie):
    """Atomic additions come in any order, and the sum's last bits with them: a run that goes on would not be the same run."""
    config = pretraining(settings(facemae={"tie": tie}))
    train_step = TrainStep(config, 1, parallel.mesh_of(jax.devices()[:1]))
    state = jax.eval_shape(train_step.fresh_state)
    with tracing_for("cuda"):
        traced = train_step.jitted(None).trace(
            state, canvases.shapes(config.batch_size, config.canvas, config.own_sizes)
        )
    scattered = [one for one in equations(traced.jaxpr.jaxpr) if "scatter" in one.primitive.name]
    assert scattered, "the gradient of FaceMAE's kept patches is written by a scatter"
    loose = [str(one.source_info.traceback) for one in scattered if not one.params.get("unique_indices")]
    assert not loose, loose[0]


def equations(jaxpr: Any) -> Iterator[Any]:
    """Of a program and of all programs within it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)
