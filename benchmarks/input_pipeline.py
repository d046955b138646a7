"""Images per second from files to batches, beside decoding alone, the published recipe and resizing on the host.

    python benchmarks/input_pipeline.py [--cases 48 400 mixed png] [--images DIR] [--out FILE.json]

The cases are generated pictures of photographs' statistics: JPEGs of one size, of mixed sizes and oblong ones, PNG and
WebP files. With --images it measures that folder in their place. Every round measures all contestants in turn, so that
a machine that is busy for a while is busy for all of them; shown are medians over the rounds, in seconds of processor
time. A line appears as soon as a case is measured, and --out then holds it too.
"""

import argparse
import io
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import published_recipe
import simplejpeg
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import timing
from simfle_jax.canvases import largest_canvas
from simfle_jax.data.array_record import ArrayRecordSource
from simfle_jax.data.fitting import fitting_canvas
from simfle_jax.data.packing import pack
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.data.sources import FolderSource, Source
from simfle_jax.errors import UserError

Rate = tuple[float, float]  # images per second of processor time, and of the clock


class Case(NamedTuple):
    """Pictures to generate: heights and widths, one after the other, and their format."""

    sizes: tuple[tuple[int, int], ...]
    kind: str = "JPEG"


CASES = {str(side): Case(((side, side),)) for side in (48, 100, 112, 224, 256, 300, 400, 512, 1024)} | {
    "mixed": Case(tuple((side, side) for side in (60, 96, 130, 180, 224, 320, 400, 500))),
    "oblong": Case(((240, 320), (320, 240), (400, 600), (768, 1024))),
    "png": Case(((256, 256),), "PNG"),
    "webp": Case(((256, 256),), "WEBP"),
}


def main() -> None:
    options = parse()
    found: dict[str, Any] = {"machine": timing.machine() | versions(), "size": options.size, "cases": {}}
    print(heading(options), file=sys.stderr, flush=True)
    try:
        for name, folder in folders(options):
            found["cases"][name] = row = measure(folder, options)
            print(line(name, row), file=sys.stderr, flush=True)
            if options.out:
                options.out.write_text(json.dumps(found, indent=1) + "\n")
    except UserError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    if options.json:
        print(json.dumps(found, indent=1))


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="which (all)")
    parser.add_argument("--images", help="a folder of images to measure in place of the cases")
    parser.add_argument("--size", type=int, default=224, help="side of the views in pixels (224)")
    parser.add_argument("--count", type=int, default=128, help="pictures generated for a case (128)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2, help="of the last contestants; the others have one (2)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one measurement (.5)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the results, written after every case")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args(given)


def versions() -> dict[str, str]:
    return {"pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}


# ---------------------------------------------------------------- pictures


def folders(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The name and folder of every case, which is made now and removed afterwards."""
    if options.images:
        yield Path(options.images).name, options.images
        return
    for name in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            case = CASES[name]
            for number, size in zip(range(options.count), itertools.cycle(case.sizes)):
                image, file = Image.fromarray(picture(*size, number)), io.BytesIO()
                image.save(file, case.kind, quality=90)
                Path(folder, f"{number:04d}.{case.kind.lower()}").write_bytes(file.getvalue())
            yield name, folder


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 [height, width, 3]: noise of all scales, the finer the weaker, as in photographs."""
    rng, total = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    scale = 1
    while scale < min(height, width):
        coarse = rng.normal(size=(-(-height // scale), -(-width // scale), 3)).astype(np.float32)
        coarse = 0.8 * coarse.mean(2, keepdims=True) + 0.2 * coarse  # colours change less than brightness
        bands = [Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        total += scale**0.8 * np.stack([np.asarray(band) for band in bands], axis=-1)
        scale *= 2
    return np.clip(128 + 50 * total / total.std(), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------- contestants


def measure(folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of all contestants on one folder, their ratios, and what goes to the device."""
    source, threads = FolderSource(folder), options.threads
    canvas = fitting_canvas(source, largest_canvas(options.size), options.size)
    rates: dict[str, list[Rate]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        pack(folder, f"{scratch}/pack")
        packed = ArrayRecordSource(f"{scratch}/pack")
        fits, fills = (canvas, options.size), (options.size, 0)
        contestants: dict[str, Callable[[], Rate]] = {
            "published recipe": lambda: rate(recipe(source, options.size), options.seconds),
            "decode": lambda: decode_rate(source, 1, options),
            "pipeline": lambda: pipeline_rate(source, fits, 1, options),
            "pack": lambda: pipeline_rate(packed, fits, 1, options),
            "resized on the host": lambda: pipeline_rate(source, fills, 1, options),
            "decode, threads": lambda: decode_rate(source, threads, options),
            "pipeline, threads": lambda: pipeline_rate(source, fits, threads, options),
        }
        for _ in range(options.rounds):
            for name, contestant in contestants.items():
                rates.setdefault(name, []).append(contestant())
    per_core = {name: statistics.median(row[0] for row in rows) for name, rows in rates.items()}
    in_all = {name: statistics.median(row[1] for row in rows) for name, rows in rates.items()}
    ours = per_core["pipeline"]
    return {
        "canvas": canvas,
        "bytes_to_device": {"fits": 3 * canvas**2, "resized on the host": 3 * options.size**2},
        "per_core": per_core,
        "in_all": in_all,
        "ratios": {
            "of decoding": ours / per_core["decode"],
            "pack, of decoding": per_core["pack"] / per_core["decode"],
            "of the published recipe": ours / per_core["published recipe"],
            "of resizing on the host": ours / per_core["resized on the host"],
            "threads, of one": in_all["pipeline, threads"] / in_all["pipeline"],
        },
    }


def rate(step: Callable[[], int], seconds: float) -> Rate:
    """`step` does some work and returns how many images."""
    step()  # warm-up
    count, processor, clock = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - clock < seconds:
        count += step()
    return count / (time.process_time() - processor), count / (time.perf_counter() - clock)


def pipeline_rate(source: Source, fit: tuple[int, int], threads: int, options: argparse.Namespace) -> Rate:
    """`fit`: canvas and `least`, as for TrainBatches."""
    canvas, least = fit
    given = {"batch_size": options.batch_size, "canvas": canvas, "least": least, "threads": threads}
    with TrainBatches(source, seed=0, **given) as batches:
        for _ in range(2 * threads + 2):  # what was decoded ahead during the warm-up must not count
            next(batches)
        return rate(lambda: len(next(batches)["image"]), options.seconds)


def decode_rate(source: Source, threads: int, options: argparse.Namespace) -> Rate:
    """Decodes whole files that are in memory already, nothing else; also tells how many cores are really free."""
    files = [bytes(source[index].data) for index in range(min(len(source), options.batch_size))]

    def work() -> None:
        for data in files:
            if data[:2] == b"\xff\xd8":
                simplejpeg.decode_jpeg(data, "RGB")
            else:
                np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    with ThreadPoolExecutor(threads) as pool:

        def step() -> int:
            for future in [pool.submit(work) for _ in range(threads)]:
                future.result()
            return threads * len(files)

        return rate(step, options.seconds)


def recipe(source: FolderSource, size: int) -> Callable[[], int]:
    rng = np.random.default_rng(0)
    paths = itertools.cycle([Path(source.root, source.name(index)) for index in range(len(source))])

    def step() -> int:
        published_recipe.load(next(paths), rng, size)
        return 1

    return step


# ---------------------------------------------------------------- table


def heading(options: argparse.Namespace) -> str:
    columns = (
        "canvas",
        "decode",
        "pipeline",
        "of decode",
        "pack",
        "recipe",
        "times",
        "resized",
        f"{options.threads} threads",
    )
    return f"{'images/s per core':18}" + "".join(f"{name:>10}" for name in columns)


def line(name: str, row: dict[str, Any]) -> str:
    speed, ratios = row["per_core"], row["ratios"]
    cells = (
        f"{row['canvas']}", f"{speed['decode']:,.0f}", f"{speed['pipeline']:,.0f}", f"{ratios['of decoding']:.2f}",
        f"{ratios['pack, of decoding']:.2f}", f"{speed['published recipe']:,.0f}",
        f"{ratios['of the published recipe']:.0f}", f"{speed['resized on the host']:,.0f}",
        f"{ratios['threads, of one']:.2f}",
    )  # fmt: skip
    return f"{name:18}" + "".join(f"{cell:>10}" for cell in cells)


if __name__ == "__main__":
    main()
