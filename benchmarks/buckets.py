"""Batches a second from a pack in a bucket against the same pack on the disk, and what the copy of it costs at the start.

    python tests/buckets/bucket_server.py --delay=0.02     # in another shell; then set here what it prints
    python -m simfle_jax.prepare --pack FACES --out s3://bucket/faces
    python -m simfle_jax.prepare --pack FACES --out PACK
    python -m benchmarks.buckets PACK s3://bucket/faces [--batches 200]

Each is opened and read in turn, `--turns` times, by one process. Printed as JSON: the seconds until the first opening is
done and the least of the others, the median of the batches a second, and that of their ratios to the first pack's in the
same turn, with the lowest and the highest.
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
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--canvas", type=int, default=112)
    options = parser.parse_args()
    opening: dict[str, list[float]] = {pack: [] for pack in options.packs}
    rates: dict[str, list[float]] = {pack: [] for pack in options.packs}
    for turn in range(options.turns):
        for pack in options.packs[:: -1 if turn % 2 else 1]:  # none is always the second
            began = time.perf_counter()
            source = open_source("array_record", pack)
            opening[pack].append(time.perf_counter() - began)
            rates[pack].append(rate(source, options))
    print(json.dumps({"images": len(source), **{pack: row(pack, opening, rates) for pack in options.packs}}, indent=2))


def row(pack: str, opening: dict[str, list[float]], rates: dict[str, list[float]]) -> dict[str, object]:
    """What is printed of a pack."""
    ratios = [one / first for one, first in zip(rates[pack], next(iter(rates.values())))]
    return {
        "opened_first": opening[pack][0],
        "opened_again": min(opening[pack][1:], default=None),
        "batches_a_second": statistics.median(rates[pack]),
        "of_the_first_packs": [statistics.median(ratios), min(ratios), max(ratios)],
    }


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
