"""What a probe confuses: its matrix, its classes, and the images that it is most wrong about."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax import augment
from simfle_jax.evaluation.classifier import Classifier
from simfle_jax.reporting import page
from simfle_jax.reporting.charts import Figure, colour, label, layout


class Mistake(NamedTuple):
    """An image by its row, the class it is of, the one that it was taken for, and how sure the probe was of that."""

    row: int
    true: int
    predicted: int
    probability: float


def matrix_table(results: dict[str, Any]) -> str:
    """The confusion matrix of results.json: counts, coloured by the share of the true class."""
    matrix, classes = np.array(results["confusion"]), results["classes"]
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    rows = [[name, *counts] for name, counts in zip(classes, matrix.tolist(), strict=True)]
    return page.table("Confusion matrix: true class by row, predicted by column", ["true", *classes], rows, shares)


def class_bars(results: dict[str, Any]) -> Figure:
    """Precision, recall and F1 of each class."""
    per_class = results["per_class"]
    data = [
        {"type": "bar", "name": score, "x": [label(name) for name in per_class],
         "y": [values[score] for values in per_class.values()], "marker": {"color": colour(number)}}
        for number, score in enumerate(("precision", "recall", "f1"))
    ]  # fmt: skip
    return {"data": data, "layout": layout(y="share", legend=True, barmode="group")}


def class_table(results: dict[str, Any]) -> str:
    """The same as numbers, with how many images each class has."""
    rows = [
        [name, page.percent(of["precision"]), page.percent(of["recall"]), page.percent(of["f1"]), of["count"]]
        for name, of in results["per_class"].items()
    ]
    return page.table("Scores of each class", ["class", "precision", "recall", "F1", "images"], rows)


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> list[Mistake]:
    """The wrong answers of which the probe was surest; probabilities [n, K], labels [n]."""
    predicted = probabilities.argmax(1)
    sure = np.where(predicted != labels, probabilities.max(1), -1.0)
    right = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    rows = np.lexsort((right, -sure))[:count]  # many may be as sure: then those that give the right answer least
    return [Mistake(int(i), int(labels[i]), int(predicted[i]), float(sure[i])) for i in rows if sure[i] > 0]


def saliency(classifier: Classifier, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How strongly each pixel moves the logit of a class: uint8 [B, H, W, 3] and classes [B] to [B, S, S] in 0..1.

    The largest absolute gradient over the colours, each image scaled by its 99th percentile.
    """
    encoder = classifier.encoder
    views = encoder.preprocess(augment.resize(augment.to_float(jnp.asarray(images)), encoder.size))

    def chosen(views: jax.Array) -> jax.Array:
        return jnp.take_along_axis(classifier.logits(views), jnp.asarray(classes)[:, None], axis=1).sum()

    strength = np.abs(np.asarray(jax.grad(chosen)(views))).max(-1)
    top = np.quantile(strength, 0.99, axis=(1, 2), keepdims=True)
    return np.clip(strength / np.maximum(top, 1e-12), 0, 1)
