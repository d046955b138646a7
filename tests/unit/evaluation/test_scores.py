"""Scores against loops over single predictions, and laws of the intervals."""

import numpy as np
import pytest

from simfle_jax.evaluation import scores

CLASSES = ("anger", "joy", "neutral")


@pytest.fixture
def predicted():
    rng = np.random.default_rng(0)
    return rng.integers(0, 3, 200), rng.choice(3, 200, p=[0.6, 0.1, 0.3])


def f1_by_hand(labels, predictions, number):
    hits = sum(a == b == number for a, b in zip(labels, predictions))
    missed = sum(a == number != b for a, b in zip(labels, predictions))
    wrong = sum(b == number != a for a, b in zip(labels, predictions))
    return 2 * hits / (2 * hits + missed + wrong)


def test_scores_equal_those_counted_by_hand(predicted):
    labels, predictions = predicted
    report = scores.report(scores.confusion(labels, predictions, 3), CLASSES, seed=0)
    recalls = [np.mean(predictions[labels == k] == k) for k in range(3)]
    assert report["accuracy"] == pytest.approx(np.mean(labels == predictions))
    assert report["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert report["macro_f1"] == pytest.approx(np.mean([f1_by_hand(labels, predictions, k) for k in range(3)]))
    for number, name in enumerate(CLASSES):
        of_class = report["per_class"][name]
        assert of_class["recall"] == pytest.approx(recalls[number])
        assert of_class["precision"] == pytest.approx(np.mean(labels[predictions == number] == number))
        assert of_class["f1"] == pytest.approx(f1_by_hand(labels, predictions, number))
        assert of_class["count"] == np.sum(labels == number)
    assert report["count"] == 200


def test_rows_of_the_confusion_are_true_classes():
    np.testing.assert_array_equal(scores.confusion([0, 0, 1, 2], [1, 1, 1, 0], 3), [[0, 2, 0], [0, 1, 0], [1, 0, 0]])


def test_guessing_the_commonest_class_is_not_rewarded_twice():
    matrix = scores.confusion([0] * 90 + [1] * 10, [0] * 100, 2)
    assert scores.accuracy(matrix) == 0.9
    assert scores.balanced_accuracy(matrix) == 0.5
    assert scores.macro_f1(matrix) == pytest.approx(0.5 * 2 * 90 / 190)


def test_a_class_without_images_does_not_count():
    matrix = scores.confusion([0, 0, 1, 1], [0, 0, 1, 0], 3)
    assert scores.balanced_accuracy(matrix) == 0.75
    assert scores.macro_f1(matrix) == pytest.approx((0.8 + 2 / 3) / 2)


def test_intervals_hold_the_score_and_shrink_with_the_data(predicted):
    small = scores.confusion(*predicted, 3)
    widths = []
    for matrix in (small, 100 * small):
        intervals = scores.intervals(matrix, seed=1)
        for name, score in scores.SUMMARY.items():
            low, high = intervals[name]
            assert low < score(matrix) < high
        widths.append(np.ptp(intervals["accuracy"]))
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.15)


def test_interval_of_the_accuracy_is_the_binomial_one(predicted):
    matrix = scores.confusion(*predicted, 3)
    p = scores.accuracy(matrix)
    half = 1.96 * np.sqrt(p * (1 - p) / 200)
    np.testing.assert_allclose(scores.intervals(matrix, seed=2)["accuracy"], [p - half, p + half], atol=0.012)


def test_intervals_are_a_function_of_the_seed(predicted):
    matrix = scores.confusion(*predicted, 3)
    assert scores.intervals(matrix, 3) == scores.intervals(matrix, 3)
    assert scores.intervals(matrix, 3) != scores.intervals(matrix, 4)


def test_calibration_error_equals_a_loop_over_the_bins():
    rng = np.random.default_rng(5)
    sure = np.concatenate([rng.uniform(0.2, 1, 300), [1.0, 1 / 15, 0.6, 0.0]])
    right = rng.random(304) < sure**2
    expected = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = (sure > low) & (sure <= high) if number else sure <= high
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert scores.calibration_error(sure, right) == pytest.approx(expected)
    assert scores.calibration_error(np.full(1000, 0.75), np.arange(1000) % 4 > 0) == pytest.approx(0)
    assert scores.calibration_error(np.ones(10), np.zeros(10, bool)) == 1


def test_a_paired_bootstrap_equals_one_that_draws_images():
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 3, 240)
    first = np.where(rng.random(240) < 0.6, labels, rng.integers(0, 3, 240))
    second = np.where(rng.random(240) < 0.5, first, labels)
    found = scores.paired(labels, first, second, 3, seed=0)
    differences = {name: [] for name in scores.SUMMARY}
    for _ in range(1000):
        rows = rng.integers(0, 240, 240)
        matrices = [scores.confusion(labels[rows], predictions[rows], 3) for predictions in (first, second)]
        for name, score in scores.SUMMARY.items():
            differences[name].append(score(matrices[1]) - score(matrices[0]))
    for name, row in found.items():
        np.testing.assert_allclose(row["interval_95"], np.percentile(differences[name], [2.5, 97.5]), atol=0.012)
        assert row["interval_95"][0] < row["difference"] < row["interval_95"][1]
    assert found["accuracy"]["a"] == pytest.approx((first == labels).mean())
    assert found["accuracy"]["difference"] == pytest.approx((second == labels).mean() - (first == labels).mean())


def test_a_probe_compared_with_itself_differs_by_nothing(predicted):
    for row in scores.paired(*predicted, predicted[1], 3, seed=0).values():
        assert row["difference"] == 0 and row["interval_95"] == [0, 0]
