"""What alignment is worth: generated faces in photographs, cropped in several ways, each with an encoder that learned from such crops.

    python -m benchmarks.align --workdir runs/align --detector face_detection_yunet_2026may.onnx

Draws WORKDIR/sheet.jpg: 60 photographs with 0 to 5 faces, turned up to 40 degrees, with boxes and aligned crops; says how many of
their faces are found, and how far the crops' eyes are from their places. Without --detector both are of the known eyes.

Then photographs with one face each, 4,000 to learn from and 1,000 of other identities, are cropped to 56 pixels in three ways: the
photograph's central square, the eyes in place, and a square around the face's box. BYOL with the demo's network learns from each
without labels. A logistic probe on its features, fitted on the same crops, is asked for the eight expressions of held-out faces
that are cropped in the same way, and in the other ways, as where others crop than the encoder's owner did. An untrained encoder
stands beside each. The same command goes on where it was stopped.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from benchmarks import arms
from benchmarks.composed import SIZE, Photograph, compose, error, is_of
from simfle_jax import compilation
from simfle_jax.commands.ending import ended
from simfle_jax.config import check_seed
from simfle_jax.data.opening import open_source
from simfle_jax.data.photographs.alignment import central
from simfle_jax.data.photographs.crop import aligned
from simfle_jax.data.photographs.detector import Face, YuNet
from simfle_jax.data.pipeline import eval_batches
from simfle_jax.data.synthetic_faces import DEMO, EXPRESSIONS
from simfle_jax.encoder import load_encoder, untrained_encoder
from simfle_jax.evaluation.logistic import fit_chosen
from simfle_jax.evaluation.scores import balanced_accuracy, confusion
from simfle_jax.progress import Progress

SHEET = 60  # photographs
COUNTS = {"train": 4000, "val": 1000}  # photographs of one face
FACES = dataclasses.replace(DEMO, closeup=0.0)  # whole faces, as they are in photographs
CROP, MARGIN = 56, 0.2  # pixels; of the box's longer side on each edge
EPOCHS = 10  # of 125 updates
SETTINGS = [
    "--config=demo", "--config.method=byol", f"--config.epochs={EPOCHS}", "--config.log_steps=25",
    "--config.checkpoint_steps=0", "--config.views.size=48", f"--config.data.canvas={CROP}",
]  # fmt: skip
UNTRAINED = ", untrained"


def around(pixels: np.ndarray, face: Face) -> np.ndarray:
    """The square around a face's box with MARGIN, as far as the photograph reaches."""
    x, y, width, height = face.box
    half, middle = (0.5 + MARGIN) * max(width, height), (x + width / 2, y + height / 2)
    box = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
    return np.asarray(Image.fromarray(pixels).resize((CROP, CROP), Image.Resampling.BILINEAR, clipped(box, pixels)))


def clipped(box: tuple[float, ...], pixels: np.ndarray) -> tuple[float, float, float, float]:
    """A box within the photograph."""
    height, width = pixels.shape[:2]
    return max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3])


CROPS: dict[str, Callable[[np.ndarray, Face], np.ndarray]] = {
    "centre": lambda pixels, face: np.asarray(Image.fromarray(central(pixels)).resize((CROP, CROP))),
    "eyes": lambda pixels, face: aligned(pixels, face.eyes, CROP),
    "box": around,
}
FOUND = "found eyes"  # by the detector; the centre where it finds no face


def sheet(photographs: list[Photograph], detector: YuNet | None, path: Path) -> str:
    """Draws all of them with their crops; says how many faces are found, and how far their eyes are from their places."""
    cell, crop, columns, gap = (240, 180), 48, 6, 8
    wide, high, rows = cell[0] + gap, cell[1] + crop + gap, -(-len(photographs) // columns)
    picture = Image.new("RGB", (columns * wide + gap, rows * high + gap), "white")
    known, hit, wrong, errors = 0, 0, 0, []
    for number, photograph in enumerate(photographs):
        found = detector(photograph.pixels) if detector else photograph.faces
        x, y = number % columns * wide + gap, number // columns * high + gap
        picture.paste(boxed(photograph.pixels, found, cell), (x, y))
        for place, face in enumerate(found[:5]):
            small = Image.fromarray(aligned(photograph.pixels, face.eyes, crop))
            ImageDraw.Draw(small).text((2, 0), str(place + 1), "white", stroke_width=1, stroke_fill="black")
            picture.paste(small, (x + place * crop, y + cell[1]))
        known += len(photograph.faces)
        wrong += sum(not any(is_of(face, truth) for truth in photograph.faces) for face in found)
        for truth in photograph.faces:
            mine = [face for face in found if is_of(face, truth)]
            hit += bool(mine)
            errors += [error(mine[0], truth)] if mine else []
    picture.save(path, quality=88)
    if not detector:
        return f"{known} faces, cropped by their known eyes: no detector was given"
    mean = 100 * float(np.mean(errors)) if errors else math.nan
    return f"{hit} of {known} faces found, {wrong} that are none, eyes {mean:.2f} % of the crop from their places"


def boxed(pixels: np.ndarray, faces: list[Face], size: tuple[int, int]) -> Image.Image:
    """The photograph in small, with the faces' boxes, numbered."""
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    pen, scale = ImageDraw.Draw(small), size[0] / SIZE[0]
    for place, face in enumerate(faces):
        left, top, width, height = (value * scale for value in face.box)
        pen.rectangle((left, top, left + width, top + height), outline=(0, 255, 0), width=2)
        pen.text((left + 4, top + 2), str(place + 1), "white", stroke_width=1, stroke_fill="black")
    return small


def write_crops(folder: Path, seed: int, detector: YuNet | None) -> None:
    """FOLDER/WAY/SPLIT/EXPRESSION/NUMBER.png of all photographs; what is there already stays."""
    progress, done = Progress(sum(COUNTS.values()), f"seed {seed}, photographs"), 0
    for split, count in COUNTS.items():
        wanted = [*CROPS, *([FOUND] if detector and split == "val" else [])]
        for number in range(count):
            place = Path(split, EXPRESSIONS[number % len(EXPRESSIONS)], f"{number:05d}.png")
            missing = [way for way in wanted if not (folder / way / place).is_file()]
            if missing:
                rng = np.random.default_rng([seed, len(split), number])
                photograph = compose(rng, split, number, 1, FACES, half=True, seed=seed)
                for way in missing:
                    save(cropped(photograph, way, detector), folder / way / place)
            done += 1
            progress.update(done)


def cropped(photograph: Photograph, way: str, detector: YuNet | None) -> np.ndarray:
    """uint8 [CROP, CROP, 3]: the photograph's only face, cropped in one of the ways."""
    if way != FOUND:
        return CROPS[way](photograph.pixels, photograph.faces[0])
    assert detector is not None
    found = detector(photograph.pixels)
    return CROPS["eyes" if found else "centre"](photograph.pixels, found[0] if found else photograph.faces[0])


def save(pixels: np.ndarray, file: Path) -> None:
    """Writes a PNG, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(part := file.with_suffix(".part"), "PNG")
    part.replace(file)


@cache
def load(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All crops of a split, uint8 [n, CROP, CROP, 3], and their labels [n]."""
    batches = list(eval_batches(open_source("folder", str(folder), True, split), batch_size=500, canvas=CROP))
    images, labels, valid = (np.concatenate([batch[key] for batch in batches]) for key in ("image", "label", "valid"))
    return images[valid], labels[valid]


def scores(workdir: Path, arm: str, seed: int) -> arms.Scores:
    """Balanced accuracy of an arm's probe on held-out faces, by the way in which these are cropped."""
    way, fresh, _ = arm.partition(UNTRAINED)
    folder, crops = workdir / f"{way}_{seed}", workdir / f"faces{seed}"
    found = dict[str, float]()
    if not fresh:
        flags = [f"--config.seed={seed}", f"--config.data.path={(crops / way / 'train').absolute()}"]
        found["seconds"] = arms.trained([*SETTINGS, *flags], folder, folder.with_suffix(".log"))["seconds"]
    encoder = untrained_encoder(load_encoder(folder), seed) if fresh else load_encoder(folder)
    images, labels = load(crops / way, "train")
    layer, _ = fit_chosen(encoder(images), labels, len(EXPRESSIONS), seed)
    for other in (name for name in [*CROPS, FOUND] if (crops / name).is_dir()):
        images, labels = load(crops / other, "val")
        guessed = np.asarray(layer.predict(jnp.asarray(encoder(images))))
        found[other] = float(balanced_accuracy(confusion(labels, guessed, len(EXPRESSIONS))))
    return found


def told(table: arms.Table) -> str:
    """A line for each encoder and probe, a column for each way to crop the held-out faces."""
    names = table.arms()
    columns = [way for way in [*CROPS, FOUND] if all(way in one for arm in names for one in table.of(arm).values())]
    lines = [f"{'encoder and probe of':20s}" + "".join(f"{'asked on ' + way:>26s}" for way in columns)]
    return "\n".join(
        lines + [f"{arm:20s}" + "".join(f"{arms.spread(table, arm, way):>26s}" for way in columns) for arm in names]
    )


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/align"), help="default %(default)s")
    parser.add_argument("--detector", default="", metavar="FILE", help="YuNet's file; without one the known eyes serve")
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0, 1, 2], help="of faces, runs and probes; none: the sheet"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: WORKDIR/scores.json")
    args = parser.parse_args(argv)
    ended(lambda: run(args.workdir, args.detector, args.seeds, args.out or args.workdir / "scores.json"))


def run(workdir: Path, model: str, seeds: Sequence[int], out: Path) -> None:
    """Draws, counts, trains and probes."""
    for seed in seeds:
        check_seed(seed, "--seeds")
    compilation.use_cache()
    workdir.mkdir(parents=True, exist_ok=True)
    detector, rng = YuNet(model) if model else None, np.random.default_rng(0)
    many = [compose(rng, "val", 5 * number, number % 6) for number in range(SHEET)]
    print(sheet(many, detector, workdir / "sheet.jpg"))
    table = arms.Table(out, {"photographs": COUNTS, "crop": CROP, "settings": SETTINGS})
    for seed in seeds:
        write_crops(workdir / f"faces{seed}", seed, detector)
        pairs = [name for way in CROPS for name in (way, way + UNTRAINED)]
        arms.measure(table, [seed], pairs, lambda arm, seed: scores(workdir, arm, seed), f"seed {seed}, encoders")
        load.cache_clear()
    if seeds:
        print(told(table))


if __name__ == "__main__":
    main()
