"""The training step as a program that is traced once, not at every start."""

from typing import Any

import jax
from jax import export

from simfle_jax import canvases, compilation, parallel, traced
from simfle_jax.config import as_dict
from simfle_jax.training.state import TrainState
from simfle_jax.training.step import Metrics, TrainStep


def step_program(step: TrainStep, shapes: TrainState, shardings: TrainState) -> Any:
    """`step.jitted(shardings)` with the options of a training program, its tracing and lowering kept (`traced.kept`).

    shapes: of the state's arrays, as `jax.eval_shape` gives them.
    """
    assert step.mesh is not None
    config, over, everywhere = step.config, parallel.over_data(step.mesh), parallel.replicated(step.mesh)
    images = canvases.shapes(config.batch_size, config.canvas, config.own_sizes)
    leaves, structure = jax.tree.flatten(shapes)
    image_leaves, image_structure = jax.tree.flatten(images)

    def on_leaves(leaves: list[jax.Array], images: list[jax.Array]) -> tuple[list[jax.Array], Metrics]:
        state, metrics = step(jax.tree.unflatten(structure, leaves), jax.tree.unflatten(image_structure, images))
        return jax.tree.leaves(state), metrics

    def trace() -> export.Exported:
        # State and images are of classes that a file cannot name, lists of arrays are not.
        placed = jax.tree.leaves(shardings)
        program = jax.jit(on_leaves, in_shardings=(placed, over), out_shardings=(placed, everywhere))
        return export.export(program)(leaves, image_leaves)

    identity = as_dict(config), step.steps_per_epoch, images, leaves, str(structure), shardings
    program = traced.kept(trace, identity)

    def train_step(state: TrainState, images: canvases.Images) -> tuple[TrainState, Metrics]:
        leaves, metrics = program.call(jax.tree.leaves(state), jax.tree.leaves(images))
        return jax.tree.unflatten(structure, leaves), metrics

    return step.jitted(shardings, compilation.training_options(), train_step)
