"""One generated face, a function of (seed, split, index, size, strengths) and of nothing else."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from simfle_jax.data.synthetic_faces.anatomy import curves, landmarks
from simfle_jax.data.synthetic_faces.camera import frame, sample_rotation
from simfle_jax.data.synthetic_faces.expressions import EXPRESSIONS, sample_units
from simfle_jax.data.synthetic_faces.identity import Identity, sample_identity
from simfle_jax.data.synthetic_faces.nuisances import background, develop, occlude
from simfle_jax.data.synthetic_faces.render import Look, paint
from simfle_jax.data.synthetic_faces.strengths import Strengths
from simfle_jax.data.synthetic_faces.surroundings import surroundings

SPLITS = ("train", "val")
IMAGES_PER_IDENTITY = 16  # every expression twice
_IDENTITY_STREAM, _IMAGE_STREAM = 0, 1


@dataclass(frozen=True)
class Face:
    """image: uint8 [size, size, 3] RGB; landmarks: float32 [68, 2] as x, y in its pixels, (0, 0) being the outer
    corner of the first pixel; units: {action unit: [image left, right] intensity}."""

    image: np.ndarray
    landmarks: np.ndarray
    expression: str
    identity: int
    units: dict[str, np.ndarray]


def draw_face(seed: int, split: str, index: int, size: int, strengths: Strengths) -> Face:
    """Image `index` of a split: 16 images in a row share an identity, expressions follow one another in turn.

    The identities of one split never appear in the other: they come from random streams of their own.
    """
    stream = SPLITS.index(split)
    identity, expression = index // IMAGES_PER_IDENTITY, EXPRESSIONS[index % len(EXPRESSIONS)]
    person = _person(seed, stream, identity, strengths)
    rng = np.random.default_rng([seed, stream, _IMAGE_STREAM, index])
    units = sample_units(rng, expression, strengths.expression)
    frontal = curves(person, units)
    gaze = strengths.gaze * rng.uniform(-1, 1, 2) * np.array([0.055, 0.02])
    rotation = sample_rotation(rng, strengths)
    factor = _oversampling(size)
    camera = frame(rng, strengths, landmarks(frontal), rotation, factor * size)
    parts = camera.project(frontal | surroundings(person, frontal, gaze))
    angle = rng.uniform(0, 2 * np.pi)
    look = Look(
        units=units,
        gaze=gaze,
        light=strengths.light * rng.random() * np.array([np.cos(angle), 0.6 * np.sin(angle)]),
        background=background(rng, strengths, factor * size),
        clothes=125 + strengths.background * rng.uniform(-105, 105, 3),
    )
    large = occlude(rng, strengths, paint(parts, camera.scale, person, look))
    image = develop(rng, strengths, large.reduce(factor))
    points = (landmarks(parts) / factor).astype(np.float32)
    return Face(image, points, expression, identity, units)


@lru_cache(maxsize=64)
def _person(seed: int, stream: int, identity: int, strengths: Strengths) -> Identity:
    return sample_identity(np.random.default_rng([seed, stream, _IDENTITY_STREAM, identity]), strengths)


def _oversampling(size: int) -> int:
    return 4 if size < 40 else 3 if size < 80 else 2
