"""Images per second from JPEG files to uint8 batches, beside decoding alone and beside the published recipe.

    python benchmarks/input_pipeline.py --images DIR [--json]

Every round measures all contestants in turn, so that a machine that is busy for a while is busy for all of them;
shown are medians over the rounds. `per core` counts seconds of processor time, `in all` seconds on the clock.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    threads, rates = arguments.threads, dict[str, list[tuple[float, float]]]()
    first, last = named("pipeline", threads[0]), named("pipeline", threads[-1])
    for _ in range(arguments.rounds):
        rates.setdefault("published recipe", []).append(rate(recipe(source), arguments.seconds))
        for count in threads:
            with ThreadPoolExecutor(count) as pool:
                alone = rate(decode_alone(source, pool, count), arguments.seconds)
            rates.setdefault(named("decode alone", count), []).append(alone)
            rates.setdefault(named("pipeline", count), []).append(pipeline_rate(source, count, arguments))
    medians = {
        name: dict(zip(("per_core", "in_all"), (statistics.median(column) for column in zip(*pairs))))
        for name, pairs in rates.items()
    }
    ratios = {
        "pipeline per core / published recipe": ratio(medians, first, "published recipe", "per_core"),
        "pipeline per core / decode alone": ratio(medians, first, named("decode alone", threads[0]), "per_core"),
        f"{last} / {first}": ratio(medians, last, first, "in_all"),
        f"{last} / {named('decode alone', threads[-1])}": ratio(
            medians, last, named("decode alone", threads[-1]), "in_all"
        ),
    }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"platform": platform.platform(), "cores": cores, "date": time.strftime("%Y-%m-%d")}
    return {
        "machine": machine,
        "images": len(source),
        "canvas": arguments.canvas,
        "images_per_second": medians,
        "ratios": ratios,
    }


def named(contestant: str, threads: int) -> str:
    return f"{contestant}, {threads} thread{'s' * (threads > 1)}"


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


def decode_alone(source: FolderSource, pool: ThreadPoolExecutor, threads: int) -> Callable[[], int]:
    """Decodes files that are in memory already, nothing else; also tells how many cores are really free."""
    files = [source[index].data for index in range(min(len(source), 256))]

    def work() -> None:
        for data in files:
            simplejpeg.decode_jpeg(data, "RGB")

    def step() -> int:
        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()
        return threads * len(files)

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
