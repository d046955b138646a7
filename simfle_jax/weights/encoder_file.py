"""encoder.safetensors: a trunk under its torch names, and what must be known to use it."""

import json
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from safetensors import SafetensorError, safe_open

import simfle_jax
from simfle_jax.config import Config, TrunkSettings, digest
from simfle_jax.data.read_back import parse_json
from simfle_jax.errors import UserError
from simfle_jax.weights import torch_names
from simfle_jax.weights.files import write_safetensors

LICENCE_NOTE = "Weights carry the conditions of the data they were trained on; research use of face data."
METHOD_NAMES = {"simfle": "SimFLE", "byol": "BYOL", "simsiam": "SimSiam", "moco_v3": "MoCo v3", "mae": "MAE"}
ARCHITECTURE = ("kind", "stage_sizes", "width", "last_stride", "patch", "heads")


def export_encoder(
    path: Path, trunk: dict[str, Any], config: Config, facts: dict[str, str], branch: str = "online"
) -> None:
    """Writes a trunk under torchvision's (or timm's) names, with its statistics and without classifier.

    trunk: 'params' and 'stats'. facts: what the settings do not tell: `step`, `data_fingerprint`. branch: 'online'
    (what is probed) or 'target'. Written whole or not at all.
    """
    arrays = torch_names.to_torch(torch_names.trunk_entries(config.trunk), jax.device_get(trunk))
    write_safetensors(path, arrays, describe(config, branch) | facts)


def encoder_step(path: Path) -> int | None:
    """The step of the run that an encoder file is of; None where there is none that tells."""
    try:
        with safe_open(path, framework="numpy") as file:
            return int((file.metadata() or {})["step"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def describe(config: Config, branch: str = "online") -> dict[str, str]:
    """Metadata of weights that a run with these settings made."""
    return {
        "method": METHOD_NAMES.get(config.method, config.method),
        "branch": branch,
        "config": digest(config),
        "architecture": architecture_text(config.trunk),
        "size": str(config.image_size),
        "mean": json.dumps(config.data.mean),
        "std": json.dumps(config.data.std),
        "standardise": config.views.standardise,
        "written_by": f"simfle-jax {simfle_jax.__version__}",
        "versions": json.dumps({"jax": jax.__version__, "flax": flax.__version__, "numpy": np.__version__}),
        "licence_note": LICENCE_NOTE,
    }


def check_preprocessing(metadata: dict[str, str], where: str | Path) -> None:
    """Raises UserError, naming the entry, where metadata do not tell how images become features."""
    for name, is_right in _PREPROCESSING.items():
        try:
            right = is_right(metadata[name])
        except (ValueError, TypeError):
            right = False
        if not right:
            raise UserError(
                f"{where}: its metadata {name} = {metadata[name][:60]!r} is not one that this program writes; give the "
                "file as it was written, or save its arrays alone"
            )


def _are_colours(text: str, least: float) -> bool:
    values = parse_json(text)
    return len(values) == 3 and all(type(x) in (int, float) and least <= x <= 1e6 for x in values)


_PREPROCESSING = {
    "size": lambda text: 1 <= int(text) <= 2**14,
    "mean": lambda text: _are_colours(text, -1e6),
    "std": lambda text: _are_colours(text, 1e-6),
    "standardise": lambda text: text in ("dataset", "image"),
}


def architecture_text(trunk: TrunkSettings) -> str:
    """The sizes of a trunk as the metadata hold them."""
    return json.dumps({name: getattr(trunk, name) for name in ARCHITECTURE})
