"""What a step that is traced for a GPU must not hold, since XLA:GPU computes it anew each time, or aborts at it."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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


COMPILE = """
import importlib, sys
import jax
jax.config.update("jax_platforms", "cpu")
from simfle_jax import canvases, parallel
from simfle_jax.config import pretraining
from simfle_jax.kernels.backend import tracing_for
from simfle_jax.planning import targets
from simfle_jax.training.step import TrainStep
file, trunk, method, size = sys.argv[1:]
config = importlib.import_module(f"configs.{file}").get_config(*trunk.split())
config.update(method=method, batch_size=32)
config.views.update(size=int(size), plain_size=int(size))
config = pretraining(config)
mesh = parallel.mesh_of(targets.find("h200-1").devices())
step = TrainStep(config, 1, mesh)
state = jax.eval_shape(step.fresh_state)
images = canvases.shapes(config.batch_size, config.canvas, config.own_sizes)
with tracing_for("cuda"):
    lowered = step.jitted(parallel.state_shardings(mesh, state, False)).trace(state, images).lower()
try:
    lowered.compile(compiler_options={"xla_gpu_autotune_level": 0})
except jax.errors.JaxRuntimeError as error:  # of what comes after the fusions: tiles are chosen on a card
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("jax_cuda13_plugin"), reason="needs jax-cuda13-plugin, for no card")
@pytest.mark.parametrize("size", [32, 48, 64, 96, 112])
@pytest.mark.parametrize(
    "file, trunk, method", [("demo", "", "simfle"), ("simfle", "resnet18", "byol"), ("simfle", "resnet50", "simfle")]
)
def test_products_are_fused_for_a_card_without_an_abort(file, trunk, method, size):
    """XLA:GPU ends the process where it fuses what it must not, so each program is compiled in one of its own."""
    command = [sys.executable, "-c", COMPILE, file, trunk, method, str(size)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (
        "\n".join(line for line in done.stderr.splitlines() if "Check failed" in line) or done.stderr[-2000:]
    )
