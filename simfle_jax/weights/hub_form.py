"""The folder that model hubs know: config.json, model.safetensors, preprocessor_config.json, and a README.md with a header.

timm loads such a folder of a trunk that it knows (`timm.create_model("local-dir:DIR", pretrained=True)`, or "hf-hub:OWNER/NAME" of one
that was pushed), readers of the transformers kind find the image size, the classes and the normalisation where they look.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simfle_jax.config.trunks import TRUNKS, trunk_name
from simfle_jax.errors import UserError
from simfle_jax.weights.card import SCORES, model_card, protocol_title, tells_classes
from simfle_jax.weights.files import read_arrays, write_safetensors
from simfle_jax.weights.hub import WEIGHTS
from simfle_jax.weights.trunk import architecture, classifier_name
from simfle_jax.writing import writing_output

FORMAT = {"format": "pt"}  # readers of the transformers kind refuse a file that does not say it
BILINEAR = 2  # of Pillow
TAGS = ["face", "facial-expression-recognition", "self-supervised-learning", "jax", "flax"]
LICENCE = {"license": "other", "license_name": "conditions-of-the-training-data"}


def write_folder(
    folder: Path,
    arrays: dict[str, np.ndarray],
    metadata: dict[str, str],
    config: dict[str, Any] | None = None,
    probes: list[dict[str, Any]] | None = None,
) -> None:
    """Writes an encoder, or a classifier where `arrays` hold its layer, as a hub's repository.

    config: the settings of its run, for the card; probes: results of probes, for card and header.

    Raises:
        UserError: the folder holds something already, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something already: give a new folder")
    name = model_name(metadata)
    card = model_card(metadata, config, probes or [])
    texts = {
        "config.json": _json(model_config(arrays, metadata)),
        "preprocessor_config.json": _json(preprocessor_config(metadata)),
        "README.md": card_header(name, metadata, probes or []) + "\n" + card,
    }
    write_safetensors(folder / WEIGHTS, arrays, metadata | FORMAT)
    for file, text in texts.items():
        with writing_output(folder / file) as temporary:
            temporary.write_text(text, encoding="utf-8")


def read_folder(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of such a folder; what a program lost that saved the weights anew comes from config.json."""
    arrays, metadata = read_arrays(folder / WEIGHTS)
    path = folder / "config.json"
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["simfle"] if path.is_file() else {}
        kept = {str(key): str(value) for key, value in recorded.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is not one that this program writes: it must hold the metadata under `simfle`"
        ) from None
    return arrays, kept | {key: value for key, value in metadata.items() if FORMAT.get(key) != value}


def model_name(metadata: Mapping[str, str]) -> str:
    """The trunk's usual name, such as 'resnet50', or what it is made of."""
    return trunk_name(architecture(json.loads(metadata["architecture"])))


def model_config(arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> dict[str, Any]:
    """config.json: timm's fields where timm has such features, those of the transformers kind, and the metadata as they are."""
    trunk, size = architecture(json.loads(metadata["architecture"])), int(metadata["size"])
    name = trunk_name(trunk)
    theirs = name in TRUNKS and trunk.last_stride == TRUNKS[name]["last_stride"]
    classes = json.loads(metadata.get("classes", "[]"))
    found: dict[str, Any] = {
        "model_type": "simfle",
        "library_name": "simfle-jax",
        "architecture": name if theirs or name not in TRUNKS else f"{name}, last stride {trunk.last_stride}",
        "num_features": trunk.features,
        "num_classes": len(classes),
        "image_size": size,
        "num_channels": 3,
    }
    if classes:
        found["id2label"] = {str(number): name for number, name in enumerate(classes)}
        found["label2id"] = {name: number for number, name in enumerate(classes)}
        found["label_names"] = classes
    # timm would load another stride without a word, and knows one mean for all images: both give other features.
    if theirs and metadata.get("standardise") != "image":
        found["pretrained_cfg"] = {
            "input_size": [3, size, size], "num_classes": len(classes), "interpolation": "bilinear", "crop_pct": 1.0,
            "mean": json.loads(metadata["mean"]), "std": json.loads(metadata["std"]),
            "classifier": classifier_name(dict(arrays)),
        }  # fmt: skip
    return found | {"simfle": metadata}


def preprocessor_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """preprocessor_config.json: what an image processor of the transformers kind does with an image.

    `views.standardise = image` has no words there: nothing is normalised then, and `standardise` says what is to be done.
    """
    size, by_image = int(metadata["size"]), metadata["standardise"] == "image"
    canvas = int(metadata.get("canvas", 0)) or size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True, "size": {"shortest_edge": size}, "resample": BILINEAR,
        "do_center_crop": True, "crop_size": {"height": size, "width": size},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": not by_image,
        "image_mean": json.loads(metadata["mean"]), "image_std": json.loads(metadata["std"]),
        "standardise": metadata["standardise"], "canvas": canvas,
    }  # fmt: skip


def card_header(name: str, metadata: Mapping[str, str], probes: list[dict[str, Any]]) -> str:
    """The metadata header of a model card, between lines of `---`; JSON values, which are YAML too."""
    classifier = "classes" in metadata
    facts: dict[str, Any] = {
        "library_name": "simfle-jax",
        **LICENCE,
        "pipeline_tag": "image-classification" if classifier else "image-feature-extraction",
        "tags": [*TAGS, metadata.get("method", "").lower().replace(" ", "-") or "pre-training"],
    }
    found = [_result(each) for each in probes if tells_classes(each) and not each.get("untrained")]
    if found:
        facts["metrics"] = ["accuracy", "f1"]
        facts["model-index"] = [{"name": f"{name}, {metadata.get('method', 'pre-trained')}", "results": found}]
    lines = [f"{key}: {json.dumps(value)}" for key, value in facts.items()]
    return "\n".join(["---", *lines, "---", ""])


def _result(results: dict[str, Any]) -> dict[str, Any]:
    """One probe as hubs read it: on what, and with which scores."""
    data = results.get("dataset") or f"{len(results['classes'])} classes"
    kinds = {"accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "macro_f1": "f1"}
    return {
        "task": {"type": "image-classification", "name": f"Expression recognition, {protocol_title(results)} probe"},
        "dataset": {"type": data, "name": data},
        "metrics": [{"type": kinds[score], "name": score, "value": results[score]} for score in SCORES],
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
