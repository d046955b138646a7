"""What a step must compute and exchange, counted from the program and the shapes alone, without a compiler."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from simfle_jax.config import Config
from simfle_jax.training.state import TrainState


def products(jaxpr: Any) -> float:
    """FLOPs of all matrix products and convolutions of a jaxpr, two for each multiplication with an addition."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            total += _dot(equation)
        elif equation.primitive.name == "conv_general_dilated":
            total += _convolution(equation)
        inner = [products(inner) for inner in _inner(equation.params.values())]
        if equation.primitive.name == "cond":  # one of its branches runs
            total += max(inner)
        else:
            total += (equation.params["length"] if equation.primitive.name == "scan" else 1) * sum(inner)
    return total


def _inner(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if hasattr(value, "jaxpr") and hasattr(value.jaxpr, "eqns"):  # a closed jaxpr
            yield value.jaxpr
        elif hasattr(value, "eqns"):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _inner(value)


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(equation: Any) -> float:
    """Taps that a dilated input leaves empty, as in the gradient of a strided convolution, are not counted."""
    numbers = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    per_output = math.prod(kernel) / kernel[numbers.rhs_spec[0]]
    holes = math.prod(equation.params["lhs_dilation"])
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * per_output / holes


def exchanged(config: Config, state: TrainState) -> dict[str, int]:
    """Bytes that devices reduce in one step with a replicated state: gradients, statistics, grouping matrix.

    Gradients of kernels travel in the compute type, those of vectors in float32. A BatchNorm layer reduces two moments
    in the forward pass and two sums in the backward pass, in float32; views x1 and x2 pass the online network with a
    gradient, the plain image passes its trunk without, and both views pass the target network without.
    """
    width = np.dtype(jax.numpy.dtype(config.dtype)).itemsize
    gradients = sum(x.size * (width if x.ndim > 1 else 4) for x in jax.tree.leaves(state.params))
    trained, target = state.stats, state.target_stats
    both_ways = (
        2 * _floats(trained["online"]) + 2 * _floats(trained.get("predictor")) + 2 * _floats(trained.get("distil_gfl"))
    )
    both_ways += _floats(trained.get("distil_ffl")) + _floats(trained.get("facemae"))
    semantic = config.method == "simfle" and config.facemae.masking == "semantic"
    forward = 2 * _floats(target)
    trunk = _floats(trained["online"]["encoder"])
    if "distil_map" in trained:  # a tie that trains the trunk's map of the plain image
        both_ways += trunk + _floats(trained["distil_map"])
    elif semantic:
        forward += trunk
    matrix = config.trunk.features**2 if semantic else 0
    # Every micro-batch has statistics and a matrix of its own; gradients are reduced in each as well.
    parts = config.accumulate
    return {
        "gradients": parts * gradients,
        "statistics": parts * 4 * (2 * both_ways + forward),
        "grouping matrix": parts * 4 * matrix,
    }


def _floats(tree: Any) -> int:
    """Numbers in the statistics of BatchNorm; the positions of a ViT are none of a batch."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return sum(x.size for path, x in leaves if path[-1].key != "positions")
