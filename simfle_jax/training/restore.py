"""A run's settings and its newest state, for whoever wants more of it than the encoder."""

from pathlib import Path
from typing import Any

import jax

from simfle_jax import parallel
from simfle_jax.config import SCHEMA, Config, as_dict, pretraining, upgrade
from simfle_jax.errors import UserError
from simfle_jax.runs.checkpoint import SavedCheckpoints
from simfle_jax.runs.folder import read_settings
from simfle_jax.training.state import TrainState
from simfle_jax.training.step import TrainStep
from simfle_jax.weights.files import read_arrays


def run_config(workdir: str | Path) -> Config:
    """The settings that a run was started with.

    Raises:
        UserError: the folder is not that of a pre-training run.
    """
    settings = upgrade(recorded(workdir))
    settings.pop("data_fingerprint", None)
    return pretraining(settings)


def identity(config: Config, fingerprint: str) -> dict[str, Any]:
    """What makes a run this run and is recorded in its config.json: all settings, and the digest of its images."""
    return as_dict(config) | {"schema": SCHEMA, "data_fingerprint": fingerprint}


def upgraded_identity(found: dict[str, Any]) -> dict[str, Any]:
    """A recorded identity of any earlier version in today's form: settings that came later are as before."""
    settings = upgrade(found)
    fingerprint = settings.pop("data_fingerprint", "unknown")
    return identity(pretraining(settings), fingerprint)


def recorded(workdir: str | Path) -> dict[str, Any]:
    """config.json of a run: its settings, and `data_fingerprint`, the digest of its listing of images."""
    file = Path(workdir) / "config.json"
    if not file.is_file():
        raise UserError(f"{workdir} holds no config.json: is it the --workdir of a pre-training run?")
    return read_settings(Path(workdir))


def recorded_facts(workdir: str | Path, state: TrainState) -> dict[str, str]:
    """What the metadata of weights say beside the settings: the step, the fingerprint of the images, and their crop."""
    facts = {"step": str(int(state.step)), "data_fingerprint": recorded(workdir).get("data_fingerprint", "unknown")}
    exported = Path(workdir) / "encoder.safetensors"
    crop = read_arrays(exported)[1].get("crop") if exported.is_file() else None
    return facts | ({"crop": crop} if crop else {})


def checkpoint_steps(workdir: str | Path) -> list[int]:
    """The steps of a run whose checkpoints are there, in order."""
    with SavedCheckpoints(workdir) as checkpoints:
        return sorted(checkpoints.steps())


def run_state(workdir: str | Path, step: int | None = None) -> tuple[Config, TrainState]:
    """The settings and the newest checkpoint of a run, or that of `step`, on every device of this process."""
    config = run_config(workdir)
    train_step = TrainStep(config, steps_per_epoch=1)
    shapes = jax.eval_shape(train_step.fresh_state)
    shardings = parallel.state_shardings(parallel.data_mesh(), shapes, shard_state=False)
    with SavedCheckpoints(workdir) as checkpoints:
        kept = checkpoints.steps()
        if step is not None and step not in kept:
            raise UserError(f"{workdir} has no checkpoint of step {step}, only of {', '.join(map(str, kept[::-1]))}")
        state = checkpoints.restore(shapes, shardings, step)
    if state is None:
        raise UserError(f"{workdir} has no checkpoint yet; let the run reach its first one")
    return config, state
