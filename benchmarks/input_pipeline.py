"""Images per second from JPEG files to uint8 batches, beside decoding alone and beside the published recipe.

    python benchmarks/input_pipeline.py --images DIR [--json]

Every round measures all contestants in turn, so that a machine that is busy for a while is busy for all of them;
shown are medians over the rounds. `per core` counts seconds of processor time, `in all` seconds on the clock.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import published_recipe
import simplejpeg

sys.path.insert(0, str(Path(__file__).parent.parent))
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError


def main() -> None:
    arguments = parse()
    try:
        results = measure(FolderSource(arguments.images), arguments)
    except UserError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    print(json.dumps(results, indent=2) if arguments.json else table(results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of images, best 224-px JPEGs")
    parser.add_argument("--canvas", type=int, default=224, help="side of the canvas in pixels (224)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts of the pipeline (1 2)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement (1)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args()


def measure(source: FolderSource, arguments: argparse.Namespace) -> dict:
    """Medians of all contestants and their ratios."""
    pipelines = {f"pipeline, {threads} thread{'s' * (threads > 1)}": threads for threads in arguments.threads}
    rates: dict[str, list[tuple[float, float]]] = {}
    for _ in range(arguments.rounds):
        rounds = {"decode alone": decode_alone(source), "published recipe": recipe(source)}
        for name, step in rounds.items():
            rates.setdefault(name, []).append(rate(step, arguments.seconds))
        for name, threads in pipelines.items():
            rates.setdefault(name, []).append(pipeline_rate(source, threads, arguments))
    medians = {
        name: dict(zip(("per_core", "in_all"), (statistics.median(column) for column in zip(*pairs))))
        for name, pairs in rates.items()
    }
    first, last = next(iter(pipelines)), list(pipelines)[-1]
    ratios = {
        "pipeline per core / published recipe": ratio(medians, first, "published recipe", "per_core"),
        "pipeline per core / decode alone": ratio(medians, first, "decode alone", "per_core"),
        f"{last} / {first}": ratio(medians, last, first, "in_all"),
    }
    return {"images": len(source), "canvas": arguments.canvas, "images_per_second": medians, "ratios": ratios}


def ratio(medians: dict, one: str, other: str, column: str) -> float:
    return medians[one][column] / medians[other][column]


def rate(step: Callable[[], int], seconds: float) -> tuple[float, float]:
    """Images per second of processor time and of the clock; `step` does some work and returns how many images."""
    step()  # warm-up
    count, processor, clock = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - clock < seconds:
        count += step()
    return count / (time.process_time() - processor), count / (time.perf_counter() - clock)


def pipeline_rate(source: FolderSource, threads: int, arguments: argparse.Namespace) -> tuple[float, float]:
    settings = {"batch_size": arguments.batch_size, "canvas": arguments.canvas, "threads": threads}
    with TrainBatches(source, seed=0, **settings) as batches:
        for _ in range(2 * threads + 2):  # what was decoded ahead during the warm-up must not count
            next(batches)
        return rate(lambda: len(next(batches)["image"]), arguments.seconds)


def decode_alone(source: FolderSource) -> Callable[[], int]:
    """Decodes files that are in memory already, nothing else."""
    files = itertools.cycle([source[index].data for index in range(min(len(source), 256))])

    def step() -> int:
        for _ in range(16):
            simplejpeg.decode_jpeg(next(files), "RGB")
        return 16

    return step


def recipe(source: FolderSource) -> Callable[[], int]:
    rng = np.random.default_rng(0)
    paths = itertools.cycle([Path(source.root, source.name(index)) for index in range(len(source))])

    def step() -> int:
        published_recipe.load(next(paths), rng)
        return 1

    return step


def table(results: dict) -> str:
    lines = [
        f"{results['images']} images, canvas {results['canvas']} px",
        f"{'images/s':26}{'per core':>12}{'in all':>12}",
    ]
    for name, row in results["images_per_second"].items():
        lines.append(f"{name:26}{row['per_core']:12,.0f}{row['in_all']:12,.0f}")
    return "\n".join([*lines, *(f"{value:6.2f}  {name}" for name, value in results["ratios"].items())])


if __name__ == "__main__":
    main()
