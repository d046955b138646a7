"""Scores of a classifier, all of them read off its confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

RESAMPLES = 1000
BINS = 15

Counts = np.ndarray | np.generic  # NumPy gives a sum over every axis as a number of its own


def confusion(
    labels: Int[np.ndarray, " image"] | list[int], predictions: Int[np.ndarray, " image"] | list[int], n_classes: int
) -> Int[np.ndarray, "{n_classes} {n_classes}"]:
    """Counts [K, K], int64: row the true class, column the predicted one."""
    cells = np.bincount(np.asarray(labels) * n_classes + np.asarray(predictions), minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes)


def accuracy(matrix: Int[np.ndarray, "*draw class class"]) -> Float[np.ndarray, "*draw"]:
    """Share of right predictions; matrix [..., K, K]."""
    return _ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum((-2, -1)))


def recall(matrix: Int[np.ndarray, "*draw class class"]) -> Float[np.ndarray, "*draw class"]:
    """Share of each class that is found, [..., K]; 0 for a class without images."""
    return _ratio(_hits(matrix), matrix.sum(-1))


def precision(matrix: Int[np.ndarray, "*draw class class"]) -> Float[np.ndarray, "*draw class"]:
    """Share of right ones among the predictions of each class, [..., K]; 0 for one that is never predicted."""
    return _ratio(_hits(matrix), matrix.sum(-2))


def f1(matrix: Int[np.ndarray, "*draw class class"]) -> Float[np.ndarray, "*draw class"]:
    """Harmonic mean of precision and recall of each class, [..., K]."""
    return _ratio(2 * _hits(matrix), matrix.sum(-1) + matrix.sum(-2))


def balanced_accuracy(matrix: Int[np.ndarray, "*draw class class"]) -> Float[np.ndarray, "*draw"]:
    """Mean recall over the classes that have images."""
    return _mean_over(recall(matrix), matrix.sum(-1) > 0)


def macro_f1(matrix: Int[np.ndarray, "*draw class class"]) -> Float[np.ndarray, "*draw"]:
    """Mean F1 over the classes that have images or predictions."""
    return _mean_over(f1(matrix), matrix.sum(-1) + matrix.sum(-2) > 0)


SUMMARY = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "macro_f1": macro_f1}


def intervals(matrix: Int[np.ndarray, "class class"], seed: int) -> dict[str, list[float]]:
    """95 % bootstrap intervals of the three summary scores.

    Drawing n predictions with replacement is one multinomial draw of the confusion matrix's cells.
    """
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(matrix.sum(), matrix.ravel() / matrix.sum(), RESAMPLES)
    draws = draws.reshape(RESAMPLES, *matrix.shape)
    return {name: np.percentile(score(draws), [2.5, 97.5]).tolist() for name, score in SUMMARY.items()}


def over_seeds(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of independent values, by Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def paired(
    labels: Int[np.ndarray, " image"],
    first: Int[np.ndarray, " image"],
    second: Int[np.ndarray, " image"],
    n_classes: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """The summary scores of two classifiers' predictions [n] for the same images, and their differences.

    Each with the 95 % interval of the difference, second - first, by a bootstrap that draws the same images for both:
    one multinomial draw of the K x K x K cells (label, first, second).
    """
    cells = (np.asarray(labels) * n_classes + first) * n_classes + second
    counts = np.bincount(cells, minlength=n_classes**3)
    used = np.flatnonzero(counts)  # few of the cells: the others would only be drawn as zeros
    draws = np.zeros((RESAMPLES, n_classes**3), np.int64)
    draws[:, used] = np.random.default_rng(seed).multinomial(len(cells), counts[used] / len(cells), RESAMPLES)
    drawn = draws.reshape(RESAMPLES, n_classes, n_classes, n_classes)
    matrices = [confusion(labels, predictions, n_classes) for predictions in (first, second)]
    found = {}
    for name, score in SUMMARY.items():
        a, b = (float(score(matrix)) for matrix in matrices)
        interval = np.percentile(score(drawn.sum(2)) - score(drawn.sum(3)), [2.5, 97.5]).tolist()
        found[name] = {"a": a, "b": b, "difference": b - a, "interval_95": interval}
    return found


def calibration_error(confidences: Float[np.ndarray, " image"], right: Bool[np.ndarray, " image"]) -> float:
    """Expected calibration error (Guo et al. 2017): how far confidence is from accuracy, over 15 bins of equal width.

    confidences: the probability of each predicted class [n]; right: whether it is the true one [n].
    """
    bins = np.clip(np.ceil(np.asarray(confidences, np.float64) * BINS) - 1, 0, BINS - 1).astype(int)
    gaps = np.bincount(bins, np.asarray(right, np.float64) - confidences, BINS)
    return float(np.abs(gaps).sum() / len(bins))


def per_class(matrix: Int[np.ndarray, "class class"], classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Precision, recall, f1 and count of every class by its name."""
    columns = zip(classes, precision(matrix), recall(matrix), f1(matrix), matrix.sum(-1), strict=True)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "count": int(n)}
        for name, p, r, f, n in columns
    }


def report(matrix: Int[np.ndarray, "class class"], classes: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Everything about one confusion matrix as plain JSON values."""
    summary: dict[str, Any] = {name: float(score(matrix)) for name, score in SUMMARY.items()}
    return summary | {
        "intervals_95": intervals(matrix, seed),
        "per_class": per_class(matrix, classes),
        "confusion": matrix.tolist(),
        "classes": list(classes),
        "count": int(matrix.sum()),
    }


def _hits(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _ratio(part: Counts, whole: Counts) -> np.ndarray:
    """part / whole, 0 where both are."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)


def _mean_over(values: np.ndarray, counted: Counts) -> np.ndarray:
    return _ratio((values * counted).sum(-1), counted.sum(-1))
