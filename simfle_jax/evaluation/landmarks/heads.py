"""From a frozen feature map to points: one linear layer to its optimum, or attention pooling for each point."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from simfle_jax.progress import Progress

STRENGTHS = tuple(10.0**power for power in range(-5, 4))  # of the ridge, over the mean square of a feature
AT_ONCE = 512  # images whose points are computed at a time


class LinearHead(NamedTuple):
    """points = map . kernel + bias: kernel [h * w * D, 2P], bias [2P]."""

    kernel: np.ndarray
    bias: np.ndarray

    def points(self, maps: np.ndarray) -> np.ndarray:
        """Maps [n, h, w, D] to points [n, P, 2] in shares of the image's side."""
        parts = [
            maps[at : at + AT_ONCE].reshape(-1, len(self.kernel)) @ self.kernel for at in range(0, len(maps), AT_ONCE)
        ]
        return (np.concatenate(parts) + self.bias).reshape(len(maps), -1, 2)


class AttentionHead(NamedTuple):
    """Every point has a query, whose attention pools the cells, and a linear layer on what it has pooled."""

    mean: np.ndarray  # [D], of a channel over cells and images
    std: np.ndarray  # [D]
    query: np.ndarray  # [P, D]
    place: np.ndarray  # [P, cells]: what attention a cell gets by its place
    kernel: np.ndarray  # [P, D + 2, 2]: of the pooled channels, and of the place where attention lies
    bias: np.ndarray  # [P, 2]

    def points(self, maps: np.ndarray) -> np.ndarray:
        """As `LinearHead.points`."""
        parts = [
            np.asarray(attended(tuple(map(jnp.asarray, self)), jnp.asarray(maps[at : at + AT_ONCE])))
            for at in range(0, len(maps), AT_ONCE)
        ]
        return np.concatenate(parts)


Head = LinearHead | AttentionHead


def to_arrays(head: Head) -> dict[str, np.ndarray]:
    """A head as named arrays, for a safetensors file."""
    return {name: np.ascontiguousarray(value) for name, value in head._asdict().items()}


def from_arrays(arrays: dict[str, np.ndarray]) -> Head:
    """The inverse of `to_arrays`; raises TypeError where something is missing."""
    return AttentionHead(**arrays) if "query" in arrays else LinearHead(**arrays)


# ---------------------------------------------------------------- linear


def fit_ridge(maps: np.ndarray, points: np.ndarray, strengths: tuple[float, ...]) -> Iterator[LinearHead | None]:
    """A ridge regression for each strength: maps [n, h, w, D], which are centred in place, points [n, P, 2].

    Solved in the smaller of images and features, in float64. Neither the mean map nor the mean shape is penalised. None
    where a strength is too weak for the rounding of the maps: nearly all that they hold is then one direction.
    """
    x, y = maps.reshape(len(maps), -1), points.reshape(len(points), -1).astype(np.float64)
    middle, shape = x.mean(0, dtype=np.float64), y.mean(0)
    x -= middle.astype(x.dtype)
    primal = x.shape[1] <= x.shape[0]
    gram = (x.T @ x if primal else x @ x.T).astype(np.float64)
    if not primal:  # its sums are 0 but for the rounding of float32, which would make an eigenvalue of 0 a negative one
        gram = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    scale = np.trace(gram) / x.shape[1]  # n times the mean square of a feature
    right = _transposed_product(x, y - shape) if primal else y - shape
    for strength in strengths:
        ridged = gram.copy()
        ridged[np.diag_indices_from(ridged)] += strength * max(scale, 1e-12)
        try:
            solved = cho_solve(cho_factor(ridged, overwrite_a=True), right)
        except LinAlgError:
            yield None
            continue
        kernel = solved if primal else _transposed_product(x, solved)
        yield LinearHead(kernel.astype(np.float32), (shape - middle @ kernel).astype(np.float32))


def _transposed_product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x.T @ y in float64, x [n, F] float32: in parts, because numpy would make a copy of all of x."""
    parts = range(0, len(x), AT_ONCE)
    return sum((x[at : at + AT_ONCE].astype(np.float64).T @ y[at : at + AT_ONCE] for at in parts), np.zeros(1))


# ---------------------------------------------------------------- attention


@jax.jit
def attended(head: Any, maps: jax.Array) -> jax.Array:
    """Points [B, P, 2] of maps [B, h, w, D]; head: the arrays of an `AttentionHead` in their order; traceable."""
    mean, std, query, place, kernel, bias = head
    rows, columns = maps.shape[1:3]
    cells = ((maps - mean) / std).reshape(len(maps), -1, maps.shape[-1])  # [B, C, D]
    attention = jax.nn.softmax(jnp.einsum("bcd,pd->bpc", cells, query) + place)
    down, across = jnp.mgrid[:rows, :columns].reshape(2, -1)
    where = jnp.stack([(across + 0.5) / columns, (down + 0.5) / rows], 1) - 0.5  # [C, 2]
    pooled = jnp.concatenate([jnp.einsum("bpc,bcd->bpd", attention, cells), attention @ where], -1)
    return jnp.einsum("bpd,pdk->bpk", pooled, kernel) + bias


def fresh_attention(shape: np.ndarray, cells: int, dim: int, seed: int) -> tuple[jax.Array, ...]:
    """Query, place, kernel and bias of a new head, which gives the mean shape [P, 2] whatever it sees."""
    query = jax.random.normal(jax.random.key(seed), (len(shape), dim)) / dim
    return query, jnp.zeros((len(shape), cells)), jnp.zeros((len(shape), dim + 2, 2)), jnp.asarray(shape)


def mean_distance(found: jax.Array, points: jax.Array) -> jax.Array:
    """The loss: how far points [B, P, 2] are from the true ones; its gradient is finite where they meet."""
    return jnp.sqrt(jnp.square(found - points).sum(-1) + 1e-12).mean()


def fit_attention(
    maps: np.ndarray, points: np.ndarray, *, epochs: int, batch_size: int, lr: float, seed: int
) -> AttentionHead:
    """Trained by Adam (half a cosine to 0) on the mean distance of the points, from the mean shape on."""
    axes = (0, 1, 2)
    mean, std = maps.mean(axes), maps.std(axes) + 1e-6
    weights = fresh_attention(points.mean(0), maps.shape[1] * maps.shape[2], maps.shape[-1], seed)
    size = min(batch_size, len(maps))
    per_epoch = len(maps) // size
    tx = optax.adam(optax.cosine_decay_schedule(lr, epochs * per_epoch))

    def loss(weights: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return mean_distance(attended((mean, std, *weights), x), y)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(weights, x, y)
        updates, state = tx.update(gradients, state)
        return optax.apply_updates(weights, updates), state, value

    state, progress = tx.init(weights), Progress(epochs * per_epoch, "attention")
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(maps))
        for at in range(per_epoch):
            rows = order[at * size : (at + 1) * size]
            weights, state, value = step(weights, state, maps[rows], points[rows])
        progress.update((epoch + 1) * per_epoch, epoch=epoch + 1, loss=float(value))
    return AttentionHead(mean, std, *map(np.asarray, weights))
