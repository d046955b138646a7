"""What was trained on what, how it scored, and with which settings where."""

import json
from typing import Any

from simfle_jax.reporting import page
from simfle_jax.reporting.page import Html
from simfle_jax.reporting.read import ProbeRecord, RunRecord
from simfle_jax.weights.card import protocol_title

PLACES = ("data.path", "data.cache")  # where things lie says nothing of what a run does
SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


def trained_table(runs: list[RunRecord]) -> str:
    """A row for each run: method, trunk, images, steps, time, last loss."""
    head = [
        "run",
        "method",
        "trunk",
        "images",
        "batch",
        "steps",
        "epochs",
        "hours",
        "checkpoints at",
        "last total loss",
    ]
    return page.table("What was trained", head, [_trained(run) for run in runs])


def _trained(run: RunRecord) -> list[Any]:
    settings, last = run.settings, run.metrics[-1] if run.metrics else {}
    trunk = f"{settings.get('trunk.kind', 'bottleneck')} {settings.get('trunk.stage_sizes')}, {settings.get('trunk.width')} wide"
    steps = ", ".join(f"{step:,}" for step in run.steps) or "none"
    hours = last["seconds"] / 3600 if "seconds" in last else None
    planned = settings.get("epochs")
    done = Html(f"{page.text(last['epoch'] + 1)} of {page.text(planned)}") if "epoch" in last else f"of {planned}"
    place = settings.get("data.path") or settings.get("data.sources")
    return [run.name, settings.get("method", "simfle"), trunk, str(place), settings.get("batch_size"), last.get("step"),
            done, hours, steps, last.get("loss/total")]  # fmt: skip


def score_table(probes: list[ProbeRecord]) -> str:
    """A row for each probe that has finished: scores with 95 % intervals."""
    found = [probe for probe in probes if "accuracy" in probe.results]
    rows = [
        [probe.name, "untrained" if probe.results.get("untrained") else probe.results.get("encoder"),
         protocol_title(probe.results), probe.results.get("count"), *(_score(probe, name) for name in SCORES),
         probe.results.get("best_epoch"), probe.results.get("selected_on")]
        for probe in found
    ]  # fmt: skip
    head = ["probe", "encoder", "protocol", "images", *SCORES.values(), "best epoch", "chosen on"]
    return page.table("How it scored, with 95 % bootstrap intervals", head, rows)


def comparison_table(rows: dict[str, dict[str, Any]]) -> str:
    """A row for each encoder that `simfle_jax.demo` compared."""
    names = ("probe", "probe_few", "retrieval")
    cells = [
        [encoder, *(page.percent(scores[name]) if isinstance(scores.get(name), float) else None for name in names)]
        for encoder, scores in rows.items()
    ]
    head = ["encoder", "probe, all labels", "probe, few labels", "view retrieval, top-1"]
    return page.table("How the demo scored, on held-out identities (probe: balanced accuracy)", head, cells)


def _score(probe: ProbeRecord, name: str) -> Any:
    value = probe.results.get(name)
    return None if value is None else page.percent(value, (probe.results.get("intervals_95") or {}).get(name))


def settings_table(runs: list[RunRecord]) -> str:
    """All settings of all runs; those that differ are marked, and come first."""
    keys = sorted({key for run in runs for key in run.settings})
    rows = {key: [_setting(run.settings.get(key)) for run in runs] for key in keys}
    differing = [key for key in keys if len(set(rows[key])) > 1 and key not in PLACES]
    marked = [[Html(f"<strong>≠ {page.text(key)}</strong>"), *rows[key]] for key in differing]
    others = [[key, *rows[key]] for key in keys if key not in differing]
    caption = "Settings" if len(runs) == 1 else f"Settings; ≠ marks the {len(differing)} in which the runs differ"
    return page.table(caption, ["setting", *(run.name for run in runs)], marked + others)


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def environment_table(runs: list[RunRecord]) -> str:
    """Versions, devices and commit of each run."""
    flat = [_flat(run.environment) for run in runs]
    keys = sorted({key for found in flat for key in found})
    return page.table(
        "Environment", ["", *(run.name for run in runs)], [[key, *(f.get(key) for f in flat)] for key in keys]
    )


def _flat(environment: dict[str, Any]) -> dict[str, str | None]:
    packages = environment.get("packages")
    flat = {key: value for key, value in environment.items() if key != "packages"}
    flat |= packages if isinstance(packages, dict) else {}
    return {key: None if value is None else _setting(value) for key, value in flat.items()}
