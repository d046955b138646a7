"""Ten minutes of video as one table: memory on the way, faces a second.

    python -m benchmarks.video --probe PROBE --out DIR          # `taskset -c 0` before it: on one core

Draws DIR/clip.avi, 9,000 frames at 15 a second, in which a generated face turns, leaves for a third of the time and returns;
each time another face with another expression. Then `simfle video` makes DIR/clip.csv, and its memory is read as rows are
written. The detector is the tests' stand-in: a YuNet of one layer, which OpenCV runs like the real one and which takes the
red mark on each face's nose for the face. So a real detector's time comes on top.
"""

import argparse
import csv
import functools
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from simfle_jax.data.synthetic_faces import WILD, Face, draw_face
from simfle_jax.progress import Progress
from tests.unit.data.tiny_detector import MARK, write_detector

SIZE, RATE, FRAMES = (320, 240), 15, 9000
TURNED, SEEN = 45, (30, 15)  # degrees; seconds of a face and of the empty picture
SIDE = 112  # pixels of a drawn face; its eyes are to be as far apart as those of the stand-in
POINTS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the frames: where memory is read


def draw(path: Path) -> int:
    """Writes the video; returns in how many frames a face is."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, SIZE)
    rng, seen, progress = np.random.default_rng(0), 0, Progress(FRAMES, "drawing, frames")
    noise = Image.fromarray(rng.integers(60, 200, (6, 8), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    background, period = noise.convert("RGB"), RATE * sum(SEEN)
    for number in range(FRAMES):
        frame, when = background.copy(), number % period
        if when < RATE * SEEN[0]:
            seen += 1
            paste(frame, number // period, when / (RATE * SEEN[0]))
        writer.write(np.ascontiguousarray(np.asarray(frame)[..., ::-1]))
        progress.update(number + 1)
    writer.release()
    return seen


def paste(frame: Image.Image, index: int, when: float) -> None:
    """Draws face `index` into the frame, `when` (0 to 1) on its way through it, and marks its nose."""
    face = drawn(index)
    distance = float(np.hypot(*(face.landmarks[42:48].mean(0) - face.landmarks[36:42].mean(0))))
    angle, scale = math.radians(TURNED * math.sin(2 * math.pi * when)), 16 / distance
    x = 8 * round((40 + 240 * when) / 8) + MARK / 2  # whole cells of the stand-in
    y = 8 * round((120 + 40 * math.sin(4 * math.pi * when)) / 8) + MARK / 2
    inverse = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / scale
    start = SIDE / 2 - inverse @ [x, y]
    data = (*inverse[0], start[0], *inverse[1], start[1])
    layer = Image.fromarray(face.image).transform(SIZE, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    whole = Image.new("L", (SIDE, SIDE), 255).transform(SIZE, Image.Transform.AFFINE, data)
    frame.paste(layer, mask=whole)
    corner = (round(x - MARK / 2), round(y - MARK / 2))
    ImageDraw.Draw(frame).rectangle((*corner, corner[0] + MARK - 1, corner[1] + MARK - 1), fill=(255, 0, 0))


@functools.lru_cache(maxsize=2)
def drawn(index: int) -> Face:
    """Generated face `index`."""
    return draw_face(0, "val", index, SIDE, WILD)


def memory(pid: int) -> tuple[float, float]:
    """MiB that a process of Linux holds now, and the most that it held."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (int(status.partition(name)[2].split()[0]) / 1024 for name in ("VmRSS:", "VmHWM:"))
    return now, most


def watched(command: list[str], table: Path) -> list[str]:
    """Runs the command to its end; its last line, and a line on its memory at each of POINTS."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines, points = [], [round(share * FRAMES) for share in POINTS]
    while process.poll() is None:
        written = sum(1 for _ in table.open()) - 1 if table.exists() else 0
        while points and written >= points[0]:
            now, most = memory(process.pid)
            lines.append(f"{written:>6} frames: {now:.0f} MiB, at most {most:.0f} MiB until then")
            points = [point for point in points if point > written]
        time.sleep(0.2)  # counting rows takes time of its own
    assert process.stdout is not None
    said = process.stdout.read().strip().splitlines()
    if process.returncode:
        raise SystemExit(f"it ended with status {process.returncode}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return [
        *lines,
        *said[-1:],
        f"{used.ru_utime + used.ru_stime:.1f} s of processor time, start and compilation included",
    ]


def counted(table: Path) -> str:
    """Rows with a face and without, and whether all numbers of a row are there or none."""
    with table.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    empty = [[math.isnan(float(value)) for name, value in row.items() if name not in ("frame", "time")] for row in rows]
    odd = sum(any(row) != all(row) for row in empty)
    return (
        f"{len(rows)} rows to {rows[-1]['time']} s, {sum(not all(row) for row in empty)} with a face, {odd} half filled"
    )


def main() -> None:
    """Draws, runs, reads back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", required=True, help="folder of a trained probe")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clip, table = options.out / "clip.avi", options.out / "clip.csv"
    detector = write_detector(options.out / "stand_in.onnx")
    seen = draw(clip)
    print(f"{clip}: {FRAMES} frames, {clip.stat().st_size / 2**20:.0f} MiB, a face in {seen}")
    command = [sys.executable, "-m", "simfle_jax.video", str(clip), "--probe", options.probe]
    print(*watched([*command, "--detector", str(detector), "--out", str(table)], table), counted(table), sep="\n")


if __name__ == "__main__":
    main()
