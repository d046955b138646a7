"""The scores of a study's checkpoints as a picture."""

from pathlib import Path
from typing import Any

import numpy as np


def draw(found: dict[str, Any], probe: str, path: Path) -> None:
    """The score over updates and over minutes: every seed a thin line, their mean a thick one; others as a level.

    found: what `table.collect` gives. probe: the name of the probe that the checkpoints had.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for number, (arm, row) in enumerate(found["arms"].items()):
        colour, curves = f"C{number % 10}", list(row["curve"].values())
        level = row["scores"].get(probe)
        if not curves and level:
            for axis in axes:
                axis.axhline(100 * level["mean"], color=colour, linestyle="--", label=arm)
        for points in curves:
            for axis, x in zip(axes, _times(points), strict=True):
                axis.plot(x, [100 * point["score"] for point in points], color=colour, linewidth=0.8, alpha=0.6)
        if shared := at_shared_steps(curves):
            mean = 100 * np.mean([[point["score"] for point in points] for points in shared], 0)
            for axis, x in zip(axes, np.mean([_times(points) for points in shared], 0), strict=True):
                axis.plot(x, mean, color=colour, marker="o", linewidth=2.5, label=arm)
    axes[0].set(xlabel="updates", ylabel=f"{probe}: {found['scores'][0].replace('_', ' ')} in %")
    axes[1].set(xlabel="minutes of training")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def at_shared_steps(curves: list[list[dict[str, float]]]) -> list[list[dict[str, float]]]:
    """The points of all seeds that are at their end, at the steps that they share: one that was stopped has more."""
    last = max((points[-1]["step"] for points in curves if points), default=0)
    ended = [{point["step"]: point for point in points} for points in curves if points and points[-1]["step"] == last]
    steps = sorted(set.intersection(*map(set, ended))) if ended else []
    return [[points[step] for step in steps] for points in ended]


def _times(points: list[dict[str, float]]) -> list[list[float]]:
    return [[point["step"] for point in points], [point["seconds"] / 60 for point in points]]
