"""What the neighbours of an image tell: a classifier without training, and retrieval of the same face."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

NEIGHBOURS = 20
TEMPERATURE = 0.07
QUERIES_AT_ONCE = 1024


def unit_rows(x: Float[Array, "image feature"]) -> Float[Array, "image feature"]:
    """Rows of [n, D] scaled to length 1; rows of zeros stay."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def knn(
    features: Float[np.ndarray, "image feature"],
    labels: Int[np.ndarray, " image"],
    queries: Float[np.ndarray, "query feature"],
    n_classes: int,
    k: int = NEIGHBOURS,
) -> Int[np.ndarray, " query"]:
    """Classes [m] of queries [m, D] by a vote of their k nearest (cosine) among features [n, D] with labels [n].

    A neighbour's vote weighs exp(cosine / 0.07), as is usual for self-supervised encoders.
    """
    bank, bank_labels = unit_rows(jnp.asarray(features)), jnp.asarray(labels)
    k = min(k, len(bank))
    parts = [queries[i : i + QUERIES_AT_ONCE] for i in range(0, len(queries), QUERIES_AT_ONCE)]
    return np.concatenate([np.asarray(_vote(bank, bank_labels, jnp.asarray(part), n_classes, k)) for part in parts])


@partial(jax.jit, static_argnames=("n_classes", "k"))
def _vote(bank: jax.Array, labels: jax.Array, queries: jax.Array, n_classes: int, k: int) -> jax.Array:
    cosines, rows = jax.lax.top_k(_cosines(queries, bank), k)
    votes = jnp.exp((cosines - 1) / TEMPERATURE)  # minus one: the sum stays finite in float32
    return jnp.argmax((votes[:, :, None] * jax.nn.one_hot(labels[rows], n_classes)).sum(1), -1)


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
