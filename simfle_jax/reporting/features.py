"""A map of the features and the nearest neighbours of some images."""

import importlib.util
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from simfle_jax.evaluation.nearest import unit_rows
from simfle_jax.reporting.charts import Figure, colour, label, layout, listed

POINTS = 5000  # of a map


def pca(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two main axes of features [n, D] of length 1: places [n, 2] and the share of the variance of each axis [2]."""
    unit = np.asarray(unit_rows(jnp.asarray(features)), np.float64)
    centred = unit - unit.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(-values)[:2]
    main = vectors[:, order]
    main *= np.where(
        main[np.abs(main).argmax(0), range(main.shape[1])] < 0, -1, 1
    )  # a sign that does not hang on LAPACK
    return centred @ main, values[order] / max(values.sum(), 1e-12)


def umap(features: np.ndarray) -> np.ndarray | None:
    """Places [n, 2] by UMAP with cosine distance; None where umap-learn is not installed or there are too few rows."""
    if importlib.util.find_spec("umap") is None or len(features) < 20:
        return None
    from umap import UMAP

    return UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(features)


def draw_map(places: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], names: list[str],
             thumbnails: Sequence[str | None], axes: Sequence[str]) -> Figure:  # fmt: skip
    """A point for each image, a colour for each class; thumbnails[i] is the id of the picture to show beside the pointer."""
    data = []
    for number, name in enumerate(classes):
        rows = np.flatnonzero(labels == number)
        data.append(
            {"type": "scatter", "mode": "markers", "name": label(name), "x": listed(places[rows, 0].round(5)),
             "y": listed(places[rows, 1].round(5)), "text": [label(names[row]) for row in rows.tolist()],
             "customdata": [thumbnails[row] for row in rows.tolist()], "hovertemplate": "%{text}",
             "marker": {"color": colour(number), "size": 5, "opacity": 0.75, "symbol": number % 8}}
        )  # fmt: skip
    return {"data": data, "layout": layout(x=axes[0], y=axes[1], legend=True, height=520)}


def neighbours(features: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other rows of features [n, D] to each query row: rows [m, count] and cosines [m, count]."""
    unit = np.asarray(unit_rows(jnp.asarray(features)))
    cosines = unit[queries] @ unit.T
    cosines[np.arange(len(queries)), queries] = -np.inf
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(count, len(features) - 1)]
    return order, np.take_along_axis(cosines, order, axis=1)
