"""The report's charts for a paper: PNG and PDF, as wide as a column of 8.5 cm, with text that can be read there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simfle_jax.data.bad_list import escaped
from simfle_jax.reporting import atlas, curves, features
from simfle_jax.reporting.build import Gathered, may_show
from simfle_jax.reporting.charts import COLOURS, colour

WIDTH = 8.5 / 2.54  # inches
STYLE: Any = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "xtick.labelsize": 7,
    "ytick.labelsize": 7, "axes.linewidth": 0.6, "lines.linewidth": 0.9, "pdf.fonttype": 42, "text.parse_math": False,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def write_figures(found: Gathered, folder: Path, show: bool | None) -> list[Path]:
    """Writes NAME.png and NAME.pdf of every chart, and of every picture that may be shown; returns the files."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    with matplotlib.rc_context(STYLE):
        for name, figure in _charts(found):
            files += _save(figure, folder / name)
        for name, image in _pictures(found) if may_show(found, show) else ():
            files += _save(_framed(image), folder / name)
    return files


def _save(figure: Any, stem: Path) -> list[Path]:
    files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "pdf")]
    for file in files:
        figure.savefig(file, dpi=300)
    return files


def _figure(height: float = 0.65) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, WIDTH * height), layout="constrained")
    return figure, figure.subplots()


def _charts(found: Gathered) -> Iterator[tuple[str, Any]]:
    metrics = {run.name: run.metrics for run in found.runs if run.metrics}
    for name in curves.metric_names(list(metrics.values())):
        yield f"curve_{name.replace('/', '_')}", _curve(name, metrics)
    for number, probe in enumerate(found.probes, 1):
        if "confusion" in probe.results:
            yield f"confusion_{number}", _confusion(probe.results)
    for number, answers in enumerate(found.answers.values(), 1):
        if len(answers.features) > 2:
            yield f"features_{number}", _map(answers.features, answers.labels, answers.classes)


def _curve(name: str, metrics: dict[str, list[dict[str, Any]]]) -> Any:
    figure, axes = _figure()
    for number, (run, lines) in enumerate(metrics.items()):
        found = curves.thinned(curves.curve(lines, name))
        if not len(found.values):
            continue
        axes.plot(found.steps, found.values, color=colour(number), alpha=0.3)
        axes.plot(found.steps, found.smooth, color=colour(number), label=escaped(run))
    axes.set(xlabel="step", ylabel=name)
    if len(metrics) > 1:
        axes.legend(frameon=False)
    return figure


def _confusion(results: dict[str, Any]) -> Any:
    matrix, classes = np.array(results["confusion"]), [escaped(name) for name in results["classes"]]
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure, axes = _figure(0.9)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column,
            row,
            f"{100 * share:.0f}",
            ha="center",
            va="center",
            fontsize=6,
            color="white" if share > 0.5 else "black",
        )
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true, shares in %")
    return figure


def _map(rows: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Any:
    places, shares = features.pca(rows)
    figure, axes = _figure(0.9)
    for number, name in enumerate(classes):
        chosen = labels == number
        axes.scatter(*places[chosen].T, s=3, color=COLOURS[number % len(COLOURS)], label=escaped(name), linewidths=0)
    axes.set(xlabel=f"first axis, {100 * shares[0]:.0f} %", ylabel=f"second axis, {100 * shares[1]:.0f} %")
    figure.legend(loc="outside upper center", frameon=False, markerscale=2, ncols=4, columnspacing=0.5, handletextpad=0)
    return figure


def _pictures(found: Gathered) -> Iterator[tuple[str, Image.Image]]:
    for number, seen in enumerate(found.seen.values(), 1):
        yield f"masks_{number}", atlas.all_groups(seen.looks[-1], 0)
        yield f"reconstructions_{number}", atlas.reconstructions(seen.looks[-1])


def _framed(image: Image.Image) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, WIDTH * image.height / image.width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.asarray(image), interpolation="lanczos")
    axes.set_axis_off()
    return figure
