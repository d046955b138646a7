"""Generated faces with eight expressions and 68 landmarks, from nothing but a seed."""

from simfle_jax.data.synthetic_faces.expressions import EXPRESSIONS, UNITS
from simfle_jax.data.synthetic_faces.face import IMAGES_PER_IDENTITY, SPLITS, Face, draw_face
from simfle_jax.data.synthetic_faces.sheet import contact_sheet, mark_landmarks
from simfle_jax.data.synthetic_faces.strengths import DEMO, PRESETS, WILD, Strengths

__all__ = [
    "DEMO", "EXPRESSIONS", "IMAGES_PER_IDENTITY", "PRESETS", "SPLITS", "UNITS", "WILD", "Face", "Strengths",
    "contact_sheet", "draw_face", "mark_landmarks",
]  # fmt: skip
