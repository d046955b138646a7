"""What a data set of millions costs each process before the first step: seconds and memory, with a made-up index.

    python -m benchmarks.large_listing [--images 3000000] [--scratch DIR]

A folder whose listing is kept (`data.listing`), and a pack: no image is written but the few whose sizes are looked at. Every line is a
process of its own. The kept listing is compared with walking a folder of a hundredth as many real files. Prints JSON.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.listing import peak
from simfle_jax.data import kept_listing
from simfle_jax.data.array_record import FORMAT
from simfle_jax.data.listing import Listing, last_change
from simfle_jax.data.opening import open_source
from simfle_jax.data.order import global_batch

FOLDERS = 3000
BATCH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3_000_000)
    parser.add_argument("--scratch", help="where the index is written for a while (the system's temporary folder)")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "DIR"), help=argparse.SUPPRESS)  # the fresh process
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure[0], Path(options.measure[1]))))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        write(Path(scratch), options.images)
        rows = {kind: fresh(kind, scratch) for kind in ("walked", "kept", "pack")}
    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}
    print(json.dumps({"machine": machine, "images": options.images, **rows}, indent=2))


def fresh(kind: str, scratch: str) -> Any:
    call = [sys.executable, "-m", "benchmarks.large_listing", "--measure", kind, scratch]
    return json.loads(subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def write(scratch: Path, count: int) -> None:
    """The kept listing of a folder of so many names, a pack's index of the same, and a folder of a hundredth of the files."""
    names = sorted(b"%04d/%08d.jpg" % (number % FOLDERS, number) for number in range(count))
    root = scratch / "kept"
    for number in range(FOLDERS):
        (root / f"{number:04d}").mkdir(parents=True)
    for index in set(np.linspace(0, count - 1, kept_listing.SAMPLE, dtype=int).tolist()):
        (root / os.fsdecode(names[index])).write_bytes(b"1")
    paths = [os.fsencode(root), *(os.fsencode(root / f"{number:04d}") for number in range(FOLDERS))]
    folders = {path: last_change(path) for path in paths}
    kept = kept_listing.Kept(Listing(names, frozenset(), folders), "0" * 64)
    kept_listing._write(str(root), str(scratch / "listing.npz"), kept)
    (scratch / "pack").mkdir()
    (scratch / "pack" / "00000.array_record").write_bytes(b"")
    shards = [{"name": "00000.array_record", "count": count, "bytes": 0}]
    index = {"format": FORMAT, "count": count, "classes": None, "fingerprint": "0" * 64, "shards": shards}
    (scratch / "pack" / "index.json").write_text(json.dumps(index))
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    labels, sizes = np.full(count, -1, np.int32), np.full(count, 9000, np.int64)
    joined = np.frombuffer(b"".join(names), np.uint8)
    np.savez(scratch / "pack" / "index.npz", names=joined, ends=ends, labels=labels, sizes=sizes)
    for name in names[::100]:
        path = scratch / "walked" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")


def measured(kind: str, scratch: Path) -> dict[str, float]:
    """Seconds of each part, and MiB before and after."""
    before, steps = peak(), dict[str, float]()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        steps[f"{name}_seconds"] = round(time.perf_counter() - began, 3)
        return found

    listing = str(scratch / "listing.npz") if kind == "kept" else ""
    place = str(scratch / kind)
    source = timed(
        "listing", lambda: open_source("array_record" if kind == "pack" else "folder", place, listing=listing)
    )
    timed("fingerprint", lambda: source.fingerprint)
    timed("first_batch", lambda: global_batch(len(source), 0, 0, BATCH))
    timed("next_batch", lambda: global_batch(len(source), 0, 1, BATCH))
    return {"images": len(source), **steps, "MiB_before": before >> 20, "MiB_after": peak() >> 20}


if __name__ == "__main__":
    main()
