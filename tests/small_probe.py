"""A tiny encoder and tiny labelled folders that the probe's tests share."""

import json
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from simfle_jax.encoder import Encoder
from simfle_jax.evaluation import records
from simfle_jax.evaluation.linear import Linear
from simfle_jax.models.trunks import fresh_trunk
from simfle_jax.weights import torch_names
from simfle_jax.weights.trunk import architecture

SIZES = {"stage_sizes": [1, 1], "width": 4, "last_stride": 1}
METADATA = {
    "architecture": json.dumps(SIZES),
    "size": "24",
    "mean": "[0.5, 0.5, 0.5]",
    "std": "[0.25, 0.25, 0.25]",
}
COLOURS = {"blue": (40, 60, 210), "green": (50, 200, 60), "red": (210, 50, 40)}


def write_encoder(path: Path, seed: int = 7, last_stride: int = 1) -> Path:
    """An encoder.safetensors with random weights."""
    sizes = SIZES | {"last_stride": last_stride}
    entries = torch_names.trunk_entries(architecture(sizes))
    arrays = torch_names.to_torch(entries, jax.device_get(fresh_trunk(architecture(sizes), seed)))
    save_file(arrays, path, metadata=METADATA | {"architecture": json.dumps(sizes)})
    return path


def write_probe(folder: Path, encoder: Encoder, canvas: int = 0) -> Path:
    """The folder of a probe of this encoder, whose layer tells colours apart by chance."""
    random = np.random.default_rng(0)
    layer = Linear(random.normal(size=(encoder.dim, 3)).astype("f4"), random.normal(size=3).astype("f4"))
    records.save_probe(folder, records.TrainedProbe(layer, tuple(COLOURS), encoder.hash, canvas))
    return folder


def write_split(root: Path, counts: dict[str, int], seed: int = 0, size: int = 32) -> Path:
    """JPEGs of noisy colours, root/COLOUR/NNN.jpg."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.normal(0, 30, (size // 8, size // 8, 3))
            coarse = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(coarse).resize((size, size)).save(root / name / f"{number:03d}.jpg", quality=95)
    return root


def write_tuning(folder: Path) -> Path:
    """train/ and val/ of few small images to fine-tune on; one of blue cannot be read, which leaves 13."""
    write_split(folder / "train", {"blue": 14, "green": 12, "red": 12}, size=24)
    write_split(folder / "val", dict.fromkeys(COLOURS, 6), seed=1, size=24)
    (folder / "train" / "blue" / "000.jpg").write_bytes(b"no image")
    return folder
