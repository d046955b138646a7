"""A SimFLE small enough for a test: two stages, 16-pixel views, seconds to compile."""

import dataclasses
from pathlib import Path

import numpy as np
import simplejpeg
from ml_collections import ConfigDict

from configs import simfle
from simfle_jax.config import Config, pretraining


def settings(**changes) -> ConfigDict:
    """The settings of simfle.py made tiny; keyword arguments override top-level keys."""
    config = simfle.get_config()
    config.epochs, config.batch_size, config.n_groups, config.log_steps = 2, 8, 4, 1
    config.model.update(
        stage_sizes=(1, 1), width=4, head_hidden=16, head_out=8, patch=4, vit_width=16, vit_depth=1, vit_heads=2,
        decoder_width=8, decoder_depth=1, decoder_heads=2,
    )  # fmt: skip
    config.views.update(size=16, plain_size=16)
    config.data.canvas = 16
    config.data.threads = 2
    for key, value in changes.items():
        with config.unlocked():
            config[key] = value
    return config


def config(**changes) -> Config:
    """The same, checked; `model`, `views` and `data` take dicts of changes."""
    made = pretraining(settings())
    nested = {key: dataclasses.replace(getattr(made, key), **changes.pop(key))
              for key in ("model", "views", "data") if key in changes}  # fmt: skip
    return dataclasses.replace(made, **nested, **changes)


def write_images(folder: Path, count: int, size: int = 16, seed: int = 0) -> Path:
    """A folder of JPEGs of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    for i, image in enumerate(pixels):
        (folder / f"{i:03d}.jpg").write_bytes(simplejpeg.encode_jpeg(image, quality=95))
    return folder
