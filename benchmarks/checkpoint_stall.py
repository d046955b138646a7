"""Seconds for which training stands still when it saves, beside those of a step.

    python benchmarks/checkpoint_stall.py [--config configs/demo.py] [--steps 80] [--every 10] [--json]

Runs train.py's own loop on generated pictures twice, with and without checkpoints. A save is what the run with them took
longer, divided by the saves; `step_after_save` tells how much of it the very next step waited for.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import loop, timing
from benchmarks.input_pipeline import picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--every", type=int, default=10, help="steps between two saves (10)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.images = folder
        for number in range(4 * options.batch_size):
            Image.fromarray(picture(48, 48, number)).save(f"{folder}/{number:04d}.jpg", quality=90)
        result = {"config": options.config, "machine": timing.machine()} | measure(options)
    print(json.dumps(result, indent=2) if options.json else table(result))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both runs, from the second log line on."""
    with_saves, without = seconds(options, options.every), seconds(options, 10**9)
    step = statistics.median(without.values())
    saves = [number for number in with_saves if number % options.every == 0]
    after = [with_saves[number + 1] for number in saves if number + 1 in with_saves]
    return {
        "step_seconds": step,
        "save_seconds": (sum(with_saves.values()) - sum(without.values())) / len(saves),
        "step_after_save": statistics.median(after),
        "checkpoint_bytes": options.checkpoint_bytes,
    }


def seconds(options: argparse.Namespace, every: int) -> dict[int, float]:
    """Of every step but the first ones, by its number."""
    with tempfile.TemporaryDirectory() as folder:
        lines = loop.run(options, f"{folder}/run", log_steps=1, checkpoint_steps=every)
        newest = max(Path(folder, "run", "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
        options.checkpoint_bytes = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    return {b["step"]: b["seconds"] - a["seconds"] for a, b in itertools.pairwise(lines) if a["step"] > 1}


def table(result: dict[str, Any]) -> str:
    return (
        f"{result['config']}: step {1000 * result['step_seconds']:.1f} ms; a save of "
        f"{result['checkpoint_bytes'] / 1e6:.1f} MB costs {1000 * result['save_seconds']:.1f} ms, the step after it takes "
        f"{1000 * result['step_after_save']:.1f} ms"
    )


if __name__ == "__main__":
    main()
