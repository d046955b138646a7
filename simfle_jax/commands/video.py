"""Expressions over time: a video, or a folder of frames, as one table.

    python -m simfle_jax.video clip.mp4 --probe PROBE --out clip.csv
    python -m simfle_jax.video FRAMES --probe PROBE --out clip.csv --fps 30

One line for each frame: `frame`, `time` in seconds, the box of its largest face (`x`, `y`, `width`, `height` in pixels), the
detector's `score`, and the probability of every class. A frame without a face has NaN in their place. Lines are written as
they come, and memory does not grow with the video. Needs extra `align` and a detector's file; docs/data.md says which.
"""

import argparse
import csv
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simfle_jax.commands.aligning import add_detector, warn_of_crop
from simfle_jax.commands.ending import ended
from simfle_jax.errors import UserError
from simfle_jax.storage import on_disk, place

if TYPE_CHECKING:  # imported when it is used, so that --help stays quick
    from simfle_jax.data.photographs.detector import Detector
    from simfle_jax.data.photographs.frames import Frame
    from simfle_jax.evaluation.classifier import Classifier

AT_ONCE = 64  # frames whose faces go through the encoder together
PLACE = ("x", "y", "width", "height", "score")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.video", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=on_disk, metavar="VIDEO", help="a video file, or a folder of frames")
    parser.add_argument("--probe", required=True, help="folder of a trained probe, or a file with a whole classifier")
    parser.add_argument("--encoder", default="", help="where the probe's encoder is now, when it was moved")
    parser.add_argument("--out", type=place, required=True, metavar="FILE", help="the table, a new .csv")
    parser.add_argument(
        "--fps", type=float, default=0.0, help="frames a second (each frame's own time; 25 of a folder)"
    )
    add_detector(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    ended(lambda: print(_video_to(args)))


def _video_to(args: argparse.Namespace) -> str:
    from simfle_jax.runs.at_hand import delivered
    from simfle_jax.runs.mirror import named

    with delivered(args.out, new=True) as out:
        return named(video(argparse.Namespace(**vars(args) | {"out": out})))


def video(args: argparse.Namespace) -> str:
    """Writes the table and says in a line what is in it; raises UserError."""
    from simfle_jax import compilation
    from simfle_jax.data.photographs.detector import YuNet
    from simfle_jax.data.photographs.frames import frames_of
    from simfle_jax.evaluation.classifier import load_classifier

    if args.out.exists():
        raise UserError(f"--out {args.out} exists already: give another name, or remove it first")
    if args.fps < 0 or not math.isfinite(args.fps):
        raise UserError(f"--fps {args.fps} must be above 0")
    compilation.use_cache()
    frames, detector = frames_of(args.video, args.fps), YuNet(args.detector)
    classifier = load_classifier(args.probe, args.encoder)
    warn_of_crop(classifier.encoder.metadata, None)
    count, faces, began = 0, 0, time.monotonic()
    part = args.out.with_name(f"{args.out.name}.partial")  # a table that was cut short must not look whole
    part.unlink(missing_ok=True)
    for rows in table(frames, detector, classifier):
        head = [] if count else [["frame", "time", *PLACE, *classifier.classes]]
        _append(part, head + [[count + number, *row] for number, row in enumerate(rows)])
        count, faces = count + len(rows), faces + sum(not math.isnan(row[1]) for row in rows)
    part.replace(args.out)
    speed = faces / max(time.monotonic() - began, 1e-9)
    return f"{args.out}: {count} frames, {faces} with a face, {speed:.1f} faces/s"


def _append(out: Path, rows: list[list[Any]]) -> None:
    try:
        with out.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror or error}") from None


def table(frames: "Iterator[Frame]", detector: "Detector", classifier: "Classifier") -> Iterator[list[list[Any]]]:
    """Rows of up to AT_ONCE frames: time, box, score, probabilities; NaN where there is no face."""
    import numpy as np

    from simfle_jax.data.decode import decode
    from simfle_jax.data.photographs.crop import aligned

    canvas = classifier.canvas or classifier.encoder.size
    rows: list[list[Any]] = []
    crops: list[np.ndarray] = []
    nothing = [math.nan] * (len(PLACE) + len(classifier.classes))

    def filled() -> list[list[Any]]:
        # One shape, and a smaller one for the end: a program for every number of faces would let memory grow.
        whole = AT_ONCE if len(rows) == AT_ONCE else 1 << (max(len(crops), 1) - 1).bit_length()
        more = whole - len(crops)
        shares = iter(classifier.probabilities(np.stack(crops + crops[:1] * more)).tolist() if crops else [])
        return [row if math.isnan(row[1]) else row + [round(value, 6) for value in next(shares)] for row in rows]

    for frame in frames:
        place = nothing
        if frame.pixels is not None and (faces := detector(frame.pixels)):
            place = [round(value, 2) for value in (*faces[0].box, faces[0].score)]
            crops.append(decode(aligned(frame.pixels, faces[0].eyes), canvas))
        rows.append([round(frame.time, 6), *place])
        if len(rows) == AT_ONCE:
            yield filled()
            rows, crops = [], []
    if rows:
        yield filled()
