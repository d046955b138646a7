"""Scores and predictors against scikit-learn's, on random data; and votes against images repeated."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model, metrics, neighbors

from simfle_jax.evaluation import scores
from simfle_jax.evaluation.linear import Labelled, Sgd, fit_epochs, new_layer, start
from simfle_jax.evaluation.logistic import fit_logistic
from simfle_jax.evaluation.nearest import neighbours

CLASSES = ("a", "b", "c", "d", "e")


@pytest.fixture
def images():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 240)
    features = rng.standard_normal((240, 12)) + 0.8 * np.eye(4, 12)[labels]
    return features.astype(np.float32), labels


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    for classes_there in (5, 4):  # the last class may have neither images nor predictions
        labels, predictions = (
            rng.integers(0, classes_there, 300),
            rng.choice(classes_there, 300, p=_shares(classes_there)),
        )
        found = scores.report(scores.confusion(labels, predictions, 5), CLASSES, seed=0)
        assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predictions))
        assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predictions))
        assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, predictions, average="macro"))
        np.testing.assert_array_equal(
            found["confusion"], metrics.confusion_matrix(labels, predictions, labels=range(5))
        )
        each = metrics.precision_recall_fscore_support(labels, predictions, labels=range(5), zero_division=0)
        own = [[row[name] for row in found["per_class"].values()] for name in ("precision", "recall", "f1", "count")]
        np.testing.assert_allclose(own, each)


def _shares(count):
    shares = np.arange(1.0, count + 1)
    return shares / shares.sum()


def test_the_vote_of_neighbours_is_scikit_learns(images):
    features, labels = images
    for k, temperature in ((1, 0.07), (15, 0.07), (40, 0.5)):
        theirs = neighbors.KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda distances, t=temperature: np.exp((1 - distances) / t)
        ).fit(features[:160], labels[:160])
        ours = neighbours(features[:160], labels[:160], 4, k, temperature).probabilities(features[160:])
        np.testing.assert_allclose(ours, theirs.predict_proba(features[160:]), atol=2e-5)


def test_logistic_regression_is_scikit_learns(images):
    features, labels = images
    exact = features.astype(np.float64)
    standard = (exact - exact.mean(0)) / exact.std(0)
    for l2 in (1e-3, 0.1):
        theirs = linear_model.LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-8, max_iter=5000).fit(
            standard, labels
        )
        ours = fit_logistic(features, labels, 4, l2).probabilities(jnp.asarray(features))
        np.testing.assert_allclose(ours, theirs.predict_proba(standard), atol=2e-3)


def test_votes_weigh_as_images_repeated_with_each_class(images):
    features, labels = images
    votes = np.random.default_rng(5).multinomial(4, [0.25] * 4, len(labels))
    rows, classes = np.nonzero(votes)
    times = votes[rows, classes]
    repeated = fit_logistic(np.repeat(features[rows], times, 0), np.repeat(classes, times), 4, 1e-2)
    shares = fit_logistic(features, (votes / 4).astype(np.float32), 4, 1e-2)
    np.testing.assert_allclose(shares.kernel, repeated.kernel, atol=1e-3)
    np.testing.assert_allclose(shares.bias, repeated.bias, atol=1e-3)


def test_sgd_learns_shares_as_it_learns_the_classes_that_they_are_sure_of(images):
    features, labels = (jnp.asarray(part) for part in images)
    sgd, held = Sgd(64, 0.5, 0.9, "none", 0), (Labelled(features, labels),)
    ends = []
    for learned in (labels, jnp.eye(4)[labels], jnp.full((240, 4), 0.25)):
        fit, history = fit_epochs(start(new_layer(0, 12, 4)), Labelled(features, learned), held, sgd, 5)
        ends.append((np.asarray(fit.layer.kernel), history.loss[-1]))
    np.testing.assert_allclose(ends[0][0], ends[1][0], atol=1e-5)
    assert ends[0][1] == pytest.approx(float(ends[1][1]), abs=1e-5)
    assert ends[2][1] == pytest.approx(np.log(4), abs=0.02)
