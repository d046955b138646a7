"""The layers in which XLA:CPU is slow: as XLA has them, as they are here, and in PyTorch, one core each.

    taskset -c 0 python benchmarks/layers.py [--batch-size 8] [--json]

Milliseconds, the median of rounds in which all take turns. Needs PyTorch.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import timing
from simfle_jax.compilation import training_options
from simfle_jax.kernels import pooling
from simfle_jax.kernels.batch_norm import EPSILON, normalise_batch
from simfle_jax.kernels.convolution import by_lax, convolve
from simfle_jax.kernels.product import product

Calls = dict[str, Callable[[], Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    b = options.batch_size
    layers = {
        "3x3 weight gradient, 56 x 56, 64": weight_gradient((b, 56, 56, 64), 64, 3, 1),
        "3x3 weight gradient, 28 x 28, 128": weight_gradient((b, 28, 28, 128), 128, 3, 1),
        "3x3 weight gradient, 14 x 14, 256": weight_gradient((b, 14, 14, 256), 256, 3, 1),
        "7x7 weight gradient of the stem": weight_gradient((b, 224, 224, 3), 64, 7, 2),
        "BatchNorm, 112 x 112, 64, and back": batch_norm((b, 112, 112, 64)),
        "BatchNorm, 56 x 56, 256, and back": batch_norm((b, 56, 56, 256)),
        "BatchNorm, 14 x 14, 1024, and back": batch_norm((b, 14, 14, 1024)),
        "1x1 and BatchNorm, 56 x 56, 64 to 256": widening((b, 56, 56, 64), 256),
        "1x1 and BatchNorm, 14 x 14, 256 to 1024": widening((b, 14, 14, 256), 1024),
        "maximum pooling, 112 x 112, 64, and back": maximum_pooling((b, 112, 112, 64)),
    }
    found = {name: in_turns(calls, options.rounds) for name, calls in layers.items()}
    result = {"machine": timing.machine(), "batch_size": b, "milliseconds": found}
    print(json.dumps(result, indent=2) if options.json else table(found))


def in_turns(calls: Calls, rounds: int) -> dict[str, float]:
    """Median milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            elapsed = timing.once(call)
            if turn:
                times[name].append(1000 * elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def gradient(
    form: Callable[..., jax.Array], options: Any, of: tuple[int, ...], *arrays: jax.Array
) -> Callable[[], Any]:
    """A compiled call of a layer and of its gradient by the arguments `of`."""

    def scalar(*arrays: jax.Array) -> jax.Array:
        return jnp.square(form(*arrays)).sum()

    compiled = jax.jit(jax.grad(scalar, of), compiler_options=options).lower(*arrays).compile()
    return lambda: compiled(*arrays)


def channels_last(shape: tuple[int, ...]) -> torch.Tensor:
    batch, height, width, channels = shape
    x = torch.randn(batch, channels, height, width)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def weight_gradient(shape: tuple[int, ...], outputs: int, size: int, stride: int) -> Calls:
    x, dy = jnp.ones(shape), jnp.ones((shape[0], shape[1] // stride, shape[2] // stride, outputs))
    kernel = jnp.ones((size, size, shape[3], outputs))

    def of(form: Callable[..., jax.Array], options: Any) -> Callable[[], Any]:
        def backward(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
            return jax.vjp(lambda kernel: form(x, kernel, stride), kernel)[1](dy)[0]

        compiled = jax.jit(backward, compiler_options=options).lower(x, kernel, dy).compile()
        return lambda: compiled(x, kernel, dy)

    theirs = channels_last(shape).detach()
    convolution = torch.nn.Conv2d(shape[3], outputs, size, stride, size // 2, bias=False)
    convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight, gradients = convolution.weight.detach(), convolution(theirs).detach()
    pairs = [stride] * 2, [size // 2] * 2, [1, 1]

    def in_torch() -> None:
        torch.ops.aten.convolution_backward(
            gradients, theirs, weight, None, *pairs, False, [0, 0], 1, [False, True, False]
        )

    return {"XLA": of(by_lax, None), "here": of(convolve, training_options()), "PyTorch": in_torch}


def written_out(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Batch normalisation as one would write it."""
    mean = x.mean((0, 1, 2))
    var = jnp.square(x).mean((0, 1, 2)) - jnp.square(mean)
    return (x - mean) * jax.lax.rsqrt(var + EPSILON) * scale + bias


def batch_norm(shape: tuple[int, ...]) -> Calls:
    x, scale, bias = jnp.ones(shape), jnp.ones(shape[3]), jnp.zeros(shape[3])

    module, theirs = torch.nn.BatchNorm2d(shape[3]), channels_last(shape)
    return {
        "XLA": gradient(written_out, None, (0, 1, 2), x, scale, bias),
        "here": gradient(lambda *a: normalise_batch(*a)[0], training_options(), (0, 1, 2), x, scale, bias),
        "PyTorch": lambda: module(theirs).square().sum().backward(),
    }


def widening(shape: tuple[int, ...], outputs: int) -> Calls:
    """A convolution of 1x1 and batch normalisation, forward and backward."""
    x, kernel = jnp.ones(shape), jnp.ones((shape[3], outputs))
    arrays = x, kernel, jnp.ones(outputs), jnp.zeros(outputs)
    convolution = torch.nn.Conv2d(shape[3], outputs, 1, bias=False)
    module, theirs = torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(outputs)), channels_last(shape)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def here(x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return normalise_batch(product(x, kernel), scale, bias)[0]

    return {
        "XLA": gradient(lambda x, kernel, *a: written_out(x @ kernel, *a), None, (0, 1, 2, 3), *arrays),
        "here": gradient(here, training_options(), (0, 1, 2, 3), *arrays),
        "PyTorch": lambda: module(theirs).square().sum().backward(),
    }


def maximum_pooling(shape: tuple[int, ...]) -> Calls:
    x = jax.random.normal(jax.random.key(0), shape)
    module, theirs = torch.nn.MaxPool2d(3, 2, padding=1), channels_last(shape)
    return {
        "XLA": gradient(pooling.by_lax, None, (0,), x),
        "here": gradient(pooling.max_pool, training_options(), (0,), x),
        "PyTorch": lambda: module(theirs).square().sum().backward(),
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """The results as text."""
    lines = [f"{'ms':42}" + "".join(f"{name:>10}" for name in next(iter(found.values())))]
    lines += [f"{layer:42}" + "".join(f"{time:10.1f}" for time in row.values()) for layer, row in found.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
