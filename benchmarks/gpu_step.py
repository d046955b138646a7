"""One training step on the device at hand: seconds to the first, images/s, share of the peak, memory, and where it goes.

    python benchmarks/gpu_step.py --out step.json [--config configs/simfle_reference.py] [--batch-size 256] [--dtype bfloat16]

Every figure is written as soon as it is known. --profile adds three steps by part and by kind of kernel, in milliseconds of
a step, with the bytes that the program's text gives each kind (with XLA_FLAGS=--xla_gpu_enable_command_buffer= each kernel
has a name), and what differs between two times three steps.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

from benchmarks import kernels, step_flops, timing
from benchmarks.parts_file import PartsFile
from benchmarks.train_step import jitted, prepare, settings
from simfle_jax import compilation

BEGAN = time.monotonic()
PROFILED = 3  # steps


def main() -> None:
    options = parse()
    compilation.use_cache()
    known = {"config": options.config, "batch_size": options.batch_size, "dtype": options.dtype}
    out = PartsFile(options.out, machine=timing.machine(), **known)
    train_step, state, images = prepare(settings(options, options.dtype))
    before = time.monotonic()
    compiled = jitted(train_step).lower(state, images).compile()
    out.add(compile_seconds=time.monotonic() - before)
    steps = Steps(compiled, state, images)
    del state
    steps.run(1)
    out.add(first_step_seconds=time.monotonic() - BEGAN)
    seconds = steps.seconds(options.steps, options.rounds)
    out.add(step_seconds=seconds, images_per_second=options.batch_size / seconds)
    memory = compiled.memory_analysis()
    out.add(
        peak_device_bytes=timing.peak_device_memory(),
        program_bytes=memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else None,
    )
    flops = options.batch_size * step_flops.by_hand(train_step.config)["total"]
    peak = timing.matmul_flops(options.dtype)
    out.add(flops_by_hand=flops, peak_flops=peak, share_of_peak=flops / seconds / peak)
    if options.profile:
        out.add(**profile(steps, kernels.kernels(compiled.as_text()), options.batch_size))
        out.add(different_bits=different_bits(steps))
    out.add(complete=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/simfle_reference.py")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=10, help="timed together (10)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (3)")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="file for the results")
    return parser.parse_args()


class Steps:
    """The compiled step on one batch that stays on the device; the state goes from step to step."""

    def __init__(self, compiled: Any, state: Any, images: Any):
        self.compiled, self.state, self.images = compiled, state, images

    def run(self, count: int) -> None:
        """That many steps, waited for."""
        for _ in range(count):
            self.state, metrics = self.compiled(self.state, self.images)
        jax.block_until_ready((self.state, metrics))

    def seconds(self, count: int, rounds: int) -> float:
        """Of one step, where `count` follow each other."""
        self.run(2)
        return sorted(timing.once(lambda: self.run(count)) for _ in range(rounds))[rounds // 2] / count


def different_bits(steps: Steps) -> list[str]:
    """Names of the arrays that three steps, taken twice from the same state, leave with other bits; there should be none."""
    began, ends = jax.device_get(steps.state), []
    shardings = jax.tree.map(lambda x: x.sharding, steps.state)
    for _ in range(2):
        steps.state = jax.device_put(began, shardings)
        steps.run(3)
        ends.append(jax.device_get(steps.state))
    pairs = zip(*map(jax.tree_util.tree_leaves_with_path, ends))
    return [jax.tree_util.keystr(name) for (name, a), (_, b) in pairs if a.tobytes() != b.tobytes()]


def profile(steps: Steps, known: list[kernels.Kernel], images: int) -> dict[str, Any]:
    """Milliseconds of a step by part and by kind, and the kernels that take longest."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            steps.run(PROFILED)
        spent = kernel_seconds(next(Path(folder).rglob("*.xplane.pb")))
    by_name = {_plain(kernel.name): kernel for kernel in known}
    ms: dict[str, dict[str, float]] = {"part": defaultdict(float), "kind": defaultdict(float)}
    for name, seconds in spent.items():
        kernel = by_name.get(_plain(name))
        for key, sums in ms.items():
            sums[getattr(kernel, key) if kernel else f"other: {kernels.kind_of_name(name)}"] += 1e3 * seconds / PROFILED
    longest = sorted(spent.items(), key=lambda item: -item[1])[:25]
    moved: dict[str, float] = defaultdict(float)
    for kernel in known:
        moved[kernel.kind] += kernel.times * kernel.bytes / images / 1e6
    return {
        "ms_by_part": _sorted(ms["part"]),
        "ms_by_kind": _sorted(ms["kind"]),
        "MB_per_image_by_kind": _sorted(moved),
        "longest_kernels": [
            [name, 1e3 * seconds / PROFILED, _facts(by_name.get(_plain(name)))] for name, seconds in longest
        ],
    }


def kernel_seconds(file: Path) -> dict[str, float]:
    """Seconds by the name of the instruction, or of the kernel where a profile does not tell the instruction."""
    spent: dict[str, float] = defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                on_device = plane.name.startswith("/device:") and line.name.startswith("Stream")
                if "hlo_op" in stats or on_device:
                    name = str(stats.get("hlo_op") or event.name)
                    inside = name.startswith("command_buffer")  # of a CUDA graph, whose kernels have their own names
                    spent[event.name if inside else name] += event.duration_ns / 1e9
    return spent


def _plain(name: str) -> str:
    """Kernels of a GPU have the names of their instructions, with other signs."""
    return name.replace(".", "_").replace("-", "_")


def _sorted(sums: dict[str, float]) -> dict[str, float]:
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _facts(kernel: kernels.Kernel | None) -> list[Any]:
    return [kernel.kind, kernel.part, kernel.dtype, kernel.detail, kernel.bytes] if kernel else []


if __name__ == "__main__":
    main()
