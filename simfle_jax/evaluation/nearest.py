"""What the neighbours of an image tell: a classifier without training, and retrieval of the same face."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from simfle_jax.arrays import AnyArray
from simfle_jax.evaluation import scores
from simfle_jax.evaluation.linear import HOLDOUT, holdout_rows

NEIGHBOURS = 20
TEMPERATURE = 0.07
QUERIES_AT_ONCE = 1024
LEAST = 1e-30  # share of the votes that stands for none, so that its logarithm is finite


def unit_rows(x: Float[Array, "image feature"]) -> Float[Array, "image feature"]:
    """Rows of [n, D] scaled to length 1; rows of zeros stay."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


class Neighbours(NamedTuple):
    """A classifier without training: the k nearest (cosine) of labelled features vote.

    A neighbour's vote weighs exp(cosine / temperature), as is usual for self-supervised encoders.
    """

    bank: jax.Array  # [n, D], rows of length 1
    labels: jax.Array  # [n]
    n_classes: int
    k: int = NEIGHBOURS  # all, where there are fewer
    temperature: float = TEMPERATURE

    def probabilities(self, features: AnyArray) -> jax.Array:
        """Shares of the votes [m, K] for features [m, D]."""
        parts = [features[i : i + QUERIES_AT_ONCE] for i in range(0, len(features), QUERIES_AT_ONCE)]
        return jnp.concatenate([self._shares(jnp.asarray(part)) for part in parts])

    def logits(self, features: AnyArray) -> jax.Array:
        """Logarithms of the shares [m, K]."""
        return jnp.log(jnp.maximum(self.probabilities(features), LEAST))

    def predict(self, features: AnyArray) -> jax.Array:
        """The numbers of the classes with most votes [m]."""
        return jnp.argmax(self.probabilities(features), -1)

    def _shares(self, queries: jax.Array) -> jax.Array:
        k = min(self.k, len(self.bank))
        return _votes(*nearest(self.bank, self.labels, queries, k), self.n_classes, self.temperature)[:, k - 1]


def neighbours(
    features: np.ndarray, labels: np.ndarray, n_classes: int, k: int = NEIGHBOURS, temperature: float = TEMPERATURE
) -> Neighbours:
    """The classifier whose bank are features [n, D] with labels [n]."""
    return Neighbours(unit_rows(jnp.asarray(features)), jnp.asarray(labels), n_classes, k, temperature)


def knn(
    features: Float[np.ndarray, "image feature"],
    labels: Int[np.ndarray, " image"],
    queries: Float[np.ndarray, "query feature"],
    n_classes: int,
    k: int = NEIGHBOURS,
) -> Int[np.ndarray, " query"]:
    """Classes [m] of queries [m, D] by their k nearest among features [n, D] with labels [n]."""
    return np.asarray(neighbours(features, labels, n_classes, k).predict(jnp.asarray(queries)))


def choose_vote(
    train: tuple[np.ndarray, np.ndarray],
    n_classes: int,
    ks: tuple[int, ...],
    temperatures: tuple[float, ...],
    seed: int,
) -> tuple[int, float]:
    """The k and temperature that do best, in balanced accuracy, on a fifth of the training images kept apart.

    train: features [n, D] and labels [n]. The neighbours are looked for once; of equally good settings the first stays.
    """
    pairs = [(k, temperature) for temperature in temperatures for k in ks]
    if len(pairs) == 1:
        return pairs[0]
    features, labels = (np.asarray(part) for part in train)
    apart = holdout_rows(labels, HOLDOUT, seed)
    bank, bank_labels = unit_rows(jnp.asarray(features[~apart])), jnp.asarray(labels[~apart])
    matrices = np.zeros((len(pairs), n_classes, n_classes), np.int64)
    last = [min(k, len(bank)) - 1 for k in ks]
    for rows in np.array_split(np.flatnonzero(apart), apart.sum() // QUERIES_AT_ONCE + 1):
        found = nearest(bank, bank_labels, jnp.asarray(features[rows]), max(last) + 1)
        for i, temperature in enumerate(temperatures):
            votes = np.asarray(_votes(*found, n_classes, temperature))
            for j, row in enumerate(last):
                matrices[i * len(ks) + j] += scores.confusion(labels[rows], votes[:, row].argmax(-1), n_classes)
    return pairs[int(np.argmax(scores.balanced_accuracy(matrices)))]


@partial(jax.jit, static_argnames="k")
def nearest(bank: jax.Array, labels: jax.Array, queries: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Cosines [m, k], falling, and labels [m, k] of the rows of bank [n, D] that are nearest to queries [m, D]."""
    cosines, rows = jax.lax.top_k(_cosines(queries, bank), k)
    return cosines, labels[rows]


@partial(jax.jit, static_argnames="n_classes")
def _votes(cosines: jax.Array, labels: jax.Array, n_classes: int, temperature: float | jax.Array) -> jax.Array:
    """Shares of the classes in the votes of the first 1, 2, ..., k neighbours: [m, k, K]."""
    votes = jnp.exp(
        (cosines - cosines[:, :1]) / temperature
    )  # relative to the nearest: its vote is 1, and none overflows
    each = jnp.cumsum(votes[:, :, None] * jax.nn.one_hot(labels, n_classes), axis=1)
    return each / each.sum(-1, keepdims=True)


def view_retrieval(z1: Float[np.ndarray, "image feature"], z2: Float[np.ndarray, "image feature"]) -> float:
    """Share of faces whose first view z1[i] has the other view of the same face, z2[i], as its nearest (cosine).

    z1, z2: [n, D], row i from face i. By chance 1 / n. A tie is a miss unless it is for the own face alone, so that
    features which do not tell faces apart score 0.
    """
    cosines = np.asarray(_cosines(jnp.asarray(z1), unit_rows(jnp.asarray(z2))))
    own = np.diagonal(cosines)
    return float(((cosines >= own[:, None]).sum(1) == 1).mean())


def _cosines(queries: jax.Array, unit_bank: jax.Array) -> jax.Array:
    return jnp.matmul(unit_rows(queries), unit_bank.T, precision=jax.lax.Precision.HIGHEST)
