"""Batches a second from a pack in a bucket against the same pack on the disk, and what the copy of it costs at the start.

    python tests/buckets/bucket_server.py --delay=0.02     # in another shell; then set here what it prints
    python -m simfle_jax.prepare --pack FACES --out s3://bucket/faces
    python -m simfle_jax.prepare --pack FACES --out PACK
    python -m benchmarks.buckets PACK s3://bucket/faces [--batches 200]

Each is opened and read in turn, three times, by one process; the medians are printed as JSON.
"""

import argparse
import json
import statistics
import time

from simfle_jax.data.opening import open_source
from simfle_jax.data.pipeline import TrainBatches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="+", metavar="PACK")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--canvas", type=int, default=112)
    options = parser.parse_args()
    opening: dict[str, list[float]] = {pack: [] for pack in options.packs}
    rates: dict[str, list[float]] = {pack: [] for pack in options.packs}
    for _ in range(3):
        for pack in options.packs:
            began = time.perf_counter()
            source = open_source("array_record", pack)
            opening[pack].append(time.perf_counter() - began)
            rates[pack].append(rate(source, options))
    rows = {
        pack: {
            "opened_first": times[0],
            "opened_again": min(times[1:]),
            "batches_a_second": statistics.median(rates[pack]),
        }
        for pack, times in opening.items()
    }
    print(json.dumps({"images": len(source), **rows}, indent=2))


def rate(source: object, options: argparse.Namespace) -> float:
    """Batches a second, after the first."""
    with TrainBatches(source, seed=0, batch_size=options.batch_size, canvas=options.canvas) as batches:  # type: ignore[arg-type]
        next(batches)
        began = time.perf_counter()
        for _ in range(options.batches):
            next(batches)
        return options.batches / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
