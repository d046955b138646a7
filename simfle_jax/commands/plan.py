"""Compiles the training step for hardware that is not there, and says what it needs and how fast it can be.

    python -m simfle_jax.plan --config=configs/simfle.py --target=tpu-v5e-256 --config.dtype=bfloat16 --config.batch_size=4096
    python -m simfle_jax.plan --config=configs/simfle.py --target=h200-8 --json

Targets: tpu-v4-N, tpu-v5e-N, tpu-v5p-N, tpu-v6e-N (N chips; needs libtpu), h100-N, h200-N (N GPUs of one host; needs
jax-cuda13-plugin and jax-cuda13-pjrt) and cpu-N. No data is read and nothing is trained. The paper's sizes take ten
minutes to compile for a TPU on one core of a CPU.
"""

import json
import math
import os
import re
from typing import Any

from absl import flags

from simfle_jax.commands import cli
from simfle_jax.config import pretraining
from simfle_jax.errors import UserError


def make_plan(config: Any, name: str) -> Any:
    """The Plan of a checked Config for the target of this name.

    Raises:
        UserError: an unknown target, a missing package, a batch that the devices do not divide, or too little memory.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the hardware of this machine is not asked for
    import jax

    from simfle_jax import canvases, compilation, parallel
    from simfle_jax.kernels.backend import tracing_for
    from simfle_jax.planning import expected, targets
    from simfle_jax.planning.collectives import collectives
    from simfle_jax.planning.report import Plan
    from simfle_jax.training.step import TrainStep

    target = targets.find(name)
    target.announce()
    compilation.require_device()
    mesh = parallel.mesh_of(target.devices())
    parallel.check_batch(config.batch_size, mesh, config.accumulate)
    train_step = TrainStep(config, 1, mesh)
    state = jax.eval_shape(train_step.fresh_state)
    shardings = parallel.state_shardings(mesh, state, config.shard_state)
    images = canvases.shapes(config.batch_size, config.canvas, config.own_sizes)
    with tracing_for(target.chip.platform):
        traced = train_step.jitted(shardings).trace(state, images)
    compiled = _compile(traced, target, config)
    text, cost = compiled.as_text(), compiled.cost_analysis() or {}
    return Plan(
        target=target,
        batch_size=config.batch_size,
        dtype=config.dtype,
        memory=_memory(
            compiled.memory_analysis(), state, shardings, config.batch_size * config.canvas**2 * 3 // mesh.size
        ),
        collectives=collectives(text, mesh.size, config.accumulate),
        expected=expected.exchanged(config, state),
        flops=expected.products(traced.jaxpr) / mesh.size,
        compiler_flops=cost.get("flops"),
        compiler_bytes=cost.get("bytes accessed"),
        compiler_seconds=estimated_seconds(cost, text) if target.chip.platform == "tpu" else None,
    )


def _compile(traced: Any, target: Any, config: Any) -> Any:
    from jax.errors import JaxRuntimeError

    try:
        return traced.lower().compile(compiler_options=target.compiler_options())
    except JaxRuntimeError as error:
        message = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" in message:
            raise UserError(f"{target.name}: {too_large(message, config, target.count)}") from None
        raise UserError(f"the compiler for {target.name} refuses the step: {message[:300]}") from None


def too_large(message: str, config: Any, devices: int) -> str:
    """What the compiler's RESOURCE_EXHAUSTED means for a user, and which settings help."""
    from simfle_jax.training.memory import ways

    sizes = re.search(r"\(([\d.]+)G\) exceeds available HBM \(([\d.]+)G\)|Used ([\d.]+)G of ([\d.]+)G", message)
    used, there = [size for size in sizes.groups() if size] if sizes else ("more memory", "what there is")
    needs = f"{used} GiB of {there} GiB" if sizes else f"{used} than {there}"
    return f"the step needs {needs} on each device; try {', or '.join(ways(config, devices))}"


def _memory(analysis: Any, state: Any, shardings: Any, images: int) -> Any:
    import jax

    from simfle_jax.planning.report import Memory

    def size(part: str) -> int:
        leaves = zip(jax.tree.leaves(getattr(state, part)), jax.tree.leaves(getattr(shardings, part)), strict=True)
        return sum(math.prod(where.shard_shape(x.shape)) * x.dtype.itemsize for x, where in leaves)

    return Memory(
        parameters=size("params"),
        target_parameters=size("target_params"),
        optimizer=size("opt_state"),
        statistics=size("stats") + size("target_stats"),
        images=images,
        workspace=analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        program=analysis.generated_code_size_in_bytes,
    )


def estimated_seconds(cost: dict[str, float], text: str) -> float | None:
    """The compiler's estimate of a step, in which it counts every call of a routine that it cannot judge as -1 s."""
    if "optimal_seconds" not in cost:
        return None
    unknown = len(re.findall(r'custom_call_target="ConcatBitcast"', text))
    seconds = cost["optimal_seconds"]
    seconds += unknown if seconds < 0 else 0
    return seconds if seconds > 0 else None


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    cli.define_config()
    flags.DEFINE_string("target", None, "Hardware to compile for, e.g. tpu-v5e-256, h200-8 or cpu-8.", required=True)
    flags.DEFINE_bool("json", False, "Print one JSON object in place of the table.")
    cli.start(_run, __doc__, argv)


def _run() -> None:
    plan = make_plan(pretraining(flags.FLAGS.config), flags.FLAGS.target)
    print(json.dumps(plan.as_dict()) if flags.FLAGS.json else plan.table())
