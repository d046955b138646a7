"""Few labels: which images are drawn, and the draws summed up."""

from typing import Any

import numpy as np

from simfle_jax.evaluation import scores


def few_rows(labels: np.ndarray, share: float, key: tuple[int, int]) -> np.ndarray:
    """Rows of a draw: of every class its share, rounded, and at least one image.

    key: seed and number of the draw. A smaller share of the same draw holds a part of the images of a larger one.
    """
    rng, chosen = np.random.default_rng(key), []
    for number in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == number))
        chosen.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(chosen))


def summary_scores(labels: np.ndarray, predictions: np.ndarray, n_classes: int) -> dict[str, float]:
    """The summary scores of predictions."""
    matrix = scores.confusion(labels, predictions, n_classes)
    return {name: float(value(matrix)) for name, value in scores.SUMMARY.items()}


def summaries(draws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every share: mean, lowest and highest of each score over its draws."""
    found = []
    for share in sorted({draw["share"] for draw in draws}):
        own = [draw for draw in draws if draw["share"] == share]
        row: dict[str, Any] = {"share": share, "train_count": own[0]["train_count"], "draws": len(own)}
        for name in scores.SUMMARY:
            values = [draw[name] for draw in own]
            row[name] = {"mean": float(np.mean(values)), "range": [min(values), max(values)]}
        found.append(row)
    return found
