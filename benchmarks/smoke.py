"""Two minutes of ratios, compared with those that are committed: has something become much slower?

    make bench-smoke
    python benchmarks/smoke.py --write      # keeps the ratios found as those to compare with

Each ratio has its baseline in the same run, so that it means something on any machine, and its margin is wide: it fails
below HALF of the committed one. Not a test, and not for CI: a machine that is busy in bursts can fail it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import features, input_pipeline, layers, timing
from benchmarks.random_encoder import random_encoder
from simfle_jax.data.image_list import ImageList
from simfle_jax.evaluation.features import Extractor

COMMITTED = Path(__file__).parent / "results" / "smoke.json"
HALF = 0.5
SIDES = (48, 112, 400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep what is found")
    options = parser.parse_args()
    committed = json.loads(COMMITTED.read_text())["ratios"] if COMMITTED.exists() else {}
    found: dict[str, float] = {}
    print(f"{'higher is better':50}{'now':>8}{'before':>8}", flush=True)
    for name, ratio in ratios():
        found[name] = ratio
        before = committed.get(name)
        told = "" if before is None else f"{before:8.2f}" + ("  MUCH SLOWER" if ratio < HALF * before else "")
        print(f"{name:50}{ratio:8.2f}{told}", flush=True)
    if options.write:
        text = json.dumps({"machine": timing.machine(), "ratios": found}, indent=1)
        COMMITTED.write_text(text + "\n")
    elif slower := [name for name, ratio in found.items() if ratio < HALF * committed.get(name, 0)]:
        sys.exit(f"{Path(__file__).name}: less than half as fast as before: {'; '.join(slower)}")


def ratios() -> Iterator[tuple[str, float]]:
    """Each as soon as it is known."""
    for side in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            write_pictures(folder, side, 32)
            options = input_pipeline.parse(["--seconds", ".2", "--batch-size", "32", "--count", "32"])
            row = input_pipeline.measure(folder, options)["ratios"]
            yield f"pipeline of decoding, {side} px", row["of decoding"]
            yield f"pipeline over the published recipe, {side} px", row["of the published recipe"]
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(folder, 112, 128)
        costs = features.measure(Extractor(random_encoder("resnet18", 48)), ImageList([folder]), 3)
        halves = costs["decoding"]["processor"] + costs["trunk"]["processor"]
        yield "features: decoding and trunk over both together", halves / costs["both"]["processor"]
    contestants = {
        "BatchNorm, 56 x 56, 64": layers.batch_norm((4, 56, 56, 64)),
        "3x3 weight gradient, 28 x 28, 128": layers.weight_gradient((4, 28, 28, 128), 128, 3, 1),
        "1x1 and BatchNorm, 14 x 14, 256 to 1024": layers.widening((4, 14, 14, 256), 1024),
        "maximum pooling, 56 x 56, 64": layers.maximum_pooling((4, 56, 56, 64)),
    }
    for name, calls in contestants.items():
        times = layers.in_turns(calls, 5)
        yield f"XLA's time over ours: {name}", times["XLA"] / times["here"]


def write_pictures(folder: str, side: int, count: int) -> None:
    for number in range(count):
        picture = Image.fromarray(input_pipeline.picture(side, side, number % 16))
        picture.save(f"{folder}/{number:04d}.jpg", quality=90)


if __name__ == "__main__":
    main()
