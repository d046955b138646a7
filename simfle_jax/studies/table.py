"""What came out of a study: means, every seed, 95 % intervals over seeds, and differences from the baseline.

Intervals are Student's t over the seeds. A difference is taken seed by seed, so that what a seed brings to both arms
(its faces, its images' order) does not widen its interval.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from simfle_jax.evaluation.scores import over_seeds
from simfle_jax.studies import work
from simfle_jax.studies.definition import Study
from simfle_jax.writing import write_json, write_whole

Values = dict[int, float]  # a score by seed


def summary(values: Values, baseline: Values) -> dict[str, Any]:
    """Mean, interval and seeds of a score; and of its difference from the baseline's on the seeds that both have."""
    seeds = sorted(values)
    own = [values[seed] for seed in seeds]
    found: dict[str, Any] = {"seeds": seeds, "values": own, "mean": float(np.mean(own)), "interval_95": over_seeds(own)}
    both = [seed for seed in seeds if seed in baseline]
    if both:
        gaps = [values[seed] - baseline[seed] for seed in both]
        found["difference"] = {
            "seeds": both,
            "values": gaps,
            "mean": float(np.mean(gaps)),
            "interval_95": over_seeds(gaps),
        }
    return found


def collect(study: Study, workdir: Path) -> dict[str, Any]:
    """Everything that is there by now: per arm its scores by column, its cost, and its curve by seed."""
    values: dict[str, dict[str, Values]] = {arm: {} for arm in study.arms}
    costs: dict[str, list[dict[str, float]]] = {arm: [] for arm in study.arms}
    curves: dict[str, dict[int, Any]] = {arm: {} for arm in study.arms}
    for piece in study.pieces():
        for column, value in work.found_scores(study, piece, workdir).items():
            values[piece.arm].setdefault(column, {})[piece.seed] = value
        if cost := work.training_cost(piece, workdir):
            costs[piece.arm].append(cost)
        if points := work.found_curve(study, piece, workdir):
            curves[piece.arm][piece.seed] = points
    baseline = values[study.baseline]
    return {
        "baseline": study.baseline, "seeds": list(study.seeds), "scores": list(study.scores),
        "columns": list(dict.fromkeys(column for found in values.values() for column in found)),
        "arms": {
            arm: {
                "scores": {column: summary(own, {} if arm == study.baseline else baseline.get(column, {}))
                           for column, own in values[arm].items()},
                "cost": {key: float(np.mean([cost[key] for cost in costs[arm]])) for key in (costs[arm] or [{}])[0]},
                "curve": curves[arm],
            }
            for arm in study.arms
        },
    }  # fmt: skip


def write(study: Study, workdir: Path) -> dict[str, Any]:
    """Writes table.json, table.csv, table.md and, where there are curves, curves.png; returns what `collect` found."""
    found = collect(study, workdir)
    write_json(workdir / "table.json", json.loads(json.dumps(found)))
    write_whole(workdir / "table.csv", as_csv(found))
    write_whole(workdir / "table.md", as_markdown(found))
    if any(arm["curve"] for arm in found["arms"].values()):
        from simfle_jax.studies.picture import draw

        draw(found, study.curve, workdir / "curves.png")
    return found


def as_csv(found: dict[str, Any]) -> str:
    """A line for each arm and column; shares of 1, seeds and their values parted by spaces."""
    head = ("arm", "score", "seeds", "values", "mean", "low_95", "high_95", "difference", "difference_low_95",
            "difference_high_95")  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for arm, row in found["arms"].items():
        for column, cell in row["scores"].items():
            gap = cell.get("difference")
            values = " ".join(f"{value:.6f}" for value in cell["values"])
            writer.writerow([arm, column, " ".join(map(str, cell["seeds"])), values, *_numbers(cell), *_numbers(gap)])
    return text.getvalue()


def _numbers(cell: dict[str, Any] | None) -> list[str]:
    if cell is None:
        return [""] * 3
    return [f"{cell['mean']:.6f}", *(f"{bound:.6f}" for bound in cell["interval_95"] or ())] + [""] * (
        0 if cell["interval_95"] else 2
    )


def as_markdown(found: dict[str, Any]) -> str:
    """The table to read, in %: mean with its interval, every seed in brackets, and the difference from the baseline."""
    columns, arms = found["columns"], found["arms"]
    lines = ["| arm | updates | minutes | " + " | ".join(columns) + " |", "|---" * (3 + len(columns)) + "|"]
    for arm, row in arms.items():
        cost = row["cost"]
        cells = [f"{cost['step']:,.0f}", f"{cost['seconds'] / 60:.1f}"] if cost else ["", ""]
        cells += [_cell(row["scores"].get(column)) for column in columns]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    gaps = [arm for arm in arms if any("difference" in cell for cell in arms[arm]["scores"].values())]
    if gaps:
        lines += ["", f"Differences from {found['baseline']}, seed by seed:", ""]
        lines += ["| arm | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
        for arm in gaps:
            cells = [_cell(arms[arm]["scores"].get(column, {}).get("difference"), "+") for column in columns]
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    named = " and ".join(score.replace("_", " ") for score in found["scores"])
    lines += ["", f"{named.capitalize()} in %: mean, 95 % interval over seeds, every seed."]
    return "\n".join(lines) + "\n"


def _cell(cell: dict[str, Any] | None, sign: str = "") -> str:
    if cell is None:
        return ""
    bounds = cell["interval_95"]
    text = f"{100 * cell['mean']:{sign}.1f}"
    if bounds:
        text += f" [{100 * bounds[0]:{sign}.1f} to {100 * bounds[1]:{sign}.1f}]"
    return text + f" ({', '.join(f'{100 * value:{sign}.1f}' for value in cell['values'])})"
