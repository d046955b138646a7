"""What a probe leaves in its folder, and what it reads back from there."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from simfle_jax.errors import UserError
from simfle_jax.evaluation.linear import Fit, History, Linear


class TrainedProbe(NamedTuple):
    """The layer that was chosen, its classes in order, and the hash of the encoder it belongs to."""

    layer: Linear
    classes: tuple[str, ...]
    encoder_hash: str


def save_probe(folder: Path, probe: TrainedProbe) -> None:
    """Writes probe.safetensors: fc.weight [K, D] and fc.bias [K], as torch.nn.Linear names and lays them out."""
    arrays = {
        "fc.weight": np.ascontiguousarray(np.asarray(probe.layer.kernel).T),
        "fc.bias": np.asarray(probe.layer.bias),
    }
    metadata = {"classes": json.dumps(probe.classes), "encoder_hash": probe.encoder_hash}
    temporary = folder / ".probe.safetensors"
    save_file(arrays, temporary, metadata=metadata)
    os.replace(temporary, folder / "probe.safetensors")


def load_probe(folder: Path) -> TrainedProbe:
    """Reads what save_probe wrote; raises UserError when it is not there or not whole."""
    path = folder / "probe.safetensors"
    if not path.is_file():
        raise UserError(f"{folder} holds no trained probe: train one there first, without --config.eval_only")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            layer = Linear(jnp.asarray(file.get_tensor("fc.weight").T), jnp.asarray(file.get_tensor("fc.bias")))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None
    return TrainedProbe(layer, tuple(json.loads(metadata["classes"])), metadata["encoder_hash"])


def save_progress(folder: Path, fit: Fit, history: History) -> None:
    """Writes progress.npz, from which an interrupted probe goes on."""
    leaves = jax.tree.leaves(jax.device_get((fit, history)))
    temporary = folder / ".progress.npz"
    np.savez(temporary, *leaves)
    os.replace(temporary, folder / "progress.npz")


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
    temporary = folder / ".metrics.jsonl"
    temporary.write_text("".join(lines))
    os.replace(temporary, folder / "metrics.jsonl")


def read_results(folder: Path) -> dict[str, Any] | None:
    """results.json of a finished probe, or None; raises UserError when it is damaged."""
    path = folder / "results.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it, and the command that made the probe writes it again"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged; remove it, and the command that made the probe writes it again")
    return found


def draw_confusion(path: Path, matrix: np.ndarray, classes: tuple[str, ...], title: str) -> None:
    """A picture of the confusion matrix [K, K]: shares of each true class, with the counts written in."""
    from matplotlib.figure import Figure

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
