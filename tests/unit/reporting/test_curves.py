"""Curves: all points of short ones, the peaks of long ones, gaps where nothing is finite."""

import json

import numpy as np

from simfle_jax.reporting import curves
from simfle_jax.reporting.charts import as_json


def lines(values):
    return [{"step": step, "seconds": 0.5 * step, "loss/total": value} for step, value in enumerate(values, 1)]


def test_a_short_curve_has_all_points():
    drawn = curves.draw("loss/total", {"run": lines([3.0, 2.5, 2.25])})
    (trace,) = drawn["data"]
    assert (trace["x"], trace["y"]) == ([1, 2, 3], [3, 2.5, 2.25])
    assert trace["meta"]["x"]["seconds"] == [0.5, 1, 1.5]


def test_runs_of_different_lengths_and_metrics():
    drawn = curves.draw("loss/total", {"long": lines([1.0] * 5), "short": lines([2.0]), "other": [{"step": 1, "x": 1}]})
    assert [(trace["name"], len(trace["x"]), trace["mode"]) for trace in drawn["data"]] == [
        ("long", 5, "lines"),
        ("short", 1, "markers"),
    ]
    assert curves.metric_names([lines([1.0]), [{"step": 1, "x": 1}]]) == ["loss/total", "x"]


def test_what_is_not_finite_is_a_gap():
    (trace,) = curves.draw("loss/total", {"run": lines([1.0, float("nan"), float("inf"), 4.0])})["data"]
    assert trace["y"] == [1, None, None, 4]
    assert json.loads(as_json(trace))["meta"]["y"]["smooth"][1:3] == [None, None]


def test_the_average_is_not_drawn_towards_zero_and_skips_gaps():
    smooth = curves.smoothed(np.array([5.0, np.nan, 5.0, 5.0]))
    np.testing.assert_allclose(smooth, [5, np.nan, 5, 5])
    rising = curves.smoothed(np.array([0.0, 1.0]))
    np.testing.assert_allclose(rising[1], 1 / 1.9)


def test_a_long_curve_is_thin_and_keeps_its_peaks():
    values = np.sin(np.arange(100_000) / 500)
    values[12_345], values[67_890] = 99.0, -99.0
    values[40_000:50_000] = np.nan
    found = curves.thinned(curves.curve(lines(values.tolist()), "loss/total"))
    assert len(found.values) <= curves.POINTS
    assert np.nanmax(found.values) == 99 and np.nanmin(found.values) == -99
    assert found.steps[0] == 1 and found.steps[-1] == 100_000 and (np.diff(found.steps) > 0).all()
    assert np.isnan(found.values[(found.steps > 40_200) & (found.steps < 49_800)]).all()
    np.testing.assert_array_equal(found.values, values[found.steps.astype(int) - 1])
