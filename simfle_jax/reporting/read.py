"""What a run and a probe have left in their folders, read with forgiveness: a run may be half way, or cut short."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from simfle_jax.config import Config, flatten, upgrade
from simfle_jax.config.typed import with_defaults
from simfle_jax.data.read_back import parse_json
from simfle_jax.errors import UserError
from simfle_jax.runs.folder import read_settings
from simfle_jax.runs.mirror import shown

Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A pre-training run as its folder tells it."""

    name: str  # of the folder, longer where two are called alike
    folder: Path
    settings: Values  # flat: 'facemae.patch' and so on
    environment: Values
    metrics: list[Values]  # lines of metrics.jsonl
    steps: list[int]  # of the checkpoints that are there
    notes: list[str]  # what is missing or damaged


@dataclasses.dataclass(frozen=True)
class ProbeRecord:
    """A probe as its folder tells it; `results` is empty where it has not finished."""

    name: str
    folder: Path
    results: Values
    settings: Values
    notes: list[str]

    @property
    def tells_classes(self) -> bool:
        """Whether it is a probe of classes, finished or not; others are of landmarks."""
        return "landmarks" not in (self.results.get("protocol"), self.settings.get("protocol"))


def read_run(folder: Path, name: str, steps: list[int]) -> RunRecord:
    """Reads a run's folder; `steps` of its checkpoints. Raises UserError where it is not one."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json: give the --workdir of a pre-training run")
    notes: list[str] = []
    environment = _read_object(folder / "environment.json", notes)
    metrics = read_metrics(folder / "metrics.jsonl", notes)
    if not steps:
        notes.append("no checkpoint yet, so nothing can be shown of what the networks see")
    recorded = upgrade(read_settings(folder))
    settings = flatten(recorded) | flatten(with_defaults(Config, recorded))  # settings that came later are as before
    return RunRecord(name, folder, settings, environment, metrics, steps, notes)


def read_probe(folder: Path, name: str) -> ProbeRecord:
    """Reads a probe's folder. Raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: give --probe the --workdir of a probe")
    notes: list[str] = []
    results = _read_object(folder / "results.json", notes)
    settings = _read_object(folder / "config.json", notes) if (folder / "config.json").exists() else {}
    return ProbeRecord(name, folder, results, flatten(settings), notes)


def read_comparison(folder: Path) -> dict[str, Values]:
    """Scores by encoder in results.json of `simfle_jax.demo`, where a run is one of its own; else empty."""
    file = folder.absolute().parent / "results.json"
    rows = _read_object(file, []).get("rows")
    rows = rows if isinstance(rows, dict) else {}
    return {name: scores for name, scores in rows.items() if isinstance(scores, dict) and "probe" in scores}


def read_metrics(file: Path, notes: list[str]) -> list[Values]:
    """The lines that can be read; how many cannot, or hold values that are not finite, is added to the notes."""
    try:
        texts = file.read_text(errors="replace").splitlines()
    except OSError:
        notes.append("no metrics.jsonl yet, so there are no curves")
        return []
    lines, lost, strange = [], 0, 0
    for text in texts:
        line = _number_line(text)
        if line is None:
            lost += bool(text.strip())
            continue
        strange += any(isinstance(value, float) and not math.isfinite(value) for value in line.values())
        lines.append(line)
    if lost:
        notes.append(f"{_lines(lost)} of metrics.jsonl could not be read and is left out, as after a killed run")
    if strange:
        notes.append(f"{_lines(strange)} of metrics.jsonl with values that are not finite: gaps in the curves")
    return lines


def names_of(folders: list[Path]) -> list[str]:
    """A short name for each folder: its last part, and as many of those before as tell them apart."""
    parts = [Path(shown(folder)).absolute().parts for folder in folders]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{shown(folder)} ({number})" for number, folder in enumerate(folders, 1)]


def _lines(count: int) -> str:
    return f"{count} line" + "s" * (count != 1)


def _number_line(text: str) -> Values | None:
    try:
        line = parse_json(text)
    except ValueError:
        return None
    is_line = isinstance(line, dict) and isinstance(line.get("step"), int)
    return {key: value for key, value in line.items() if isinstance(value, int | float)} if is_line else None


def _read_object(file: Path, notes: list[str]) -> Values:
    try:
        found = parse_json(file.read_text())
    except OSError:
        notes.append(f"no {file.name}")
        return {}
    except ValueError:
        notes.append(f"{file.name} is damaged")
        return {}
    return found if isinstance(found, dict) else {}
