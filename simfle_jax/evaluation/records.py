"""What a probe leaves in its folder, and what it reads back from there."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from simfle_jax.data.bad_list import escaped, printable
from simfle_jax.data.read_back import one_line, parse_json
from simfle_jax.encoder import PREPROCESSING, Encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.linear import Fit, History, Linear
from simfle_jax.evaluation.predictor import Predictor, from_arrays, to_arrays
from simfle_jax.evaluation.settings import upgraded
from simfle_jax.weights.files import save_arrays
from simfle_jax.weights.trunk import architecture
from simfle_jax.writing import write_whole, writing_whole


class TrainedProbe(NamedTuple):
    """What was fitted, its classes in order, the hash of the encoder it belongs to, and its images' canvas."""

    predictor: Predictor
    classes: tuple[str, ...]
    encoder_hash: str
    canvas: int = 0  # side of the decoded images; 0: that of the encoder's views

    @property
    def dim(self) -> int:
        """Features of an image."""
        return self.predictor.kernel.shape[0] if isinstance(self.predictor, Linear) else self.predictor.bank.shape[1]

    @property
    def layer(self) -> Linear:
        """The predictor, where it is a linear layer; raises UserError where it is not."""
        if not isinstance(self.predictor, Linear):
            raise UserError("this probe is a vote of neighbours, not a linear layer: train one of another protocol")
        return self.predictor


def save_probe(folder: Path, probe: TrainedProbe) -> None:
    """Writes probe.safetensors: a layer, or the images whose neighbours vote, as `predictor.to_arrays` names them."""
    arrays, facts = to_arrays(probe.predictor)
    metadata = {"classes": json.dumps(probe.classes), "encoder_hash": probe.encoder_hash, "canvas": str(probe.canvas)}
    metadata |= facts
    with writing_whole(folder / "probe.safetensors") as temporary:
        save_arrays(temporary, arrays, metadata)


def load_probe(folder: Path) -> TrainedProbe:
    """Reads what save_probe wrote; raises UserError when it is not there or not whole."""
    path = folder / "probe.safetensors"
    if not path.is_file():
        raise UserError(f"{folder} holds no trained probe: train one there first, without --config.eval_only")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            predictor = from_arrays({name: file.get_tensor(name) for name in file.keys()}, metadata)  # noqa: SIM118
        classes, encoder_hash = tuple(parse_json(metadata["classes"])), metadata["encoder_hash"]
        # Before the canvas was written here, it stood in the settings alone.
        canvas = int(metadata.get("canvas") or training_settings(folder).get("data", {}).get("canvas", 0))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} is not a whole probe: {one_line(error)}; put it back from a copy or train again"
        ) from None
    if len(classes) != predictor.n_classes or not all(isinstance(name, str) for name in classes) or canvas < 0:
        raise UserError(f"{path} is damaged: its classes do not fit its arrays; put it back from a copy or train again")
    return TrainedProbe(predictor, classes, encoder_hash, canvas)


def _meant(key: str, metadata: dict[str, str]) -> Any:
    """A fact of an encoder's metadata; earlier versions wrote architectures with fewer words."""
    return architecture(json.loads(metadata[key])) if key == "architecture" else metadata[key]


def check_encoder(folder: Path, probe: TrainedProbe, encoder: Encoder, place: str) -> None:
    """Raises UserError unless the encoder, at `place`, is the one that the probe in `folder` was trained on."""
    problem = (
        "" if encoder.is_called(probe.encoder_hash) else f"encoder {probe.encoder_hash}, {place} is {encoder.hash}"
    )
    if not problem and probe.encoder_hash != encoder.hash:
        # A hash of before says nothing of the preprocessing, but what was recorded beside it does.
        recorded = (read_results(folder) or {}).get("encoder_metadata", {})
        differing = [
            key for key in PREPROCESSING if key in recorded and _meant(key, recorded) != _meant(key, encoder.metadata)
        ]
        problem = "; ".join(
            f"an encoder of {key} {recorded[key]}, {place} has {encoder.metadata[key]}" for key in differing
        )
    if problem:
        raise UserError(f"the probe in {folder} belongs to {problem}: give the encoder that it was trained on")


def save_progress(folder: Path, fit: Fit, history: History) -> None:
    """Writes progress.npz, from which an interrupted probe goes on."""
    leaves = jax.tree.leaves(jax.device_get((fit, history)))
    with writing_whole(folder / "progress.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, *leaves)


def load_progress(folder: Path, like: tuple[Fit, History]) -> tuple[Fit, History]:
    """What save_progress wrote, or `like` when there is nothing yet or it is damaged.

    Raises:
        UserError: it could not be read for another reason, and may be whole.
    """
    try:
        with np.load(folder / "progress.npz") as file:
            leaves = [file[f"arr_{i}"] for i in range(len(file.files))]
        fit, history = jax.tree.unflatten(jax.tree.structure(like), leaves)
    except FileNotFoundError:
        return like
    except Exception as error:  # zipfile and numpy raise nearly anything on damaged files; the work is then done again
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise UserError(
                f"{folder / 'progress.npz'} could not be read ({error}); mend that, and the same command goes on"
            ) from None
        return like
    return jax.tree.map(jnp.asarray, fit), history


def write_metrics(folder: Path, history: History, names: tuple[str, ...], lr: float) -> None:
    """metrics.jsonl: one line an epoch with loss, learning rate and the accuracy on every set apart."""
    lines = []
    for number, (loss, accuracies) in enumerate(zip(history.loss, history.accuracy), 1):
        line = {"epoch": number, "loss/train": float(loss), "learning_rate": lr}
        line |= {f"accuracy/{name}": float(value) for name, value in zip(names, accuracies)}
        lines.append(json.dumps(line) + "\n")
    write_whole(folder / "metrics.jsonl", "".join(lines))


def read_results(folder: Path) -> dict[str, Any] | None:
    """results.json of a finished probe, or None; raises UserError when it is damaged."""
    return _read_json(folder / "results.json")


def training_settings(folder: Path) -> dict[str, Any]:
    """The settings that the probe in `folder` was trained with; empty for one that was converted from a file."""
    found = _read_json(folder / "config.json")
    return upgraded(found) if found else {}


def _read_json(path: Path) -> dict[str, Any] | None:
    remedy = "remove it, and the command that made the probe writes it again"
    try:
        content = parse_json(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no settings or results; {remedy}")
    return content


PREDICTIONS = ("name", "label", "predicted", "probability")


def write_predictions(path: Path, rows: Iterable[tuple[str, str, str, float]]) -> None:
    """A csv with a line for each image: its name, its class, the class that the probe gives, and how sure it is."""
    with writing_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PREDICTIONS)
        lines = (
            (escaped(name), printable(label), printable(given), f"{sure:.6f}") for name, label, given, sure in rows
        )
        writer.writerows(lines)


def read_predictions(path: Path) -> list[dict[str, str]]:
    """The lines of what `write_predictions` wrote; raises UserError when they are damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restval="")
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if columns != PREDICTIONS or not rows or any(not row["probability"] for row in rows):
        raise UserError(f"{path} is damaged: its columns must be {', '.join(PREDICTIONS)}; evaluate the probe again")
    return rows


def draw_confusion(path: Path, matrix: np.ndarray, classes: tuple[str, ...], title: str) -> None:
    """A picture of the confusion matrix [K, K]: shares of each true class, with the counts written in."""
    from matplotlib.figure import Figure

    classes = tuple(map(printable, classes))  # a folder's name may be of another encoding
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(2.5 + 0.7 * len(classes), 2 + 0.7 * len(classes)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    figure.savefig(path, dpi=150)
