"""Logistic regression to its optimum: a probe without learning rate, epochs or luck."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from simfle_jax.evaluation import scores
from simfle_jax.evaluation.linear import Linear, holdout_rows

STRENGTHS = tuple(float(10.0**exponent) for exponent in range(-5, 1))
HOLDOUT = 0.2
TOLERANCE = 1e-4  # norm of the gradient at which the optimum counts as reached
MAX_STEPS = 500


def fit_logistic(features: np.ndarray, labels: np.ndarray, n_classes: int, l2: float) -> Linear:
    """Minimises mean cross-entropy + l2 / 2 * |kernel|^2 on standardised features [n, D] by L-BFGS.

    The returned layer takes the features as they are: standardisation is folded into it.
    """
    x = jnp.asarray(features)
    mean, std = x.mean(0), x.std(0)
    scale = 1 / jnp.where(std > 0, std, 1)
    layer = _minimise((x - mean) * scale, jnp.asarray(labels), jnp.asarray(l2, x.dtype), n_classes)
    kernel = layer.kernel * scale[:, None]
    return Linear(kernel, layer.bias - jnp.matmul(mean, kernel, precision=jax.lax.Precision.HIGHEST))


@partial(jax.jit, static_argnames="n_classes")
def _minimise(features: jax.Array, labels: jax.Array, l2: jax.Array, n_classes: int) -> Linear:
    def objective(layer: Linear) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(layer.logits(features), labels)
        return losses.mean() + l2 / 2 * jnp.square(layer.kernel).sum()

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry: tuple) -> tuple:
        layer, state, _, count = carry
        value, grad = value_and_grad(layer, state=state)
        updates, state = solver.update(grad, state, layer, value=value, grad=grad, value_fn=objective)
        return optax.apply_updates(layer, updates), state, optax.tree.norm(grad), count + 1

    def unfinished(carry: tuple) -> jax.Array:
        *_, norm, count = carry
        return (norm > TOLERANCE) & (count < MAX_STEPS)

    zero = Linear(jnp.zeros((features.shape[1], n_classes), features.dtype), jnp.zeros(n_classes, features.dtype))
    infinite = jnp.asarray(jnp.inf, features.dtype)
    return jax.lax.while_loop(unfinished, step, (zero, solver.init(zero), infinite, 0))[0]


def choose_l2(features: np.ndarray, labels: np.ndarray, n_classes: int, seed: int) -> float:
    """The strength that does best, in balanced accuracy, on a fifth of the training images kept apart."""
    apart = holdout_rows(labels, HOLDOUT, seed)

    def score(l2: float) -> float:
        layer = fit_logistic(features[~apart], labels[~apart], n_classes, l2)
        predictions = np.asarray(layer.predict(jnp.asarray(features[apart])))
        return float(scores.balanced_accuracy(scores.confusion(labels[apart], predictions, n_classes)))

    return max(reversed(STRENGTHS), key=score)  # of equally good ones the strongest


def logistic_probe(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], n_classes: int, seed: int
) -> np.ndarray:
    """Confusion matrix [K, K] on `test` of the probe fitted on `train`; both are features [n, D] and labels [n]."""
    layer = fit_logistic(*train, n_classes, choose_l2(*train, n_classes, seed))
    return scores.confusion(test[1], np.asarray(layer.predict(jnp.asarray(test[0]))), n_classes)
