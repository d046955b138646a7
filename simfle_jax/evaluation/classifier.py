"""A trunk with a trained linear probe on top: a whole classifier of expressions."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax.config import trunk_name
from simfle_jax.encoder import Encoder, from_arrays, load_encoder, untrained_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import records
from simfle_jax.evaluation.linear import Linear
from simfle_jax.evaluation.records import TrainedProbe
from simfle_jax.weights.files import read_arrays, read_torch, torch_content, write_safetensors, write_torch
from simfle_jax.weights.trunk import classifier_name


class Classifier(NamedTuple):
    """A frozen trunk, the layer on its features, and the classes in the layer's order."""

    encoder: Encoder
    layer: Linear
    classes: tuple[str, ...]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Of every class [B, K], of uint8 images [B, H, W, 3] of any size."""
        return self.from_features(self.encoder(images))

    def logits(self, images: jax.Array) -> jax.Array:
        """Of every class [B, K], of normalised images [B, S, S, 3]; traceable."""
        return self.layer.logits(self.encoder.apply(images))

    def from_features(self, features: np.ndarray) -> np.ndarray:
        """Of every class [B, K], of features [B, D]."""
        return np.asarray(jax.nn.softmax(self.layer.logits(jnp.asarray(features))))

    def torch_arrays(self) -> dict[str, np.ndarray]:
        """Trunk and `fc` under torchvision's `resnet50` names; of a ViT trunk and `head` under timm's."""
        kernel, bias = (np.asarray(x) for x in self.layer)
        trunk = self.encoder.torch_arrays()
        name = classifier_name(trunk)
        return trunk | {f"{name}.weight": np.ascontiguousarray(kernel.T), f"{name}.bias": bias}

    def metadata(self) -> dict[str, str]:
        """What a file with this classifier says about itself."""
        return self.encoder.metadata | {"classes": json.dumps(self.classes), "encoder_hash": self.encoder.hash}


def load_classifier(path: str | Path, encoder: str = "", classes: tuple[str, ...] = ()) -> Classifier:
    """The classifier in a probe's folder, or in one file that holds trunk and `fc` (a ViT: `head`).

    encoder: where the trunk of a probe's folder is; empty: beside the probe, or where it was when the probe was trained.
    classes: names in the layer's order, for a file that does not tell them.

    Raises:
        UserError: not there, not whole, no class names, or the encoder is another than the probe's.
    """
    path = Path(path)
    return _of_folder(path, encoder) if path.is_dir() else _of_file(path, classes)


def _of_folder(folder: Path, place: str) -> Classifier:
    probe = records.load_probe(folder)
    results = records.read_results(folder) or {}
    beside = str(folder) if (folder / "encoder.safetensors").exists() else ""
    place = place or beside or results.get("encoder", "")
    if not place or not Path(place).exists():
        raise UserError(f"the encoder of the probe in {folder} is not at {place or 'a known place'}: say where it is")
    encoder = load_encoder(place)
    if results.get("untrained"):
        encoder = untrained_encoder(encoder, results["seed"])
    if encoder.hash != probe.encoder_hash:
        raise UserError(f"the probe in {folder} belongs to encoder {probe.encoder_hash}, {place} is {encoder.hash}")
    return Classifier(encoder, probe.layer, probe.classes)


def _of_file(path: Path, classes: tuple[str, ...]) -> Classifier:
    content: Any = {}
    if path.suffix == ".safetensors" or not path.is_file():
        arrays, metadata = read_arrays(path)
    else:
        content = read_torch(path)
        arrays, metadata = torch_content(content)
    name = classifier_name(arrays)
    if f"{name}.weight" not in arrays or f"{name}.bias" not in arrays:
        raise UserError(f"{path} holds no classifier: {name}.weight and {name}.bias are not in it")
    encoder = from_arrays(arrays, metadata, "online", path)
    layer = Linear(jnp.asarray(arrays[f"{name}.weight"].T), jnp.asarray(arrays[f"{name}.bias"]))
    if layer.kernel.shape != (encoder.dim, layer.bias.size):
        raise UserError(
            f"{path}: {name}.weight is {arrays[f'{name}.weight'].shape}, expected ({layer.bias.size}, {encoder.dim})"
        )
    names = classes or tuple(json.loads(metadata.get("classes", "[]")))
    if len(names) != layer.bias.size:
        raise UserError(
            f"{path} tells {layer.bias.size} classes apart, {len(names)} names are known: give all in order"
        )
    return Classifier(encoder, layer, names)


def save_folder(folder: Path, classifier: Classifier) -> None:
    """Writes a folder that is at once a probe's and its encoder's: `probe.py --config.eval_only=True` evaluates it."""
    trunk, encoder = classifier.encoder.torch_arrays(), classifier.encoder
    write_safetensors(folder / "encoder.safetensors", trunk, encoder.metadata)
    records.save_probe(folder, TrainedProbe(classifier.layer, classifier.classes, encoder.hash))


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
