"""Images per second from the same faces as a folder, as an ArrayRecord pack and as a TFDS data set.

    python benchmarks/sources.py --images DIR [--canvas 112] [--json]

Packs and builds the images below DIR in a temporary folder, sees that all three give the same first batches, and measures
them in turn in every round, so that a machine that is busy for a while is busy for all of them; shown are medians. `open` is
the first look at a data set with its fingerprint, `read` takes the files' bytes in random order in one thread, `batches` is
all that training does on the host. Files are in the page cache: a network file system changes these numbers, not the batches.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from simfle_jax.data.opening import open_source
from simfle_jax.data.packing import pack_source
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.data.sources import FolderSource, Source
from simfle_jax.errors import UserError

Place = tuple[str, str]  # data.source and data.path


def main() -> None:
    arguments = parse()
    try:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            results = measure(places(arguments.images, scratch), arguments)
    except UserError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    print(json.dumps(results, indent=2) if arguments.json else table(results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--scratch", help="where the pack and the TFDS data set are written for a while (the system's)")
    parser.add_argument("--canvas", type=int, default=112, help="side of the canvas in pixels (112)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="decoding threads (1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement (1)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args()


def places(images: str, scratch: str) -> dict[str, Place]:
    """The same images in the three forms."""
    from simfle_jax.data.tfds_builders import build

    pack, data_dir = os.path.join(scratch, "pack"), os.path.join(scratch, "tfds")
    pack_source(FolderSource(images), pack)
    build(images, data_dir, "unlabelled")
    return {
        "folder": ("folder", images),
        "array_record": ("array_record", pack),
        "tfds": ("tfds:simfle_folder/unlabelled", data_dir),
    }


def measure(kinds: dict[str, Place], arguments: argparse.Namespace) -> dict:
    """Medians over the rounds, and each of them as a share of the folder's."""
    check_same(kinds, arguments)
    rows: dict[str, dict[str, list[float]]] = {name: {"open": [], "read": [], "batches": []} for name in kinds}
    for _ in range(arguments.rounds):
        for name, place in kinds.items():
            began = time.perf_counter()
            source = open_source(*place)
            assert source.fingerprint
            rows[name]["open"].append(time.perf_counter() - began)
            rows[name]["read"].append(read_rate(source, arguments.seconds))
            rows[name]["batches"].append(batch_rate(source, arguments))
    medians = {name: {key: statistics.median(found) for key, found in row.items()} for name, row in rows.items()}
    folder = medians["folder"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": {"platform": platform.platform(), "cores": cores, "date": time.strftime("%Y-%m-%d")},
        "images": len(open_source(*kinds["folder"])),
        "canvas": arguments.canvas,
        "threads": arguments.threads,
        "open_seconds": {name: row["open"] for name, row in medians.items()},
        "read_per_second": {name: row["read"] for name, row in medians.items()},
        "batches_images_per_second": {name: row["batches"] for name, row in medians.items()},
        "ratios_to_folder": {
            name: {key: row[key] / folder[key] for key in ("read", "batches")} for name, row in medians.items()
        },
    }


def check_same(kinds: dict[str, Place], arguments: argparse.Namespace) -> None:
    """Stops unless the first 20 batches of all kinds are equal to the bit."""
    kept: list[np.ndarray] = []
    for place in kinds.values():
        with batches(open_source(*place), arguments) as stream:
            found = [next(stream)["image"].copy() for _ in range(20)]
        if kept and not all(map(np.array_equal, kept, found)):
            raise UserError(f"the batches from {place[0]} are not those of the folder")
        kept = found


def batches(source: Source, arguments: argparse.Namespace) -> TrainBatches:
    return TrainBatches(
        source, seed=0, batch_size=arguments.batch_size, canvas=arguments.canvas, threads=arguments.threads
    )


def read_rate(source: Source, seconds: float) -> float:
    """Records per second in random order."""
    indices = np.random.default_rng(0).permutation(len(source)).tolist()
    places = iter(indices * 1000)
    return rate(lambda: sum(bool(len(source[next(places)].data)) for _ in range(64)), seconds)


def batch_rate(source: Source, arguments: argparse.Namespace) -> float:
    with batches(source, arguments) as stream:
        for _ in range(2 * arguments.threads + 2):  # what was decoded ahead during the warm-up must not count
            next(stream)
        return rate(lambda: len(next(stream)["image"]), arguments.seconds)


def rate(step: Callable[[], int], seconds: float) -> float:
    """Images per second of the clock; `step` does some work and returns how many images."""
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        count += step()
    return count / passed


def table(results: dict) -> str:
    lines = [
        f"{results['images']:,} images, canvas {results['canvas']} px, {results['threads']} thread(s)",
        f"{'':14}{'open, s':>10}{'read/s':>12}{'batches/s':>12}   (images; in brackets: times the folder)",
    ]
    for name, ratios in results["ratios_to_folder"].items():
        read, batched = results["read_per_second"][name], results["batches_images_per_second"][name]
        lines.append(
            f"{name:14}{results['open_seconds'][name]:10.2f}{read:12,.0f}{batched:12,.0f}"
            f"   ({ratios['read']:.2f}, {ratios['batches']:.2f})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
