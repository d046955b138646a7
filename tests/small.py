"""A SimFLE small enough for a test: two stages, 16-pixel views, seconds to compile."""

from pathlib import Path

import numpy as np
import simplejpeg
from ml_collections import ConfigDict

from configs import simfle
from simfle_jax.config import Config, flatten, pretraining
from simfle_jax.config.schema import MOVED


def settings(**changes) -> ConfigDict:
    """The settings of simfle.py made tiny, with the published tie, which needs no more; keyword arguments override settings by today's or older names, groups take dicts."""
    config = simfle.get_config()
    config.epochs, config.batch_size, config.log_steps = 2, 8, 1
    config.trunk.update(stage_sizes=(1, 1), width=4)
    config.heads.update(hidden=16, out=8)
    config.facemae.update(
        n_groups=4, patch=4, width=16, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2,
        tie="published", plain_in_averages=True,
    )  # fmt: skip
    config.views.update(size=16, plain_size=16)
    config.data.canvas = 16
    config.data.threads = 2
    changes = flatten(changes)
    if "model.facemae" in changes:
        config.method = "simfle" if changes.pop("model.facemae") else "byol"
    config.update_from_flattened_dict({MOVED.get(key, key): value for key, value in changes.items()})
    return config


def config(**changes) -> Config:
    """The same, checked."""
    return pretraining(settings(**changes))


def write_images(folder: Path, count: int, size: int = 16, seed: int = 0) -> Path:
    """A folder of JPEGs of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    for i, image in enumerate(pixels):
        (folder / f"{i:03d}.jpg").write_bytes(simplejpeg.encode_jpeg(image, quality=95))
    return folder


def status(command, arguments: list[str]) -> int:
    """The exit status of a command's main."""
    try:
        command.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0
