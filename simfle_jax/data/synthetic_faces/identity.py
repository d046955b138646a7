"""Who the face belongs to: what stays the same in all images of one identity."""

from dataclasses import dataclass

import numpy as np

from simfle_jax.data.synthetic_faces.strengths import Strengths

# Mean and standard deviation of each measure, in face units: the eyes lie at y = 0, half the distance between the
# pupils is .36, half the width of the face .8 (so a unit is about 87 mm); x to the right, y down.
_SHAPE = {
    "width": (0.80, 0.045), "chin": (1.22, 0.055), "top": (-1.02, 0.06), "squareness": (2.3, 0.22),
    "taper": (0.14, 0.07),
    "eye_x": (0.36, 0.02), "eye_width": (0.165, 0.012), "eye_up": (0.078, 0.010), "eye_low": (0.042, 0.006),
    "canthus": (0.012, 0.014), "iris": (0.074, 0.004), "crease": (0.045, 0.012),
    "brow_y": (0.225, 0.024), "brow_arch": (0.045, 0.018), "brow_tilt": (0.0, 0.018), "brow_inner": (0.135, 0.016),
    "brow_length": (0.44, 0.03), "brow_thick": (0.034, 0.009),
    "nose_y": (0.50, 0.03), "nose_width": (0.155, 0.022), "bridge": (0.06, 0.012),
    "mouth_y": (0.79, 0.028), "mouth_width": (0.275, 0.028), "lip_up": (0.048, 0.014), "lip_low": (0.070, 0.016),
    "mouth_curve": (0.0, 0.012),
}  # fmt: skip

_SKIN = np.array([[252, 222, 204], [240, 198, 170], [222, 172, 138], [188, 134, 98], [140, 92, 64], [92, 60, 44]])
_HAIR = np.array(
    [[24, 20, 20], [52, 36, 28], [92, 62, 40], [146, 106, 64], [206, 170, 110], [146, 66, 34], [160, 158, 156]]
)
_IRIS = np.array([[60, 38, 22], [92, 60, 30], [104, 104, 60], [80, 122, 110], [90, 130, 170], [110, 124, 134]])

HAIR_STYLES = ("short", "fringe", "parted", "long", "bald")
BEARDS = ("none", "stubble", "moustache", "full")


@dataclass(frozen=True)
class Identity:
    """Measures in face units (see `_SHAPE`), colours as RGB in 0..255, and styles."""

    shape: dict[str, float]
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    hair_style: str
    hair_line: float
    beard: str
    age: float
    glasses: bool
    glasses_round: float
    glasses_colour: np.ndarray


def sample_identity(rng: np.random.Generator, strengths: Strengths) -> Identity:
    """A new person; the number of values drawn does not depend on the strengths."""
    deviations = strengths.identity * rng.standard_normal(len(_SHAPE)).clip(-2, 2)
    shape = {name: mean + std * d for (name, (mean, std)), d in zip(_SHAPE.items(), deviations)}
    skin = _mix(_SKIN, 1 + strengths.skin * rng.uniform(-1, 4)) * (1 + 0.04 * strengths.skin * rng.uniform(-1, 1, 3))
    hair_rank = 1 + strengths.hair * (rng.integers(len(_HAIR)) - 1)
    # Dark skin goes with dark hair and eyes often enough that a pale lock on it would look painted.
    depth = 1 - skin.mean() / 255
    hair = _mix(_HAIR, hair_rank * (0.3 if depth > 0.45 else 1.0)) * (1 + strengths.hair * rng.uniform(-0.15, 0.1))
    iris = _mix(_IRIS, rng.uniform(0, 5) * (0.2 if depth > 0.4 else 1.0) * strengths.identity)
    rouge = 0.4 + strengths.skin * rng.uniform(-0.3, 0.3)
    lips = skin * np.array([0.88, 0.62, 0.62]) * (1 - rouge * 0.2) + rouge * np.array([46, 4, 12])
    style, beard = rng.random(), rng.random()
    return Identity(
        shape=shape,
        skin=skin.clip(0, 255),
        hair=hair.clip(0, 255),
        iris=iris,
        lips=lips.clip(0, 255),
        hair_style=HAIR_STYLES[int(np.searchsorted([0.3, 0.5, 0.7, 0.92], style * strengths.hair))],
        hair_line=-0.62 + 0.07 * strengths.hair * rng.uniform(-1, 1),
        # Beards only with short hair: at these sizes a beard below long hair hides the whole jaw.
        beard=BEARDS[int(np.searchsorted([0.6, 0.78, 0.89], beard * strengths.hair))] if style < 0.5 else "none",
        age=strengths.skin * rng.random(),
        glasses=bool(rng.random() < strengths.glasses / 3),
        glasses_round=rng.uniform(2.0, 5.0),
        glasses_colour=rng.uniform(10, 110) * rng.uniform(0.6, 1.4, 3),
    )


def _mix(palette: np.ndarray, position: float) -> np.ndarray:
    """The colour at a fractional position of a palette."""
    low = int(min(max(position, 0), len(palette) - 1.001))
    return palette[low] + (position - low) * (palette[low + 1] - palette[low])
