"""How far predicted points are from the true ones, as the field tells it.

The normalised mean error (NME) of an image is the mean distance of its points over a length of the true face: the
distance of the outer eye corners (300-W, WFLW), or the geometric mean of the sides of the box around the points.
"""

from typing import Any

import numpy as np

from simfle_jax.evaluation.landmarks.schemes import Scheme

LIMITS = (0.08, 0.10)  # of the failure rate and of the area under the curve
RESAMPLES = 1000


def distances(predicted: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Of every point, in the unit of the points: [n, P] of [n, P, 2]."""
    return np.sqrt(np.square(np.float64(predicted) - points).sum(-1))


def eye_distance(points: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Between the outer eye corners, [n]."""
    left, right = scheme.eyes
    return np.sqrt(np.square(np.float64(points[:, left]) - points[:, right]).sum(-1))


def box_size(points: np.ndarray) -> np.ndarray:
    """Geometric mean of the sides of the box around all points, [n]."""
    return np.sqrt(np.prod(np.float64(points.max(1)) - points.min(1), axis=-1))


def image_errors(predicted: np.ndarray, points: np.ndarray, scheme: Scheme) -> dict[str, np.ndarray]:
    """NME [n] of every image by both lengths."""
    far = distances(predicted, points).mean(1)
    return {"outer_eyes": far / eye_distance(points, scheme), "box": far / box_size(points)}


def failure_rate(errors: np.ndarray, limit: float) -> float:
    """Share of images whose NME is above the limit."""
    return float((errors > limit).mean())


def area_under_curve(errors: np.ndarray, limit: float) -> float:
    """Of the cumulative curve from 0 to the limit, over the limit: 1 where all errors are 0.

    The curve is a staircase, so that its area is the mean of what each image has left of the limit.
    """
    return float(np.maximum(limit - errors, 0).mean() / limit)


def scores(errors: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """NME with its 95 % bootstrap interval over images, failure rates and areas, by both lengths."""
    return {name: _scores(values, seed) for name, values in errors.items()} | {
        "count": len(next(iter(errors.values())))
    }


def _scores(errors: np.ndarray, seed: int) -> dict[str, Any]:
    rng, n = np.random.default_rng(seed), len(errors)
    means = [errors[rng.integers(0, n, n)].mean() for _ in range(RESAMPLES)]
    found: dict[str, Any] = {"nme": float(errors.mean()), "nme_interval_95": np.percentile(means, [2.5, 97.5]).tolist()}
    for limit in LIMITS:
        found[f"failure_rate_{100 * limit:.0f}"] = failure_rate(errors, limit)
        found[f"auc_{100 * limit:.0f}"] = area_under_curve(errors, limit)
    return found


def part_errors(predicted: np.ndarray, points: np.ndarray, scheme: Scheme) -> dict[str, float]:
    """NME by the outer eye corners of each part of the face."""
    far = distances(predicted, points) / eye_distance(points, scheme)[:, None]
    return {name: float(far[:, rows].mean()) for name, rows in scheme.parts.items()}
