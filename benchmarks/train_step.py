"""Times one training step, whole and in parts, beside a matrix product's peak and PyTorch's.

    python benchmarks/train_step.py --config configs/simfle_reference.py --batch-size 16 [--dtype float32 bfloat16] [--json]
    python benchmarks/train_step.py --config configs/demo.py --first-step     # seconds to it, cold and with a warm cache

Shown are medians. The parts are programs of their own, so they sum to more than the step, which shares between them.
PyTorch, where it is installed, runs in processes of its own and in turns with the step: ResNet-50 forward and backward
on one view per image, and a whole step in its own layers, without augmentation, in both layouts of images.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import step_flops, step_parts, timing
from benchmarks.parts_file import PartsFile
from simfle_jax import canvases, compilation, parallel
from simfle_jax.config import Config, pretraining
from simfle_jax.runs.checkpoint import Checkpoints
from simfle_jax.training import loop
from simfle_jax.training.step import TrainStep

ROOT = Path(__file__).parents[1]


def main() -> None:
    options = parse()
    if options.only_first:
        return first_step(options)
    known = {"config": options.config, "batch_size": options.batch_size, "size": options.size}
    out = PartsFile(options.out, **known, machine=timing.machine())
    if options.first_step:
        out.add(first_step=cold_and_warm(options))
    else:
        out.add(dtypes={})
        for dtype in options.dtype:
            measure(settings(options, dtype), options, out)
    out.add(complete=True)
    print(json.dumps(out.found, indent=2) if options.json else table(out.found))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/simfle_reference.py")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--size", type=int, help="side of the views and of the plain image, in pixels (the config's)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of which the median is taken (5)")
    parser.add_argument("--no-parts", action="store_true", help="the whole step only")
    parser.add_argument("--no-torch", action="store_true", help="without PyTorch beside it")
    parser.add_argument("--first-step", action="store_true", help="measure the start of a process instead")
    parser.add_argument("--only-first", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="file for the results, written as soon as they are known")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args()


def settings(options: argparse.Namespace, dtype: str) -> Config:
    """The settings in a file of configs/, after a colon its trunk, with the batch and the type asked for."""
    name, *trunk = options.config.split(":")
    path = ROOT / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        sys.exit(f"{Path(__file__).name}: there is no config {options.config}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*trunk)
    config.batch_size, config.dtype = options.batch_size, dtype
    if size := getattr(options, "size", None):
        config.views.update(size=size, plain_size=size)
        config.data.canvas = size
    return pretraining(config)


def prepare(config: Config) -> tuple[TrainStep, Any, jax.Array]:
    """The train_step, a fresh state and a batch of noise."""
    train_step = TrainStep(config, steps_per_epoch=1000)
    state = jax.jit(train_step.fresh_state, compiler_options=compilation.once())()
    return train_step, state, jax.tree.map(jax.numpy.asarray, noise(config))


def noise(config: Config) -> Any:
    """A batch of images of noise, of the canvas's size."""
    shape = (config.batch_size, config.canvas, config.canvas, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    sides = np.full(config.batch_size, config.canvas, np.int32)
    return canvases.Canvases(pixels, sides) if config.own_sizes else pixels


def jitted(train_step: TrainStep) -> Any:
    """The step as train.py compiles it, with its state donated."""
    return jax.jit(train_step, donate_argnums=0, compiler_options=compilation.training_options())


def measure(config: Config, options: argparse.Namespace, out: PartsFile) -> None:
    """Everything about the step in one type, into `out` as soon as it is known."""
    result: dict[str, Any] = {}

    def tell(**found: Any) -> None:
        result.update(found)
        out.add(dtypes=out.found["dtypes"] | {config.dtype: result})

    train_step, state, images = prepare(config)
    peak = timing.matmul_flops(config.dtype)
    began = time.perf_counter()
    compiled = jitted(train_step).lower(state, images).compile()
    tell(compile_seconds=time.perf_counter() - began, peak_flops=peak)
    # The parts first: the step gives the state's memory away.
    if not options.no_parts:
        calls = step_parts.parts(train_step, state, images)
        tell(parts_seconds={name: timing.seconds(call, options.rounds) for name, call in calls.items()})
        del calls
    held = [state]
    del state

    def step() -> Any:
        held[0], metrics = compiled(held[0], images)
        return metrics

    times = in_turns({"step": step, "augmentation": step_parts.augmentation(train_step, images)}, options.rounds)
    tell(**numbers(config, compiled, peak, times))
    if not options.no_torch and importlib.util.find_spec("torch"):
        for name, found in beside_torch(config, step, options.rounds):
            tell(torch=result.get("torch", {}) | {name: found})


def beside_torch(config: Config, step: Callable[[], Any], rounds: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Each of PyTorch's programs with its seconds, and those of our step in turns with it."""
    from benchmarks import torch_step

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    for name in torch_step.NAMES:
        with torch_step.in_own_process(name, config, device) as call:
            times = in_turns({"ours": step, "theirs": call}, rounds)
        ours, theirs = times["ours"], times["theirs"]
        yield name, {"seconds": theirs, "step_seconds": ours, "ratio": ours / theirs}


def in_turns(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, measured in turns after one round to warm up.

    Each is called twice in its turn and the second call counts: in training a step follows a step, not another program.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, call in contestants.items():
            jax.block_until_ready(call())
            elapsed = timing.once(call)
            if turn:
                found[name].append(elapsed)
    return {name: statistics.median(values) for name, values in found.items()}


def numbers(config: Config, compiled: Any, peak: float, times: dict[str, float]) -> dict[str, Any]:
    """What follows from the times, the compiled program and the shapes."""
    by_hand = step_flops.by_hand(config)
    flops, seconds = config.batch_size * by_hand["total"], times["step"]
    memory = compiled.memory_analysis()
    return {
        "step_seconds": seconds,
        "augmentation_seconds": times["augmentation"],
        "images_per_second": config.batch_size / seconds,
        "flops_by_hand": flops,
        "gflops_per_image_by_hand": {name: value / 1e9 for name, value in by_hand.items()},
        "flops_compiled": (compiled.cost_analysis() or {}).get("flops"),
        "bytes_compiled": (compiled.cost_analysis() or {}).get("bytes accessed"),
        "share_of_peak": flops / seconds / peak,
        "program_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else None,
        "peak_host_bytes": timing.peak_host_memory(),
        "peak_device_bytes": timing.peak_device_memory(),
    }


def cold_and_warm(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the start of a process to the end of its first step, with an empty and then with a filled cache."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        command = [sys.executable, __file__, "--only-first", "--config", options.config]
        command += ["--batch-size", str(options.batch_size), "--dtype", options.dtype[0]]
        for name in ("cold", "warm"):
            began = time.perf_counter()
            done = subprocess.run(
                command, check=True, env=environment | {"XDG_CACHE_HOME": cache}, stdout=subprocess.PIPE, text=True
            )
            found[name] = {"seconds": time.perf_counter() - began} | json.loads(done.stdout)
    return found | {"ratio": found["cold"]["seconds"] / found["warm"]["seconds"]}


def first_step(options: argparse.Namespace) -> None:
    """The process that `cold_and_warm` starts: one step as train.py makes it, and where its seconds went, as JSON."""
    compilation.use_cache()
    times = [time.perf_counter()]
    config, mesh = settings(options, options.dtype[0]), parallel.data_mesh()
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), 1) as checkpoints:
        state, step = loop.prepare(config, TrainStep(config, 1000, mesh), mesh, checkpoints)
    jax.block_until_ready(state)
    times.append(time.perf_counter())
    images = parallel.to_devices(noise(config), mesh)
    compiled = step.lower(state, images).compile()
    times.append(time.perf_counter())
    jax.block_until_ready(compiled(state, images))
    times.append(time.perf_counter())
    names = ("state and traced step", "compiled step", "step")
    print(json.dumps({name: after - before for name, before, after in zip(names, times, times[1:])}))


def table(result: dict[str, Any]) -> str:
    """The results as text."""
    lines = [f"{result['config']}, batch {result['batch_size']}, {', '.join(result['machine']['devices'])}"]
    first = result.get("first_step", {})
    for name in [name for name in ("cold", "warm") if name in first]:
        lines.append(f"first step, {name}: " + ", ".join(f"{key} {value:.1f} s" for key, value in first[name].items()))
    for dtype, row in result.get("dtypes", {}).items():
        lines += [
            f"{dtype}: {1000 * row['step_seconds']:.1f} ms, {row['images_per_second']:.4g} images/s, "
            f"{100 * row['share_of_peak']:.0f} % of {row['peak_flops'] / 1e9:.4g} GFLOP/s",
            f"  compiled in {row['compile_seconds']:.1f} s; {row['flops_by_hand'] / 1e9:.4g} GFLOP by hand, "
            f"{(row['flops_compiled'] or 0) / 1e9:.4g} by the compiler; "
            f"{(row['peak_device_bytes'] or row['peak_host_bytes']) / 2**30:.1f} GiB at most",
        ]
        lines += [f"  {1000 * t:10.1f} ms  {name}" for name, t in row.get("parts_seconds", {}).items()]
        lines.append(f"  {1000 * row['augmentation_seconds']:10.1f} ms  augmentation, a part of the step")
        for name, pair in row.get("torch", {}).items():
            lines.append(
                f"  {1000 * pair['seconds']:10.1f} ms  PyTorch's {name}; our step, in turns with it, "
                f"{1000 * pair['step_seconds']:.1f} ms: {pair['ratio']:.2f} times"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
