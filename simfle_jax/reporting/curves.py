"""Curves of metrics.jsonl: one chart for each metric, one line for each run."""

from typing import Any, NamedTuple

import numpy as np

from simfle_jax.reporting.charts import Figure, colour, label, layout, listed

POINTS = 1500  # of a curve; longer ones are thinned
COLUMNS = POINTS // 2
SMOOTHING = 0.9  # share of the old value in the moving average
FIRST = ("loss/total", "loss/similarity", "loss/reconstruction", "loss/distillation", "loss/grouping")
NOT_DRAWN = {"step", "epoch", "seconds"}
MEANS = {
    "features/effective_rank": "directions that carry the variance of the projections; near 1: collapsed",
    "features/std": "spread of the normalised projections; 1: everywhere alike, 0: collapsed",
    "grouping/separation": "mean cosine of channels within a group, minus between groups; 0: there are no groups",
    "masking/agreement": "overlap of the patches that two groups keep; 1: the groups do not differ",
}


class Curve(NamedTuple):
    """One metric of one run, arrays [n]; `smooth` is the moving average."""

    steps: np.ndarray
    seconds: np.ndarray
    values: np.ndarray
    smooth: np.ndarray


def metric_names(runs: list[list[dict[str, Any]]]) -> list[str]:
    """All metrics of any run, the losses first."""
    found = {name for metrics in runs for line in metrics for name in line} - NOT_DRAWN
    return [name for name in FIRST if name in found] + sorted(found - set(FIRST))


def curve(metrics: list[dict[str, Any]], name: str) -> Curve:
    """All points of a metric; a line that does not have it is left out, a value that is not finite stays as NaN."""
    rows = [(line["step"], line.get("seconds", np.nan), line[name]) for line in metrics if name in line]
    steps, seconds, values = np.array(rows, float).reshape(-1, 3).T
    values = np.where(np.isfinite(values), values, np.nan)
    return Curve(steps, seconds, values, smoothed(values))


def smoothed(values: np.ndarray) -> np.ndarray:
    """Exponential moving average of values [n], not biased towards the first one; NaN stays NaN and counts for nothing."""
    known = np.isfinite(values)
    total = _decaying_sum(np.where(known, values, 0.0))
    weight = _decaying_sum(known.astype(float))
    return np.where(known, total / np.maximum(weight, 1e-12), np.nan)


def _decaying_sum(values: np.ndarray) -> np.ndarray:
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -SMOOTHING], values)


def thinned(found: Curve) -> Curve:
    """At most POINTS points: of each stretch of steps the lowest and the highest value, so that no peak is lost."""
    count = len(found.values)
    if count <= POINTS:
        return found
    kept: set[int] = {0, count - 1}
    for part in np.array_split(np.arange(count), COLUMNS - 1):
        values = found.values[part]
        if np.isfinite(values).any():
            kept |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
        else:
            kept.add(int(part[0]))
    rows = np.array(sorted(kept))
    return Curve(*(values[rows] for values in found))


def draw(name: str, runs: dict[str, list[dict[str, Any]]]) -> Figure:
    """The chart of one metric; runs are metrics by the run's name. `meta` holds what the page's controls exchange."""
    data = []
    for number, (run, metrics) in enumerate(runs.items()):
        found = thinned(curve(metrics, name))
        if len(found.values):
            x = {"step": listed(found.steps), "seconds": listed(found.seconds)}
            y = {"raw": listed(found.values), "smooth": listed(found.smooth)}
            data.append(
                {"type": "scatter", "mode": "lines" if len(found.values) > 1 else "markers", "name": label(run),
                 "x": x["step"], "y": y["raw"], "line": {"color": colour(number), "width": 1.5},
                 "marker": {"color": colour(number)}, "meta": {"x": x, "y": y}}
            )  # fmt: skip
    return {"data": data, "layout": layout(x="step", y=name, legend=len(runs) > 1)}


def last_values(runs: dict[str, list[dict[str, Any]]], names: list[str]) -> list[list[Any]]:
    """A row for each metric: its name, and its last value in each run (None where it has none)."""
    return [[name, *(next((line[name] for line in reversed(metrics) if name in line), None) for metrics in runs.values())]
            for name in names]  # fmt: skip
