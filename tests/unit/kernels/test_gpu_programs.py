"""What a step that is traced for a GPU must not hold, since XLA:GPU computes it anew each time, or aborts at it."""

from collections.abc import Iterator
from typing import Any

import jax
import pytest
from small import settings

from simfle_jax import canvases, parallel
from simfle_jax.config import pretraining
from simfle_jax.kernels.backend import tracing_for
from simfle_jax.training.step import TrainStep


@pytest.fixture
def traced(request) -> list[Any]:
    """The equations of a step of the small network with these settings, for a GPU."""
    config = pretraining(settings(**request.param))
    train_step = TrainStep(config, 1, parallel.mesh_of(jax.devices()[:1]))
    state = jax.eval_shape(train_step.fresh_state)
    with tracing_for("cuda"):
        program = train_step.jitted(None).trace(
            state, canvases.shapes(config.batch_size, config.canvas, config.own_sizes)
        )
    return [*equations(program.jaxpr.jaxpr)]


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


TIES = [{"facemae": {"tie": tie}} for tie in ("patch", "published")]
METHODS = [{"method": method} for method in ("byol", "simsiam", "moco_v3")]


@pytest.mark.parametrize("traced", TIES, indirect=True, ids=str)
def test_nothing_is_added_in_an_order_of_its_own(traced):
    """Atomic additions come in any order, and the sum's last bits with them: a run that goes on would not be the same run."""
    scattered = [one for one in traced if "scatter" in one.primitive.name]
    assert scattered, "the gradient of FaceMAE's kept patches is written by a scatter"
    loose = [str(one.source_info.traceback) for one in scattered if not one.params.get("unique_indices")]
    assert not loose, loose[0]


@pytest.mark.parametrize("traced", TIES + METHODS, indirect=True, ids=str)
def test_no_slice_has_a_stride(traced):
    """XLA:GPU fuses such a slice into a product as if it had none, and the process aborts: every pre-training at 48 to 112
    pixels did, with "Check failed: subdim_size_accumulator == dim_size" (openxla/xla issue 47381, jaxlib 0.11.2)."""
    slices = [one for one in traced if one.primitive.name == "slice"]
    assert slices, "the views of a batch are told apart by slices"
    strided = [str(one.source_info.traceback) for one in slices if any(s > 1 for s in one.params["strides"] or ())]
    assert not strided, strided[0]
