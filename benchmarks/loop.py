"""What share of the training loop's time is the step itself, and how often the step is compiled.

    python benchmarks/loop.py --images DIR [--config configs/demo.py] [--steps 400] [--json]

Runs train.py's own loop on the images and compares its seconds per step, from the metrics it writes, with those of the
same compiled step on one batch that stays on the device, measured before and after.
"""

import argparse
import itertools
import json
import logging
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import timing
from benchmarks.train_step import jitted, prepare, settings
from simfle_jax.config import pretraining
from simfle_jax.errors import UserError
from simfle_jax.training.loop import train

LOG_STEPS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=400, help="at least as many; whole epochs are trained")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    try:
        result = measure(options)
    except UserError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    print(json.dumps(result, indent=2) if options.json else table(result))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The bare step before the loop, the loop, and the bare step again."""
    bare = BareStep(options)
    steps = [bare.seconds()]
    compiled = Compilations()
    with tempfile.TemporaryDirectory() as folder, compiled:
        lines = run(options, folder)
    steps.append(bare.seconds())
    # From the second logged line on: the first holds the compilation.
    spans = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in itertools.pairwise(lines)]
    loop, step = statistics.median(spans), statistics.mean(steps)
    return {
        "config": options.config,
        "machine": timing.machine(),
        "step_seconds": step,
        "loop_seconds_per_step": loop,
        "share_inside_the_step": step / loop,
        "compilations_of_the_step": compiled.count,
    }


class BareStep:
    """The compiled step of the config on one batch that stays on the device."""

    def __init__(self, options: argparse.Namespace):
        method, state, self.images = prepare(settings(options, options.dtype))
        self.state = state
        self.compiled = jitted(method).lower(state, self.images).compile()

    def step(self) -> Any:
        self.state, metrics = self.compiled(self.state, self.images)
        return metrics

    def seconds(self) -> float:
        return timing.seconds(self.step, 100)


def run(
    options: argparse.Namespace, folder: str, log_steps: int = LOG_STEPS, checkpoint_steps: int = 10**9
) -> list[dict[str, Any]]:
    """The loop for the steps asked for; the lines of its metrics."""
    from simfle_jax.config import as_dict
    from simfle_jax.data.opening import open_source

    per_epoch = max(1, len(open_source("folder", options.images)) // options.batch_size)
    given = as_dict(settings(options, options.dtype))
    given |= {"epochs": -(-options.steps // per_epoch), "log_steps": log_steps, "checkpoint_steps": checkpoint_steps}
    given["data"] |= {"path": options.images}
    train(pretraining(given), folder)
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


class Compilations(logging.Handler):
    """Counts how often `train_step` is compiled, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "Finished XLA compilation of jit(train_step)" in record.getMessage()

    def __enter__(self) -> "Compilations":
        self.logger = logging.getLogger("jax")
        self.logger.addHandler(self)
        self.before = self.logger.propagate, jax.config.values["jax_log_compiles"]
        self.logger.propagate = False
        jax.config.update("jax_log_compiles", True)
        return self

    def __exit__(self, *_: object) -> None:
        self.logger.propagate = self.before[0]
        jax.config.update("jax_log_compiles", self.before[1])
        self.logger.removeHandler(self)


def table(result: dict[str, Any]) -> str:
    """The results as text."""
    return (
        f"{result['config']}: step {1000 * result['step_seconds']:.1f} ms, loop "
        f"{1000 * result['loop_seconds_per_step']:.1f} ms a step, {100 * result['share_inside_the_step']:.1f} % inside the "
        f"step; compiled {result['compilations_of_the_step']} time(s)"
    )


if __name__ == "__main__":
    main()
