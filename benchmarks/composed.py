"""Photographs with generated faces at known places, for the benchmark of alignment."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from simfle_jax.data.photographs.crop import LEFT_EYE, RIGHT_EYE, SIDE, similarity
from simfle_jax.data.photographs.detector import Face
from simfle_jax.data.synthetic_faces import EXPRESSIONS, WILD, Strengths, draw_face

SIZE = (640, 480)
TURN = 40  # degrees
FACES = (90, 190)  # pixels of a face's square


class Photograph(NamedTuple):
    """pixels: uint8 [H, W, 3]. faces: where they are, by the known eyes. labels: their expressions."""

    pixels: np.ndarray
    faces: list[Face]
    labels: list[int]


def compose(
    rng: np.random.Generator,
    split: str,
    first: int,
    count: int,
    strengths: Strengths = WILD,
    half: bool = False,
    seed: int = 0,
) -> Photograph:
    """`count` generated faces, `first` and following, at random places where they do not meet, before coarse, nearly grey noise.

    half: 320 x 240 pixels instead of 640 x 480. seed: of the faces.
    """
    shape = (SIZE[0] // 2, SIZE[1] // 2) if half else SIZE
    noise = Image.fromarray((rng.integers(60, 190, (9, 12, 1)) + rng.integers(-25, 26, (9, 12, 3))).astype(np.uint8))
    picture, faces, labels, taken = noise.resize(shape, Image.Resampling.BICUBIC), [], [], list[np.ndarray]()
    for index in range(first, first + count):
        side, angle = rng.uniform(*FACES) / (1 + half), math.radians(rng.uniform(-TURN, TURN))
        for _ in range(200):
            middle = rng.uniform([side * 0.6] * 2, np.array(shape) - side * 0.6)
            if all(np.hypot(*(middle - other[:2])) > 0.72 * (side + other[2]) for other in taken):
                break
        else:
            continue
        taken.append(np.array([*middle, side]))
        face = draw_face(seed, split, index, 112, strengths)
        linear = side / 112 * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        inverse = np.linalg.inv(linear)
        start = 56 - inverse @ middle
        data = (*inverse[0], start[0], *inverse[1], start[1])
        layer = Image.fromarray(face.image).transform(shape, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
        disc = Image.new("L", (112, 112), 0)
        ImageDraw.Draw(disc).ellipse((1, 1, 110, 110), fill=255)
        picture.paste(layer, mask=disc.transform(shape, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))
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


def error(found: Face, truth: Face) -> float:
    """How far the known eyes lie from their places in the crop that the found eyes give, in sides of the crop."""
    matrix = similarity(found.eyes, SIDE)
    inside = (truth.eyes - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T / SIDE
    return float(np.linalg.norm(inside - np.array([LEFT_EYE, RIGHT_EYE]), axis=1).mean())
