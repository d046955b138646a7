"""Whole training states: a published checkpoint becomes a run that goes on, and a run such a checkpoint."""

import argparse
import ast
import dataclasses
from typing import Any

from simfle_jax.commands.presets import load_config
from simfle_jax.errors import UserError


def import_run(args: argparse.Namespace) -> str:
    """A published checkpoint to the folder of a run."""
    from simfle_jax.runs import folder as folders
    from simfle_jax.runs.bucket_checkpoints import open_checkpoints
    from simfle_jax.training import published
    from simfle_jax.training.fitting import with_canvas
    from simfle_jax.training.loop import crop
    from simfle_jax.training.restore import identity, upgraded_identity
    from simfle_jax.training.state import trunk_of
    from simfle_jax.weights.encoder_file import export_encoder

    if args.target.exists() and any(args.target.iterdir()):
        raise UserError(f"{args.target} holds something already: give a new folder")
    config = run_settings(args.config, args.set, args.data)
    published.check_published(config)
    source = _data_of(config)
    steps, fingerprint = len(source) // config.batch_size, source.fingerprint
    config = with_canvas(config, source, args.target)
    found = published.read_published(args.source)
    state = published.to_state(found, config, steps, args.source)
    folder = folders.claim(args.target, identity(config, fingerprint), upgraded_identity)
    with open_checkpoints(folder, config.keep_checkpoints) as checkpoints:
        checkpoints.save(state, wait=True)
    facts = {"step": str(int(state.step)), "data_fingerprint": fingerprint, "crop": crop(config)}
    facts["converted_from"] = args.source.name
    export_encoder(folder / "encoder.safetensors", trunk_of(state), config, facts)
    buffers = "with its momentum" if found.optimizer else "without momentum buffers: there were none"
    return f"{folder}: goes on at epoch {found.epoch}, step {int(state.step)}, {buffers}"


def run_settings(file: str, changes: list[str], data: str) -> Any:
    """The checked settings in a config file with KEY=VALUE changes, and `data` as their images."""
    from simfle_jax.config import pretraining, today

    settings = load_config(file)
    settings.data.path = data or settings.data.path
    for change in changes:
        key, _, text = today(f"--config.{change}").removeprefix("--config.").partition("=")
        try:
            settings.update_from_flattened_dict({key: _value(text)})
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"--set {change}: {' '.join(str(error).split())[:200]}") from None
    return pretraining(settings)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _data_of(config: Any) -> Any:
    """A run's images; raises UserError."""
    from simfle_jax.training.loop import open_data

    if not (config.data.path or config.data.sources or config.data.source.startswith("tfds:")):
        raise UserError("give --data DIR, the images of the run: they give the steps of an epoch")
    return open_data(config)[0]


def export_run(args: argparse.Namespace) -> str:
    """The newest checkpoint of a run to a published checkpoint."""
    from simfle_jax.training import published, restore
    from simfle_jax.weights.encoder_file import describe

    published.check_published(restore.run_config(args.source))
    config, state = restore.run_state(args.source)
    data = dataclasses.replace(config.data, path=args.data or config.data.path)
    source = _data_of(dataclasses.replace(config, data=data))
    steps, fingerprint = len(source) // config.batch_size, source.fingerprint
    facts, step = restore.recorded_facts(args.source, state), int(state.step)
    if facts["data_fingerprint"] not in ("unknown", fingerprint):
        raise UserError(
            f"the images in {data.path} are not those that {args.source} was trained on: give theirs by --data"
        )
    published.write_published(args.target, state, config, steps, describe(config) | facts)
    inside = (
        f"; {step % steps} steps of epoch {step // steps} are done, the published program repeats them"
        if step % steps
        else ""
    )
    lost = "" if config.optimizer.name == "sgd" else "; Adam's state has no place there"
    return f"{args.target}: epoch {step // steps}, step {step}{inside}{lost}"
