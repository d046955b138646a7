"""Compiles the step for a GPU that is not there, and says what its kernels are and which bytes they touch.

    python benchmarks/gpu_program.py --dtype bfloat16 --batch-size 256 --text step.txt [--target h200-1] [--json]

Needs jax-cuda13-plugin and jax-cuda13-pjrt of jax's version (pip install --no-deps). The program's text is kept in --text;
a text that is there already is read and nothing is compiled, so a program that was dumped on a card is read too. Bytes are
those of a kernel's operands and results, each counted once: the least that it moves, if no cache helps it.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the hardware of this machine is not asked for
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.kernels import Kernel, kernels


def main() -> None:
    options = parse()
    if not (options.text and options.text.exists()):
        text = compiled_text(options)
        if options.text:
            options.text.write_text(text)
    else:
        text = options.text.read_text()
    found = kernels(text)
    result = {
        "config": options.config, "batch_size": options.batch_size, "dtype": options.dtype, "target": options.target,
        "by_kind": summed(found, "kind", options.batch_size), "by_part": summed(found, "part", options.batch_size),
        "convolutions": layouts(found),
        "largest": [k._asdict() for k in sorted(found, key=lambda k: -k.times * k.bytes)[:20]],
    }  # fmt: skip
    print(json.dumps(result, indent=1) if options.json else table(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/simfle_reference.py")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--target", default="h200-1")
    parser.add_argument("--text", type=Path, help="file for the program's text, read where it is there")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args()


def compiled_text(options: argparse.Namespace) -> str:
    """The optimised program of one training step."""
    import jax

    from benchmarks.train_step import settings
    from simfle_jax import canvases, parallel
    from simfle_jax.kernels.backend import tracing_for
    from simfle_jax.planning import targets
    from simfle_jax.training.step import TrainStep

    config, target = settings(options, options.dtype), targets.find(options.target)
    mesh = parallel.mesh_of(target.devices())
    train_step = TrainStep(config, 1, mesh)
    state = jax.eval_shape(train_step.fresh_state)
    images = canvases.shapes(config.batch_size, config.canvas, config.own_sizes)
    with tracing_for(target.chip.platform):
        traced = train_step.jitted(parallel.state_shardings(mesh, state, False)).trace(state, images)
    return traced.lower().compile(compiler_options=target.compiler_options()).as_text()


def summed(found: list[Kernel], key: str, images: int) -> dict[str, dict[str, float]]:
    """Kernels, and megabytes for an image, by kind or part."""
    rows: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in found:
        rows[getattr(kernel, key)].append(kernel)
    sizes = {name: sum(k.times * k.bytes for k in row) / images / 1e6 for name, row in rows.items()}
    order = sorted(rows, key=lambda name: -sizes[name])
    return {name: {"kernels": sum(k.times for k in rows[name]), "MB_per_image": sizes[name]} for name in order}


def layouts(found: list[Kernel]) -> dict[str, int]:
    """How many convolutions there are of each type and order of axes."""
    counts: dict[str, int] = defaultdict(int)
    for kernel in found:
        if kernel.kind == "convolution":
            counts[f"{kernel.dtype} {kernel.detail}"] += kernel.times
    return dict(counts)


def table(result: dict[str, Any]) -> str:
    lines = [f"{result['config']}, batch {result['batch_size']}, {result['dtype']}, {result['target']}"]
    for key in ("by_kind", "by_part"):
        lines += ["", f"{key.replace('_', ' '):40}{'kernels':>9}{'MB an image':>13}"]
        lines += [f"  {name:38}{row['kernels']:9}{row['MB_per_image']:13.1f}" for name, row in result[key].items()]
    lines += ["", "convolutions", *(f"  {count:4} {name}" for name, count in result["convolutions"].items())]
    lines += ["", "the largest kernels, MB in a step"]
    for kernel in result["largest"]:
        size = kernel["times"] * kernel["bytes"] / 1e6
        lines.append(f"  {size:9.0f}  {kernel['kind']}, {kernel['part']}: {kernel['name']} {kernel['detail']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
