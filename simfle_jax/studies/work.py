"""The work of one piece of a study: its encoder, its probes, and the probe of its checkpoints. Each part is done once."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simfle_jax import compilation
from simfle_jax.config import Config
from simfle_jax.data.opening import open_source
from simfle_jax.data.pipeline import load_labelled
from simfle_jax.encoder import Encoder, load_encoder
from simfle_jax.evaluation.monitor import make_monitor
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.records import read_results
from simfle_jax.evaluation.supervised import train_supervised
from simfle_jax.models.trunks import fresh_trunk
from simfle_jax.studies.definition import Piece, Study, slug
from simfle_jax.training.loop import train
from simfle_jax.training.restore import checkpoint_steps
from simfle_jax.weights.encoder_file import describe, export_encoder
from simfle_jax.weights.files import write_safetensors
from simfle_jax.writing import write_json

TRAINED = "trained.json"  # step and seconds of a pre-training, written when it is at its end


def do_piece(study: Study, piece: Piece, workdir: Path, data: Path, usual: Any) -> None:
    """Does what is missing of a piece; a pre-training that was interrupted goes on.

    data: holds train/ and val/. usual: the settings of configs/probe.py.

    Raises:
        UserError: as train and run_probe do.
    """
    folder = piece.folder(workdir)
    run = folder / "run"
    config, kind = study.pretraining(piece, data), study.arm(piece.arm).kind
    make = {"pretrained": _pretrain, "untrained": _untrained, "supervised": _supervised}[kind]
    if not (folder / TRAINED).is_file():
        made = make(config, run, data)
        write_json(folder / TRAINED, made)
    for name in study.probes:
        place = folder / "probes" / slug(name)
        if not (place / "results.json").is_file():
            run_probe(study.probing(name, usual, run, data, piece.seed), str(place))
    if study.curve and kind == "pretrained":
        _probe_checkpoints(study, piece, folder, data, usual)
    jax.clear_caches()  # the next piece may be another network, and there may be hundreds


def _pretrain(config: Config, run: Path, data: Path) -> dict[str, Any]:
    train(config, str(run), monitor=make_monitor(config))
    last = _metrics(run)[-1]
    return {"step": last["step"], "seconds": last["seconds"]}


def _fresh(config: Config) -> Encoder:
    trunk, size = config.trunk, config.image_size
    trees = jax.jit(lambda: fresh_trunk(trunk, config.seed, size), compiler_options=compilation.once())()
    return Encoder(jax.device_get(trees), trunk, describe(config))


def _untrained(config: Config, run: Path, data: Path) -> dict[str, Any]:
    run.mkdir(parents=True, exist_ok=True)
    facts = {"method": "untrained", "seed": str(config.seed)}
    export_encoder(run / "encoder.safetensors", _fresh(config).arrays, config, facts)
    return {}


def _supervised(config: Config, run: Path, data: Path) -> dict[str, Any]:
    """All labelled images are in memory; one that was interrupted begins anew."""
    source = open_source("folder", str(data), labelled=True, split="train")
    images, labels = load_labelled(source, canvas=config.canvas, threads=config.data.threads,
                                   max_bad_fraction=config.data.max_bad_fraction)  # fmt: skip
    trained = train_supervised(
        _fresh(config), images, labels, classes=len(source.classes or ()), epochs=config.epochs,
        batch_size=config.batch_size, seed=config.seed,
    )  # fmt: skip
    run.mkdir(parents=True, exist_ok=True)
    export_encoder(run / "encoder.safetensors", trained.arrays, config, {"method": "supervised"})
    return {}


def _probe_checkpoints(study: Study, piece: Piece, folder: Path, data: Path, usual: Any) -> None:
    for step in checkpoint_steps(folder / "run"):
        place, probe = _of_checkpoint(study, folder, step)
        if (probe / "results.json").is_file():
            continue
        encoder = load_encoder(folder / "run", step=step)
        place.mkdir(parents=True, exist_ok=True)
        write_safetensors(place / "encoder.safetensors", encoder.torch_arrays(), encoder.metadata)
        run_probe(study.probing(study.curve, usual, place, data, piece.seed), str(probe))


def _of_checkpoint(study: Study, folder: Path, step: int) -> tuple[Path, Path]:
    """Where a checkpoint's encoder lies, and its probe: by its name, for a study may choose another one later."""
    place = folder / "curve" / f"{step:08d}"
    return place, place / slug(study.curve)


def is_done(study: Study, piece: Piece, workdir: Path) -> bool:
    """Whether nothing of a piece is missing."""
    folder = piece.folder(workdir)
    files = [folder / "probes" / slug(name) / "results.json" for name in study.probes]
    if not (folder / TRAINED).is_file() or not all(file.is_file() for file in files):
        return False
    if not study.curve or study.arm(piece.arm).kind != "pretrained":
        return True
    steps = checkpoint_steps(folder / "run")
    return all((_of_checkpoint(study, folder, step)[1] / "results.json").is_file() for step in steps)


def _metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def found_scores(study: Study, piece: Piece, workdir: Path) -> dict[str, float]:
    """The scores of the piece's finished probes by the column of the table that they stand in."""
    found: dict[str, float] = {}
    for name in study.probes:
        results = read_results(piece.folder(workdir) / "probes" / slug(name))
        if results:
            found |= columns(name, results, study.scores)
    return found


def columns(name: str, results: dict[str, Any], scores: tuple[str, ...]) -> dict[str, float]:
    """Of a probe's results, by column: the first of `scores` as NAME, others as NAME, SCORE.

    With few labels it is the mean over the draws of each share. 'outer_eyes.nme' is the `nme` below `outer_eyes`.
    """
    found: dict[str, float] = {}
    rows = results.get("shares") or [results]
    for score in scores:
        column = name if score == scores[0] else f"{name}, {score.replace('_', ' ').replace('.', ' ')}"
        for row in rows:
            value = _below(row, score)
            if value is not None:
                share = f", {100 * row['share']:g} %" if len(rows) > 1 else ""
                found[column + share] = value["mean"] if isinstance(value, dict) else value
    return found


def _below(results: Any, path: str) -> Any:
    """What 'a.b' names in nested results, or None."""
    for key in path.split("."):
        results = results.get(key) if isinstance(results, dict) else None
    return results


def found_curve(study: Study, piece: Piece, workdir: Path) -> list[dict[str, float]]:
    """Step, seconds of training and score of every checkpoint of a piece that has been probed."""
    folder, points = piece.folder(workdir), []
    for place in sorted((folder / "curve").glob(f"*/{slug(study.curve)}/results.json") if study.curve else ()):
        results = read_results(place.parent)
        values = columns("", results or {}, study.scores[:1])
        if values:
            points.append({"step": int(place.parents[1].name), "score": next(iter(values.values()))})
    if points:
        lines = _metrics(folder / "run")
        steps, seconds = ([line[key] for line in lines] for key in ("step", "seconds"))
        points = [point | {"seconds": float(np.interp(point["step"], steps, seconds))} for point in points]
    return points


def training_cost(piece: Piece, workdir: Path) -> dict[str, float]:
    """Updates and seconds of a finished pre-training; empty for other encoders."""
    file = piece.folder(workdir) / TRAINED
    return json.loads(file.read_text()) if file.is_file() else {}
