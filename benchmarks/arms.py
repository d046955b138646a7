"""What comparisons over seeds share: runs one after the other, scores in a file that grows, paired differences."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks import timing
from simfle_jax.errors import UserError
from simfle_jax.progress import Progress

Scores = dict[str, float]
TRAIN = ("simfle_jax", "train")


class Table:
    """Scores by arm and seed, in a JSON file that is written anew after each; a second start goes on with it.

    about: what else decides the scores, by name; of a mapping, such as that of the arms, what both starts name must agree.

    Raises:
        UserError: the file holds scores of something else.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]):
        self.file = file
        now = json.loads(json.dumps(about))
        self.found: dict[str, Any] = {**now, "machine": timing.machine(), "scores": {}}
        if file.is_file():
            before = json.loads(file.read_text())
            other = [name for name in now if name in before and not _agree(before[name], now[name])]
            if other:
                raise UserError(f"{file} holds scores of other {' and '.join(other)}: give another --out")
            self.found["scores"] = before["scores"]

    def has(self, arm: str, seed: int) -> bool:
        return str(seed) in self.found["scores"].get(arm, {})

    def add(self, arm: str, seed: int, scores: Scores) -> None:
        self.found["scores"].setdefault(arm, {})[str(seed)] = scores
        self.file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_suffix(".part")
        unfinished.write_text(json.dumps(self.found, indent=1) + "\n")
        unfinished.replace(self.file)

    def arms(self) -> list[str]:
        return list(self.found["scores"])

    def of(self, arm: str) -> dict[int, Scores]:
        """The scores of an arm by seed, in the order of the seeds."""
        return {
            int(seed): scores for seed, scores in sorted(self.found["scores"][arm].items(), key=lambda x: int(x[0]))
        }


def _agree(before: Any, now: Any) -> bool:
    if isinstance(before, dict) and isinstance(now, dict):
        return all(before[name] == now[name] for name in before.keys() & now.keys())
    return bool(before == now)


def measure(
    table: Table, seeds: Iterable[int], arms: Sequence[str], scores_of: Callable[[str, int], Scores], label: str
) -> None:
    """Fills a table, seed by seed, with what `scores_of(arm, seed)` gives; what stands there already is kept."""
    missing = [(arm, seed) for seed in seeds for arm in arms if not table.has(arm, seed)]
    progress = Progress(len(missing), label, every=0)
    for done, (arm, seed) in enumerate(missing, 1):
        table.add(arm, seed, scores_of(arm, seed))
        progress.update(done, seed=seed, last=arm)


def trained(settings: Sequence[str], workdir: Path, log: Path, program: Sequence[str] = TRAIN) -> dict[str, float]:
    """Trains to the end with train.py's `settings` in a process of its own; the means of its last ten lines of metrics.

    program: a module and its first arguments; train.py's unless given.

    Raises:
        UserError: the run failed; names its log.
    """
    command = [sys.executable, "-m", *program, *settings, f"--workdir={workdir.absolute()}"]
    with log.open("w") as out:
        status = subprocess.run(command, stdout=out, stderr=out, env=os.environ | {"JAX_PLATFORMS": "cpu"}).returncode
    if status:
        raise UserError(f"a run ended with status {status}; see {log}")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    late = {key: float(np.mean([line[key] for line in lines[-10:] if key in line])) for key in lines[-1]}
    return late | {"step": lines[-1]["step"], "seconds": lines[-1]["seconds"]}


class Interval(NamedTuple):
    """A mean over seeds and its 95 % interval by Student's t; without one where there is a single seed."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def interval(values: Sequence[float]) -> Interval:
    """Of paired differences, one for each seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return Interval(mean, mean - half, mean + half)


def differences(table: Table, arm: str, other: str, key: str) -> list[float]:
    """`arm` less `other` in one score, times 100, of every seed that has both."""
    ours, theirs = table.of(arm), table.of(other)
    return [100 * (ours[seed][key] - theirs[seed][key]) for seed in ours if seed in theirs]


def spread(table: Table, arm: str, key: str) -> str:
    """The mean over seeds in %, and the range."""
    values = [100 * scores[key] for scores in table.of(arm).values()]
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def drawn(table: Table, arms: Sequence[str], keys: Mapping[str, str], file: Path) -> None:
    """All values as one picture: a column for each score and arm, a dot for each seed, those of a seed joined."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(keys), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (key, title) in zip(np.atleast_1d(figure.subplots(1, len(keys))), keys.items(), strict=True):
        for seed in table.of(arms[0]):
            values = [100 * scores[seed][key] if seed in (scores := table.of(arm)) else np.nan for arm in arms]
            axis.plot(range(len(arms)), values, marker="o", markersize=4, linewidth=0.8, alpha=0.7)
        means = [100 * np.mean([scores[key] for scores in table.of(arm).values()]) for arm in arms]
        axis.plot(range(len(arms)), means, marker="_", markersize=26, linewidth=0, color="black")
        axis.set(title=title, xticks=range(len(arms)), xticklabels=[arm.replace(", ", ",\n") for arm in arms])
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.1)
    figure.savefig(file, dpi=110)
