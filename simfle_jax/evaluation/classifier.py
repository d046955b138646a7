"""A trunk with a trained linear probe on top: a whole classifier of expressions."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax.config import trunk_name
from simfle_jax.data.read_back import one_line, parse_json
from simfle_jax.encoder import Encoder, from_arrays, load_encoder, untrained_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import records
from simfle_jax.evaluation.feature_table import PREFIX as OF_FEATURES
from simfle_jax.evaluation.linear import Linear
from simfle_jax.evaluation.predictor import Predictor
from simfle_jax.evaluation.records import TrainedProbe
from simfle_jax.runs.at_hand import borrowed
from simfle_jax.storage import is_bucket
from simfle_jax.weights.files import read_arrays, write_safetensors, write_torch
from simfle_jax.weights.hub import WEIGHTS, fetch, is_hub_name
from simfle_jax.weights.hub_form import read_folder
from simfle_jax.weights.trunk import Arrays, classifier_name, find_place


class Classifier(NamedTuple):
    """A frozen trunk, what tells classes of its features, their names in order, and the canvas of its images."""

    encoder: Encoder
    predictor: Predictor
    classes: tuple[str, ...]
    canvas: int = 0  # side of the decoded images; 0: that of the encoder's views

    @property
    def layer(self) -> Linear:
        """The predictor, where it is a linear layer; raises UserError where it is not."""
        return TrainedProbe(self.predictor, self.classes, "").layer

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Of every class [B, K], of uint8 images [B, H, W, 3] of any size."""
        return self.from_features(self.encoder(images))

    def logits(self, images: jax.Array) -> jax.Array:
        """Of every class [B, K], of normalised images [B, S, S, 3]; traceable."""
        return self.predictor.logits(self.encoder.apply(images))

    def from_features(self, features: np.ndarray) -> np.ndarray:
        """Of every class [B, K], of features [B, D]."""
        return np.asarray(self.predictor.probabilities(jnp.asarray(features)))

    def torch_arrays(self) -> dict[str, np.ndarray]:
        """Trunk and `fc` under torchvision's `resnet50` names; of a ViT trunk and `head` under timm's."""
        kernel, bias = (np.asarray(x) for x in self.layer)
        trunk = self.encoder.torch_arrays()
        name = classifier_name(trunk)
        return trunk | {f"{name}.weight": np.ascontiguousarray(kernel.T), f"{name}.bias": bias}

    def metadata(self) -> dict[str, str]:
        """What a file with this classifier says about itself."""
        own = {"classes": json.dumps(self.classes), "encoder_hash": self.encoder.hash, "canvas": str(self.canvas)}
        return self.encoder.metadata | own


def load_classifier(path: str | Path, encoder: str = "", classes: tuple[str, ...] = (), prefix: str = "") -> Classifier:
    """The classifier in a probe's folder, in a hub's form, or in one file that holds trunk and `fc` (a ViT: `head`).

    encoder: where the trunk of a probe's folder is; empty: beside the probe, or where it was when the probe was trained.
    classes: names in the layer's order, for a file that does not tell them.
    prefix: which trunk, of a file with several.

    Raises:
        UserError: not there, not whole, no class names, or the encoder is another than the probe's.
    """
    if is_hub_name(str(path)):
        path = fetch(str(path))
    if is_bucket(path):
        with borrowed(str(path)) as place:
            return load_classifier(place, encoder, classes, prefix)
    path = Path(path)
    if not path.exists():
        raise UserError(f"no probe at {path}: give the --workdir of a finished probe, or a classifier's file")
    if (path / WEIGHTS).is_file():
        return _of_arrays(*read_folder(path), path / WEIGHTS, classes, prefix)
    return (
        _of_folder(path, encoder, classes) if path.is_dir() else _of_arrays(*read_arrays(path), path, classes, prefix)
    )


def holds_classes(path: Path) -> bool:
    """Whether a file is that of a whole classifier, which tells its classes; False of a folder."""
    return path.is_file() and "classes" in read_arrays(path)[1]


def _of_folder(folder: Path, place: str, classes: tuple[str, ...]) -> Classifier:
    probe = records.load_probe(folder)
    results = records.read_results(folder) or {}
    beside = str(folder) if (folder / "encoder.safetensors").exists() else ""
    if probe.encoder_hash.startswith(OF_FEATURES):
        raise UserError(f"the probe in {folder} was trained on a file of features, so no encoder is known to make them of "
                        "images: train one with --config.encoder in place of --config.features")  # fmt: skip
    place = place or beside or results.get("encoder", "")
    if not place or not (is_hub_name(place) or is_bucket(place) or Path(place).exists()):
        raise UserError(f"the encoder of the probe in {folder} is not at {place or 'a known place'}: say where it is")
    encoder = load_encoder(place)
    if results.get("untrained") and not encoder.is_called(probe.encoder_hash):
        encoder = untrained_encoder(encoder, results["seed"])
    records.check_encoder(folder, probe, encoder, place)
    return Classifier(encoder, probe.predictor, _names(probe.classes, classes, folder), probe.canvas)


def _names(told: tuple[str, ...], given: tuple[str, ...], where: Path) -> tuple[str, ...]:
    """Names in the layer's order; a user who gives another order is mistaken, and every label would be wrong."""
    if told and given and told != given:
        raise UserError(f"{where} tells its classes itself: {' '.join(told)}; leave --classes out")
    return told or given


def _of_arrays(
    arrays: Arrays, metadata: dict[str, str], path: Path, classes: tuple[str, ...], prefix: str
) -> Classifier:
    place = find_place(arrays, "online", path, metadata.get("branch", "online"), prefix)
    layer_name = classifier_name(arrays, place)
    weight, bias = (arrays.get(f"{place}{layer_name}.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None:
        raise UserError(f"{path} holds no classifier: {layer_name}.weight and {layer_name}.bias are not in it")
    encoder = from_arrays(arrays, metadata, "online", path, prefix)
    if weight.shape != (bias.size, encoder.dim):
        raise UserError(f"{path}: {layer_name}.weight is {weight.shape}, expected ({bias.size}, {encoder.dim})")
    layer = Linear(jnp.asarray(weight.T), jnp.asarray(bias))
    try:
        told, canvas = tuple(parse_json(metadata.get("classes", "[]"))), int(metadata.get("canvas", 0))
        if canvas < 0 or not all(isinstance(name, str) for name in told):
            raise ValueError("they are no names")
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: its metadata classes or canvas are damaged ({one_line(error)})") from None
    names = _names(told, classes, path)
    if len(names) != layer.bias.size:
        raise UserError(
            f"{path} tells {layer.bias.size} classes apart, {len(names)} names are known: give all in order"
        )
    return Classifier(encoder, layer, names, canvas)


def save_folder(folder: Path, classifier: Classifier) -> None:
    """Writes a folder that is at once a probe's and its encoder's: `probe.py --config.eval_only=True` evaluates it."""
    trunk, encoder = classifier.encoder.torch_arrays(), classifier.encoder
    write_safetensors(folder / "encoder.safetensors", trunk, encoder.metadata)
    records.save_probe(folder, TrainedProbe(classifier.layer, classifier.classes, encoder.hash, classifier.canvas))


def save_file(path: Path, classifier: Classifier, facts: dict[str, Any] | None = None) -> None:
    """Writes trunk and classifier into one file: safetensors, or in the layout of the published `model_best.pth.tar`.

    facts: further entries of that layout, such as `epoch` and `best_acc1`.
    """
    if path.suffix == ".safetensors":
        return write_safetensors(path, classifier.torch_arrays(), classifier.metadata())
    content = {
        "arch": trunk_name(classifier.encoder.trunk),
        **(facts or {}),
        "state_dict": classifier.torch_arrays(),
        "metadata": classifier.metadata(),
    }
    return write_torch(path, content)
