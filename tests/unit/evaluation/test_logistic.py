"""Logistic regression against scipy's optimum of the same objective."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from simfle_jax.evaluation.logistic import STRENGTHS, choose_l2, fit_logistic, logistic_probe


def blobs(count=120, dim=6, seed=0, spread=1.5):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = spread * rng.standard_normal((count, dim)) + 2 * np.eye(3, dim)[labels]
    return features.astype(np.float32), labels.astype(np.int32)


def scipy_optimum(features, labels, l2):
    x = (features - features.mean(0)) / features.std(0)
    shape = (x.shape[1], 3)

    def objective(flat):
        kernel, bias = flat[: x.shape[1] * 3].reshape(shape), flat[-3:]
        log_p = log_softmax(x @ kernel + bias, axis=1)
        error = np.exp(log_p) - np.eye(3)[labels]
        grad = x.T @ error / len(x) + l2 * kernel
        value = -log_p[np.arange(len(x)), labels].mean() + l2 / 2 * (kernel**2).sum()
        return value, np.concatenate([grad.ravel(), error.mean(0)])

    found = minimize(objective, np.zeros(x.shape[1] * 3 + 3), jac=True, tol=1e-10).x
    return log_softmax(x @ found[:-3].reshape(shape) + found[-3:], axis=1)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_probabilities_are_those_of_scipys_optimum(l2):
    features, labels = blobs()
    layer = fit_logistic(features, labels, 3, l2)
    ours = log_softmax(np.asarray(layer.logits(jnp.asarray(features))), axis=1)
    np.testing.assert_allclose(ours, scipy_optimum(features.astype(np.float64), labels, l2), atol=5e-3)


def test_scale_shift_and_constant_features_change_no_prediction():
    features, labels = blobs()
    moved = np.concatenate([features * 50 + 7, np.full((len(features), 1), 3, np.float32)], axis=1)
    plain = fit_logistic(features, labels, 3, 1e-2).logits(jnp.asarray(features))
    other = fit_logistic(moved, labels, 3, 1e-2).logits(jnp.asarray(moved))
    np.testing.assert_allclose(other, plain, atol=2e-2)


def test_separable_classes_do_not_run_away():
    features, labels = blobs(spread=0.01)
    layer = fit_logistic(features, labels, 3, 1e-5)
    assert np.isfinite(layer.kernel).all()
    assert (np.asarray(layer.predict(jnp.asarray(features))) == labels).all()


def test_probe_of_other_images_with_a_chosen_strength():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((90, 60)).astype(np.float32)
    noise[:, 0] += 1.5 * (np.arange(90) % 3)
    assert choose_l2(noise, np.arange(90, dtype=np.int32) % 3, 3, seed=0) in STRENGTHS
    confusion = logistic_probe(blobs(seed=1), blobs(seed=2), 3, seed=0)
    assert confusion.sum() == 120
    assert np.trace(confusion) / 120 > 0.5


def test_a_weak_strength_reaches_its_optimum_too():
    """It may be the chosen one, and then the stopping point would decide the score."""
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = np.float32(
        random.standard_normal((300, 64)) @ random.standard_normal((64, 64)) + 0.7 * np.eye(3, 64)[labels]
    )
    queries = np.float32(random.standard_normal((2000, 64)) @ random.standard_normal((64, 64)))
    found = fit_logistic(features, labels, 3, 1e-5)
    expected = scipy_optimum(features.astype(np.float64), labels, 1e-5).argmax(1)
    assert (np.asarray(found.predict(jnp.asarray(features))) != expected).mean() < 0.004
    tighter = pytest.MonkeyPatch()
    tighter.setattr("simfle_jax.evaluation.logistic.TOLERANCE", 1e-9)
    exact = fit_logistic(features, labels, 3, 1e-5)
    tighter.undo()
    told = [np.asarray(layer.predict(jnp.asarray(queries))) for layer in (found, exact)]
    assert (told[0] != told[1]).mean() < 0.004
