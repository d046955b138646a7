"""Seconds and memory that a data set of very many small files costs one process, as a folder and as a pack.

    python benchmarks/listing.py [--files 300000] [--scratch DIR] [--json]

Generates the files (8 classes, a 16-pixel JPEG each) in a temporary folder, prepares them twice (the second time finds all done), packs
them, and lets a fresh process for each kind open them with labels, take the fingerprint and read ten batches. Memory is the
peak resident size of such a process.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg

sys.path.insert(0, str(Path(__file__).parent.parent))
from simfle_jax.commands.prepare import main as command
from simfle_jax.data.opening import open_source
from simfle_jax.data.packing import pack
from simfle_jax.progress import Progress

CLASSES = 8
KINDS = ("folder", "array_record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300_000)
    parser.add_argument("--scratch", help="where they are written for a while (the system's temporary folder)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--open", nargs=2, metavar=("KIND", "PATH"), help=argparse.SUPPRESS)  # the fresh process
    options = parser.parse_args()
    if options.open:
        kind, path = options.open
        print(json.dumps(prepared(path) if kind == "prepare" else opened(kind, path)))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        results = measure(Path(scratch), options.files)
    print(json.dumps(results, indent=2) if options.json else table(results))


def measure(scratch: Path, files: int) -> dict:
    generate(scratch / "folder" / "train", files)
    rows = {"prepare": in_fresh_process("prepare", scratch / "folder")}
    rows["prepare_again"] = in_fresh_process("prepare", scratch / "folder")
    began = time.perf_counter()
    pack(str(scratch / "folder"), str(scratch / "array_record"))
    packing = time.perf_counter() - began
    rows |= {kind: in_fresh_process(kind, scratch / kind) for kind in KINDS}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"platform": platform.platform(), "cores": cores, "date": time.strftime("%Y-%m-%d")}
    return {"machine": machine, "files": files, "packing_seconds": packing, **rows}


def in_fresh_process(kind: str, path: Path) -> dict:
    arguments = [sys.executable, __file__, "--open", kind, str(path)]
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def generate(folder: Path, files: int) -> None:
    """`files` images of different names and sizes; their pixels are a few patterns over and over."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
    contents = [simplejpeg.encode_jpeg(image, quality=90) for image in noise]
    for number in range(CLASSES):
        (folder / f"class{number}").mkdir(parents=True)
    progress = Progress(files, "generating")
    for number in range(files):
        path = folder / f"class{number % CLASSES}" / f"{number:06d}.jpg"
        path.write_bytes(contents[number % len(contents)])
        progress.update(number + 1)


def prepared(path: str) -> dict:
    """The whole command on the folder, written beside it."""
    began = time.perf_counter()
    command(["folder", "--source", path, "--out", f"{path}_prepared"])
    return {"seconds": time.perf_counter() - began, "memory": peak()}


def opened(kind: str, path: str) -> dict:
    """What this process needs for the data set."""
    from simfle_jax.data.pipeline import TrainBatches  # here, because prepare does without it and its memory

    before, began = peak(), time.perf_counter()
    source = open_source(kind, path, labelled=True, split="train")
    listed, memory = time.perf_counter() - began, peak()
    assert source.fingerprint
    fingerprinted = time.perf_counter() - began
    with TrainBatches(source, seed=0, batch_size=256, canvas=16, threads=1) as batches:
        for _ in range(10):
            next(batches)
    return {
        "listing_seconds": listed,
        "with_fingerprint_seconds": fingerprinted,
        "memory_before": before,
        "memory_listed": memory,
        "memory_after_batches": peak(),
    }


def peak() -> int:
    """Bytes that this process held at most."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage counts the parent's memory before exec as well
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def table(results: dict) -> str:
    lines = [f"{results['files']:,} files, packed in {results['packing_seconds']:.1f} s"]
    for name in ("prepare", "prepare_again"):
        row = results[name]
        lines.append(f"{name:13} {row['seconds']:.1f} s, peak memory {row['memory'] / 2**20:.0f} MiB")
    for kind in KINDS:
        row = results[kind]
        before, listed, after = (row[f"memory_{when}"] / 2**20 for when in ("before", "listed", "after_batches"))
        lines.append(
            f"{kind:13} listed in {row['listing_seconds']:.2f} s, with the fingerprint {row['with_fingerprint_seconds']:.2f} s; "
            f"peak memory {before:.0f} MiB before, {listed:.0f} listed, {after:.0f} after ten batches"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
