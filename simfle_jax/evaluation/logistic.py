"""Logistic regression to its optimum: a probe without learning rate, epochs or luck."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import log_softmax

from simfle_jax.evaluation import scores
from simfle_jax.evaluation.linear import HOLDOUT, Linear, holdout_rows

STRENGTHS = tuple(float(10.0**exponent) for exponent in range(-5, 1))
TOLERANCE = 1e-6  # largest entry of the gradient, per root of curvature, at which the optimum counts as reached
MAX_STEPS = 1000


def fit_logistic(
    features: Float[np.ndarray, "image feature"],
    labels: Int[np.ndarray, " image"] | Float[np.ndarray, "image class"],
    n_classes: int,
    l2: float,
) -> Linear:
    """Minimises mean cross-entropy + l2 / 2 * |kernel|^2 on standardised features [n, D] by L-BFGS, in float64.

    labels: classes [n], or shares of the classes [n, K].
    The returned layer takes the features as they are: standardisation is folded into it.
    """
    x = np.asarray(features, np.float64)
    mean, std = x.mean(0), x.std(0)
    scale = 1 / np.where(std > 0, std, 1)
    standard = (x - mean) * scale
    # Frozen features are close to collinear, and L-BFGS would need hundreds of steps along their weak directions. The
    # layer is found on their principal components, each divided by the root of its curvature: the same optimum.
    variances, directions = np.linalg.eigh(standard.T @ standard / len(x))
    steepness = np.sqrt(np.maximum(variances, 0) + l2)[:, None]
    components = standard @ (directions / steepness.T)
    soft, own = labels.ndim == 2, (np.arange(len(x)), labels)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = flat[:-n_classes].reshape(-1, n_classes), flat[-n_classes:]
        log_p = log_softmax(components @ kernel + bias, axis=1)
        error = np.exp(log_p)
        if soft:
            error -= labels
            loss = -(log_p * labels).sum() / len(x)
        else:
            error[own] -= 1
            loss = -log_p[own].mean()
        error /= len(x)
        weak = kernel / steepness
        grad = components.T @ error + l2 * weak / steepness
        return l2 / 2 * (weak**2).sum() + loss, np.concatenate([grad.ravel(), error.sum(0)])

    options = {"gtol": TOLERANCE, "ftol": 0, "maxiter": MAX_STEPS}
    found = minimize(objective, np.zeros((x.shape[1] + 1) * n_classes), jac=True, method="L-BFGS-B", options=options).x
    kernel = scale[:, None] * (directions @ (found[:-n_classes].reshape(-1, n_classes) / steepness))
    bias = found[-n_classes:] - mean @ kernel
    return Linear(jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))


def choose_l2(
    features: Float[np.ndarray, "image feature"],
    labels: Int[np.ndarray, " image"],
    n_classes: int,
    seed: int,
    shares: Float[np.ndarray, "image class"] | None = None,
) -> float:
    """The strength that does best, in balanced accuracy, on a fifth of the training images kept apart."""
    apart = holdout_rows(labels, HOLDOUT, seed)
    learned = labels if shares is None else shares

    def score(l2: float) -> float:
        layer = fit_logistic(features[~apart], learned[~apart], n_classes, l2)
        predictions = np.asarray(layer.predict(jnp.asarray(features[apart])))
        return float(scores.balanced_accuracy(scores.confusion(labels[apart], predictions, n_classes)))

    return max(reversed(STRENGTHS), key=score)  # of equally good ones the strongest


def fit_chosen(
    features: np.ndarray, labels: np.ndarray, n_classes: int, seed: int, shares: np.ndarray | None = None
) -> tuple[Linear, float]:
    """The layer at its optimum on all of train, features [n, D] and labels [n], and the strength that was chosen.

    shares: of the classes [n, K], which are learned in place of `labels`.
    """
    l2 = choose_l2(features, labels, n_classes, seed, shares)
    return fit_logistic(features, labels if shares is None else shares, n_classes, l2), l2


def logistic_probe(
    train: tuple[Float[np.ndarray, "image feature"], Int[np.ndarray, " image"]],
    test: tuple[Float[np.ndarray, "held feature"], Int[np.ndarray, " held"]],
    n_classes: int,
    seed: int,
) -> Int[np.ndarray, "{n_classes} {n_classes}"]:
    """Confusion matrix [K, K] on `test` of the probe fitted on `train`; both are features [n, D] and labels [n]."""
    layer, _ = fit_chosen(*train, n_classes, seed)
    return scores.confusion(test[1], np.asarray(layer.predict(jnp.asarray(test[0]))), n_classes)
