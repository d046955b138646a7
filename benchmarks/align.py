"""What alignment is worth: photographs with generated faces, found or known, as a sheet to look at and as a probe.

    python -m benchmarks.align --encoder RUN --out DIR --detector face_detection_yunet_2023mar.onnx

Writes DIR/sheet.jpg: 60 photographs with 0 to 5 faces, turned up to 40 degrees, with boxes and aligned crops. Prints how many of
their faces are found, how far the crops' eyes are from their places, and the balanced accuracy of a logistic probe on the
expressions of further photographs with one face each, drawn as the demo draws them: centre-cropped, and aligned by the detector and
by the known eyes. Without --detector only the known eyes are used.
"""

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from simfle_jax.data.photographs.alignment import central
from simfle_jax.data.photographs.crop import LEFT_EYE, RIGHT_EYE, SIDE, aligned, similarity
from simfle_jax.data.photographs.detector import Face, YuNet
from simfle_jax.data.synthetic_faces import DEMO, EXPRESSIONS, WILD, Strengths, draw_face

SIZE = (640, 480)
TURN = 40  # degrees
FACES = (90, 190)  # pixels of a face's square
SHEET, ONE_FACE = 60, (480, 240)  # photographs on the sheet; of one face, for train and val


class Photograph(NamedTuple):
    """pixels: uint8 [480, 640, 3]. faces: where they are, by the known eyes. labels: their expressions."""

    pixels: np.ndarray
    faces: list[Face]
    labels: list[int]


def compose(
    rng: np.random.Generator, split: str, first: int, count: int, turn: float = TURN, strengths: Strengths = WILD
) -> Photograph:
    """`count` generated faces, `first` and following, at random places where they do not meet, before coarse, nearly grey noise."""
    noise = Image.fromarray((rng.integers(60, 190, (9, 12, 1)) + rng.integers(-25, 26, (9, 12, 3))).astype(np.uint8))
    picture, faces, labels, taken = noise.resize(SIZE, Image.Resampling.BICUBIC), [], [], list[np.ndarray]()
    for index in range(first, first + count):
        side, angle = rng.uniform(*FACES), math.radians(rng.uniform(-turn, turn))
        for _ in range(200):
            middle = rng.uniform([side * 0.6] * 2, np.array(SIZE) - side * 0.6)
            if all(np.hypot(*(middle - other[:2])) > 0.72 * (side + other[2]) for other in taken):
                break
        else:
            continue
        taken.append(np.array([*middle, side]))
        face = draw_face(0, split, index, 112, strengths)
        linear = side / 112 * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        inverse = np.linalg.inv(linear)
        start = 56 - inverse @ middle
        data = (*inverse[0], start[0], *inverse[1], start[1])
        layer = Image.fromarray(face.image).transform(SIZE, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
        disc = Image.new("L", (112, 112), 0)
        ImageDraw.Draw(disc).ellipse((1, 1, 110, 110), fill=255)
        picture.paste(layer, mask=disc.transform(SIZE, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))
        points = (face.landmarks - 56) @ linear.T + middle
        low, high = points.min(0), points.max(0)
        eyes = np.stack([points[36:42].mean(0), points[42:48].mean(0)])
        faces.append(Face((*low.tolist(), *(high - low).tolist()), eyes, 1.0))
        labels.append(EXPRESSIONS.index(face.expression))
    return Photograph(np.asarray(picture), faces, labels)


def is_of(found: Face, known: Face) -> bool:
    """Whether the eyes' middles are nearer than half of the distance of the known eyes."""
    distance = np.hypot(*(known.eyes[1] - known.eyes[0]))
    return bool(np.hypot(*(found.eyes.mean(0) - known.eyes.mean(0))) < distance / 2)


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


def error(found: Face, truth: Face) -> float:
    """How far the known eyes lie from their places in the crop that the found eyes give, in sides of the crop."""
    matrix = similarity(found.eyes, SIDE)
    inside = (truth.eyes - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T / SIDE
    return float(np.linalg.norm(inside - np.array([LEFT_EYE, RIGHT_EYE]), axis=1).mean())


def crops_of(photographs: list[Photograph], detector: YuNet | None, how: str) -> np.ndarray:
    """uint8 [n, SIDE, SIDE, 3]: 'centre', 'known' eyes, or 'detector', which falls back on the centre."""
    result = []
    for photograph in photographs:
        found = {"known": photograph.faces, "centre": []}.get(how) if how != "detector" or not detector else None
        faces = detector(photograph.pixels) if detector and how == "detector" else found
        result.append(aligned(photograph.pixels, faces[0].eyes) if faces else central(photograph.pixels))
    return np.stack(result)


def probe(encoder_path: str, sets: list[list[Photograph]], detector: YuNet | None) -> list[str]:
    """A line for each way to crop: balanced accuracy on val of a probe fitted on train, both cropped in that way."""
    import jax.numpy as jnp

    from simfle_jax.encoder import load_encoder
    from simfle_jax.evaluation import scores
    from simfle_jax.evaluation.logistic import fit_chosen

    encoder, lines = load_encoder(encoder_path), []
    labels = [np.array([photograph.labels[0] for photograph in each]) for each in sets]
    for how in ["centre", "known"] + (["detector"] if detector else []):
        train, val = (encoder(crops_of(each, detector, how)) for each in sets)
        layer, _ = fit_chosen(train, labels[0], len(EXPRESSIONS), 0)
        matrix = scores.confusion(labels[1], np.asarray(layer.predict(jnp.asarray(val))), len(EXPRESSIONS))
        recalls = np.diagonal(matrix) / np.maximum(matrix.sum(1), 1)
        lines.append(f"{how:>9}: balanced accuracy {100 * recalls.mean():.1f} % on {len(val)} photographs")
    return lines


def main() -> None:
    """Composes, draws, counts and probes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="", help="folder of a run, or a file; without one nothing is probed")
    parser.add_argument("--detector", default="", help="YuNet's file; without one the known eyes are used")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    detector, rng = YuNet(options.detector) if options.detector else None, np.random.default_rng(0)
    many = [compose(rng, "val", 5 * number, number % 6) for number in range(SHEET)]
    print(sheet(many, detector, options.out / "sheet.jpg"))
    if options.encoder:
        sets = [
            [compose(rng, split, i, 1, strengths=DEMO) for i in range(n)]
            for split, n in zip(("train", "val"), ONE_FACE)
        ]
        print("\n".join(probe(options.encoder, sets, detector)))


if __name__ == "__main__":
    main()
