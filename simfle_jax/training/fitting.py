"""The canvas of a run: the one it was started with, or one that fits its data; the same on all processes."""

import dataclasses
import json
from pathlib import Path

import jax

from simfle_jax.canvases import largest_canvas
from simfle_jax.config import Config
from simfle_jax.data.fitting import fitting_canvas
from simfle_jax.data.sources import Source
from simfle_jax.runs import peers
from simfle_jax.runs.folder import is_begun
from simfle_jax.training.restore import run_config


def with_canvas(config: Config, source: Source, workdir: str | Path) -> Config:
    """The settings with the canvas settled where data.canvas = 0 leaves that open. All processes must call it.

    A run that goes on keeps what it recorded, whatever its data are by now; one that an earlier version started with
    another canvas keeps that.

    Raises:
        UserError: an image cannot be read now, or what the run recorded is damaged.
    """
    if config.data.canvas:
        return config

    def settle() -> str:
        data = (_begun(workdir) or config).data
        if data.canvas or data.fitted:
            return json.dumps({"canvas": data.canvas, "fitted": data.fitted})
        least = config.least_side
        return json.dumps({"fitted": fitting_canvas(source, largest_canvas(least), least)})

    main = jax.process_index() == 0
    found = json.loads(peers.gather_texts(peers.together(lambda: settle() if main else ""))[0])
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **found))


def _begun(workdir: str | Path) -> Config | None:
    """The recorded settings of a run that has something to go on from."""
    folder = Path(workdir)
    return run_config(folder) if (folder / "config.json").exists() and is_begun(folder) else None
