"""The paper's linear probe: one linear layer on frozen features, trained by SGD with momentum.

Everything random is a function of (seed, epoch), so a probe that is continued ends where an uninterrupted one does.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from simfle_jax.arrays import AnyArray

INIT_STD = 0.01
HOLDOUT = 0.2  # share of train on which the settings of a protocol without epochs are chosen


class Linear(NamedTuple):
    """The layer: kernel [D, K], bias [K]."""

    kernel: Float[Array, "feature class"]
    bias: Float[Array, " class"]

    def logits(self, features: Float[AnyArray, "*batch feature"]) -> Float[Array, "*batch class"]:
        """Features [..., D] to logits [..., K]."""
        return jnp.matmul(features, self.kernel, precision=jax.lax.Precision.HIGHEST) + self.bias

    def predict(self, features: Float[AnyArray, "*batch feature"]) -> Int[Array, "*batch"]:
        """Features [..., D] to the numbers of the likeliest classes [...]."""
        return jnp.argmax(self.logits(features), -1)

    def probabilities(self, features: jax.Array) -> jax.Array:
        """Features [..., D] to probabilities of the classes [..., K]."""
        return jax.nn.softmax(self.logits(features))


class Labelled(NamedTuple):
    """Features [n, D] and their labels [n]; a layer also learns from shares of the classes [n, K] in their place."""

    features: Float[Array, "image feature"]
    labels: Int[Array, " image"] | Float[Array, "image class"]


class Fit(NamedTuple):
    """A probe in training, and the best it has been."""

    epoch: jax.Array  # epochs done
    layer: Linear
    velocity: Linear
    best: Linear
    best_epoch: jax.Array  # counted from 1
    best_accuracy: jax.Array


class History(NamedTuple):
    """Of every epoch: the mean loss over its images [epochs], the accuracy on every set apart [epochs, sets]."""

    loss: Any
    accuracy: Any

    def followed_by(self, other: "History") -> "History":
        """Both, as numpy arrays."""
        return History(*(np.concatenate(pair) for pair in zip(self, other)))


@dataclasses.dataclass(frozen=True)
class Sgd:
    """How the layer is trained; hashable, so that it can be a static argument of a compiled function."""

    batch_size: int
    lr: float  # for a batch of 256
    momentum: float
    balance: str  # 'none', 'sampling' or 'loss'
    seed: int

    def batch_of(self, count: int) -> int:
        """The batch when there are `count` images: a smaller set is one batch."""
        return min(self.batch_size, count)

    def scaled_lr(self, count: int) -> float:
        """The learning rate when there are `count` images."""
        return self.lr * self.batch_of(count) / 256


def new_layer(seed: int, dim: int, n_classes: int) -> Linear:
    """Kernel ~ N(0, 0.01), bias zero."""
    kernel = INIT_STD * jax.random.normal(jax.random.key(seed), (dim, n_classes), jnp.float32)
    return Linear(kernel, jnp.zeros(n_classes, jnp.float32))


# The axes of a fit at several rates: they share the epoch, and so the order of the images and the reading of them.
EACH = Fit(None, 0, 0, 0, 0, 0)  # type: ignore[arg-type]


def start(layer: Linear, rates: int = 0) -> Fit:
    """A fit before its first epoch; for several rates one of each, along a first axis."""
    velocity = jax.tree.map(jnp.zeros_like, layer)
    fit = Fit(jnp.int32(0), layer, velocity, layer, jnp.int32(0), jnp.float32(-1))
    if not rates:
        return fit
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rates, *leaf.shape)), fit)
    return each._replace(epoch=fit.epoch)


def cross_entropy(
    layer: Linear,
    features: Float[AnyArray, "image feature"],
    labels: Int[AnyArray, " image"] | Float[AnyArray, "image class"],
    weights: Float[AnyArray, " image"],
) -> Float[Array, ""]:
    """Mean of the images' cross-entropies weighted by weights [n]: a scalar."""
    log_p = jax.nn.log_softmax(layer.logits(features))
    if labels.ndim == 2:  # shares of the classes
        return -((log_p * labels).sum(1) * weights).sum() / weights.sum()
    own = jnp.take_along_axis(log_p, labels[:, None], 1)[:, 0]
    return -(own * weights).sum() / weights.sum()


def sgd_step(
    layer: Linear,
    velocity: Linear,
    batch: Labelled,
    weights: Float[AnyArray, " image"],
    lr: jax.Array | float,
    momentum: float,
) -> tuple[Linear, Linear, Float[Array, ""]]:
    """One step as PyTorch takes it: velocity = momentum * velocity + gradient; layer -= lr * velocity."""
    loss, grads = jax.value_and_grad(cross_entropy)(layer, *batch, weights)
    velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, grads)
    return jax.tree.map(lambda w, v: w - lr * v, layer, velocity), velocity, loss


@partial(jax.jit, static_argnames=("sgd", "epochs", "rates"))
def fit_epochs(
    fit: Fit, train: Labelled, apart: Sequence[Labelled], sgd: Sgd, epochs: int, rates: tuple[float, ...] = ()
) -> tuple[Fit, History]:
    """Trains `epochs` more epochs as one compiled loop.

    After each, accuracy is measured on every set in `apart`; the best epoch is chosen on the first of them.
    rates: learning rates for a batch of 256 in place of `sgd.lr`, as many as the fits that `start` made.
    """

    def trained(fit: Fit, rate: jax.Array | float) -> tuple[Fit, History]:
        layer, velocity, loss = _epoch(fit, train, sgd, rate)
        accuracies = jnp.stack([_accuracy(layer, held) for held in apart])
        return _keep_best(fit, layer, velocity, accuracies[0]), History(loss, accuracies)

    def one(fit: Fit, _: None) -> tuple[Fit, History]:
        if not rates:
            return trained(fit, sgd.scaled_lr(len(train.labels)))
        scaled = jnp.array([dataclasses.replace(sgd, lr=rate).scaled_lr(len(train.labels)) for rate in rates])
        return jax.vmap(trained, (EACH, 0), (EACH, 0))(fit, scaled)  # type: ignore[arg-type]

    return jax.lax.scan(one, fit, length=epochs)


def best_rate(fit: Fit, history: History) -> tuple[int, Fit, History]:
    """Of a fit at several rates: the number of the best one on the first set apart, its fit and its history."""
    best = int(np.argmax(fit.best_accuracy))
    own = jax.tree.map(lambda leaf: leaf[best], fit._replace(epoch=fit.best_epoch))._replace(epoch=fit.epoch)
    return best, own, History(history.loss[:, best], history.accuracy[:, best])


def _epoch(fit: Fit, train: Labelled, sgd: Sgd, rate: jax.Array | float) -> tuple[Linear, Linear, jax.Array]:
    """All images once (or as many drawn with replacement, for balance = 'sampling')."""
    count, n_classes = len(train.labels), fit.layer.bias.size
    size = sgd.batch_of(count)
    order = _order(jax.random.fold_in(jax.random.key(sgd.seed), fit.epoch), train.labels, n_classes, sgd)
    class_weights = _class_weights(train.labels, n_classes) if sgd.balance == "loss" else jnp.ones(n_classes)
    short = -count % size  # the last batch is filled up with images that weigh nothing
    indices = jnp.pad(order, (0, short)).reshape(-1, size)
    counted = jnp.pad(jnp.ones(count), (0, short)).reshape(-1, size)

    def step(
        carry: tuple[Linear, Linear], batch: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Linear, Linear], jax.Array]:
        rows, valid = batch
        images = Labelled(train.features[rows], train.labels[rows])
        own = valid if images.labels.ndim == 2 else valid * class_weights[images.labels]  # shares are not balanced
        weights = own.astype(images.features.dtype)
        layer, velocity, loss = sgd_step(*carry, images, weights, rate, sgd.momentum)
        return (layer, velocity), loss * valid.sum()

    (layer, velocity), losses = jax.lax.scan(step, (fit.layer, fit.velocity), (indices, counted))
    return layer, velocity, losses.sum() / count


def _order(key: jax.Array, labels: jax.Array, n_classes: int, sgd: Sgd) -> jax.Array:
    if sgd.balance == "sampling":
        return jax.random.choice(key, len(labels), (len(labels),), p=_class_weights(labels, n_classes)[labels])
    return jax.random.permutation(key, len(labels))


def _class_weights(labels: jax.Array, n_classes: int) -> jax.Array:
    """Weights [K] that let every class weigh the same, 1 on average over the images; 0 for a class without any."""
    counts = jnp.bincount(labels, length=n_classes)
    return jnp.where(counts > 0, len(labels) / (jnp.maximum(counts, 1) * (counts > 0).sum()), 0)


def _accuracy(layer: Linear, held: Labelled) -> jax.Array:
    return (layer.predict(held.features) == held.labels).mean(dtype=jnp.float32)


def _keep_best(fit: Fit, layer: Linear, velocity: Linear, accuracy: jax.Array) -> Fit:
    """The first of equally good epochs stays."""
    better = accuracy > fit.best_accuracy
    best, best_epoch, best_accuracy = jax.tree.map(
        lambda new, old: jnp.where(better, new, old),
        (layer, fit.epoch + 1, accuracy),
        (fit.best, fit.best_epoch, fit.best_accuracy),
    )
    return Fit(fit.epoch + 1, layer, velocity, best, best_epoch, best_accuracy)


def holdout_rows(labels: Int[np.ndarray, " image"], share: float, seed: int) -> Bool[np.ndarray, " image"]:
    """Which images [n], bool, are kept apart: of every class its share, at least one, never all of them."""
    rng, apart = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for number in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == number))
        apart[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return apart
