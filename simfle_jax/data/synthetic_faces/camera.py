"""From face units to pixels: a turn of the head with a depth for every point, then crop and translation."""

from dataclasses import dataclass

import numpy as np

from simfle_jax.data.synthetic_faces.strengths import Strengths

# What stands out of the ellipsoid of the head, by curve, in face units.
_BRIDGE_RELIEF = np.array([0.04, 0.10, 0.17, 0.24])
_BASE_RELIEF = np.array([0.06, 0.11, 0.15, 0.11, 0.06])
# Side of the square in view and height of its middle, in face units: a tightly cropped face, and a close-up.
_TIGHT_SIDE, _TIGHT_MIDDLE = 1.86, 0.38
_CLOSE_SIDE, _CLOSE_MIDDLE = 1.35, 0.36


@dataclass(frozen=True)
class Camera:
    """Rotation [3, 3] of the head; pixels = scale * rotated + shift."""

    rotation: np.ndarray
    scale: float
    shift: np.ndarray

    def project(self, parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Curves [n, 2] in face units -> curves [n, 2] in pixels ((0, 0): the outer corner of the first pixel)."""
        points = np.concatenate(list(parts.values()))
        relief = np.concatenate([_relief(name, len(part)) for name, part in parts.items()])
        pixels = self.scale * rotated(points, relief, self.rotation) + self.shift
        ends = np.cumsum([len(part) for part in parts.values()])[:-1]
        return dict(zip(parts, np.split(pixels, ends)))


def rotated(points: np.ndarray, relief: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """[n, 2] of points on the head's surface after the turn about a centre behind the nose."""
    centre = np.array([0.0, 0.3])
    flat = points - centre
    depth = 0.62 * (1 - (flat[:, 0] / 0.85) ** 2 - (flat[:, 1] / 1.6) ** 2).clip(0) + relief
    solid = np.concatenate([flat, depth[:, None]], 1)
    # The depth at the centre is taken off, so that a turned face stays where it was.
    return solid @ rotation[:2].T - 0.35 * rotation[:2, 2] + centre


def sample_rotation(rng: np.random.Generator, strengths: Strengths) -> np.ndarray:
    """Roll, yaw and pitch as one matrix [3, 3]."""
    limits = np.deg2rad([20, 35, 18]) * strengths.pose
    roll, yaw, pitch = limits * (rng.standard_normal(3) / 2).clip(-1, 1)
    (cr, sr), (cy, sy), (cp, sp) = ((np.cos(a), np.sin(a)) for a in (roll, yaw, pitch))
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return about_z @ about_y @ about_x


def frame(rng: np.random.Generator, strengths: Strengths, face: np.ndarray, rotation: np.ndarray, size: int) -> Camera:
    """The camera for an image of size x size pixels; it keeps all of `face` ([n, 2] landmarks) inside, except close up."""
    flat = rotated(face, np.zeros(len(face)), rotation)
    low, high = flat.min(0), flat.max(0)
    close = strengths.closeup
    side = (_TIGHT_SIDE + close * (_CLOSE_SIDE - _TIGHT_SIDE)) * (1 + 0.6 * strengths.crop * rng.random())
    height = _TIGHT_MIDDLE + close * (_CLOSE_MIDDLE - _TIGHT_MIDDLE)
    if close == 0:
        side = max(side, 1.05 * float((high - low).max()))
    middle = np.array([0.0, height]) + side * 0.09 * strengths.translation * rng.uniform(-1, 1, 2)
    if close == 0:
        margin = 0.02 * side
        middle = np.clip(middle, high - side / 2 + margin, low + side / 2 - margin)
    scale = size / side
    return Camera(rotation, scale, size / 2 - scale * middle)


def _relief(name: str, count: int) -> np.ndarray:
    if name == "bridge":
        return _BRIDGE_RELIEF
    if name == "nose_base":
        return _BASE_RELIEF
    return np.zeros(count)
