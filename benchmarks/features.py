"""What features of whole data sets cost, as embed, predict and the probes make them, beside their two halves.

    python benchmarks/features.py [--cases 48 112 400] [--trunk resnet18] [--size 224] [--json]

Each case is generated JPEGs of one side. In turns: decoding them to the encoder's size alone, on one thread; the trunk
alone, on images that are decoded already; and `Extractor.stream`, which does both. In milliseconds of processor time
for an image (of the clock too in the JSON), medians of the rounds. On an accelerator, whose time is not the
processor's, look at the clock: the whole should take as long as the slower half, decoding divided by the threads.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import timing
from benchmarks.input_pipeline import picture
from benchmarks.random_encoder import random_encoder
from simfle_jax.config.trunks import TRUNKS
from simfle_jax.data.image_list import ImageList
from simfle_jax.data.pipeline import decoded_in_order
from simfle_jax.evaluation.features import Extractor

Cost = tuple[float, float]  # seconds for an image, of the processor and of the clock


def main() -> None:
    options = parse()
    encoder = random_encoder(options.trunk, options.size)
    result: dict[str, Any] = {"machine": timing.machine(), "trunk": options.trunk, "size": options.size, "cases": {}}
    print(f"{'ms an image':12}{'decoding':>10}{'trunk':>10}{'both':>10}", file=sys.stderr)
    for side in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(options.count):
                Image.fromarray(picture(side, side, number % 16)).save(f"{folder}/{number:05d}.jpg", quality=90)
            row = result["cases"][str(side)] = measure(Extractor(encoder), ImageList([folder]), options.rounds)
        shown = (f"{1000 * row[name]['processor']:10.2f}" for name in ("decoding", "trunk", "both"))
        print(f"{side:<12}" + "".join(shown), file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(result, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", type=int, default=[48, 112, 224, 400], help="sides of the JPEGs")
    parser.add_argument("--trunk", choices=list(TRUNKS), default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="of the encoder's images (224)")
    parser.add_argument("--count", type=int, default=128, help="images of a case (128)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args()


def measure(extractor: Extractor, source: ImageList, rounds: int) -> dict[str, dict[str, float]]:
    """Median cost of each contestant."""
    rows = min(extractor.batch_size, len(source))
    batches = [found.batch["image"] for found in decoded_in_order(source, rows, extractor.canvas, 1)]

    def decode() -> None:
        for _ in decoded_in_order(source, rows, extractor.canvas, 1):
            pass

    def through_trunk() -> None:
        for images in batches:
            np.asarray(extractor.features_of(images))

    def both() -> None:
        for _ in extractor.stream(source):
            pass

    calls: dict[str, Callable[[], None]] = {"decoding": decode, "trunk": through_trunk, "both": both}
    costs: dict[str, list[Cost]] = {name: [] for name in calls}
    for turn, (name, call) in itertools.product(range(rounds + 1), calls.items()):
        processor, clock = time.process_time(), time.perf_counter()
        call()
        if turn:  # the first one compiles
            spent = time.process_time() - processor, time.perf_counter() - clock
            costs[name].append((spent[0] / len(source), spent[1] / len(source)))
    medians = {name: np.median(found, axis=0).tolist() for name, found in costs.items()}
    return {name: {"processor": processor, "clock": clock} for name, (processor, clock) in medians.items()}


if __name__ == "__main__":
    main()
