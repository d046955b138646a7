"""Whole pre-training states in the layout of the published program's checkpoints.

Such a file holds `epoch` (how many are finished, so the number of the one to go on with), `state_dict` (942 entries at
paper size, in an order that is part of the format) and `optimizer` (the state dict of PyTorch's SGD).
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from simfle_jax.config import Config, trunk_name
from simfle_jax.errors import UserError
from simfle_jax.training.optimizer import schedule
from simfle_jax.training.state import TrainState
from simfle_jax.training.step import TrainStep
from simfle_jax.weights import torch_names, torch_sgd
from simfle_jax.weights.files import (
    check_names,
    check_shapes,
    check_values,
    read_weights,
    write_torch,
)
from simfle_jax.weights.torch_names import Entry
from simfle_jax.weights.trunk import is_published, published_names

TREES = ("params", "stats", "target_params", "target_stats")
POSITION_TOLERANCE = 1e-5
# Training forward passes of a step through each part: PyTorch counts them in num_batches_tracked.
PASSES = {"online_network.encoder": 3, "facemae": 1, "distil_FFL": 1}


class Published(NamedTuple):
    """What a published checkpoint holds; arrays keep torch's names and layout."""

    arrays: dict[str, np.ndarray]
    epoch: int
    optimizer: dict[str, Any] | None
    step: int | None  # noted in the files that we write


def read_published(path: str | Path) -> Published:
    """Reads a checkpoint, also with `module.` prefixes, as a bare state dict, or as safetensors (epoch 0).

    Raises:
        UserError: no such file, not whole, or not of this kind.
    """
    arrays, _, content = read_weights(path)
    if not is_published(arrays):
        raise UserError(f"{path} is not a pre-training checkpoint: no name in it starts with online_network.")
    facts = content if isinstance(content, dict) and "state_dict" in content else {}
    epoch, step, optimizer = facts.get("epoch", 0), facts.get("step"), facts.get("optimizer") or {}
    if not (isinstance(epoch, int) and isinstance(step, int | None) and isinstance(optimizer, dict)):
        raise UserError(f"{path}: epoch, step or optimizer are not what the published program writes")
    # An optimizer that has taken no step has no buffers yet.
    return Published(published_names(arrays), epoch, optimizer if optimizer.get("state") else None, step)


def check_published(config: Config) -> None:
    """Raises UserError unless the published program knows this method, its tie and this trunk."""
    if config.facemae.tie != "published":
        raise UserError(
            f"the published program knows no facemae.tie = {config.facemae.tie!r}: the trunk alone goes to .safetensors or .onnx"
        )
    if config.trunk.kind != "bottleneck" or config.method not in ("simfle", "byol"):
        raise UserError(
            f"the published program's checkpoints hold simfle or byol on bottleneck ResNets, not {config.method} on "
            f"{trunk_name(config.trunk)}: its trunk alone goes to .safetensors or .onnx"
        )


def to_state(found: Published, config: Config, steps_per_epoch: int, where: str | Path) -> TrainState:
    """The training state at the first step of the checkpoint's epoch (or at its own step, when it knows one).

    A checkpoint without optimizer starts with empty momentum buffers.

    Raises:
        UserError: it belongs to another model than config describes, or such files cannot hold that.
    """
    check_published(config)
    train_step = TrainStep(config, steps_per_epoch)
    shapes = jax.eval_shape(train_step.fresh_state)
    entries = torch_names.published(config)
    arrays = found.arrays
    check_names(arrays, entries, where)
    check_values(arrays, where)
    expected = {name: getattr(shapes, name) for name in TREES}
    check_shapes(arrays, entries, expected, where)
    _check_positions(arrays, entries, where)
    trees = torch_names.to_ours(entries, arrays)
    step = _step(found, steps_per_epoch)
    # The schedule's count. That of Adam's moments, which are empty, stays 0: they are corrected for it.
    of_schedule = lambda path, _: getattr(path[-1], "tuple_name", "") != "ScaleByAdamState"  # noqa: E731
    opt_state = optax.tree_utils.tree_set(train_step.tx.init(trees["params"]), of_schedule, count=jnp.int32(step))
    if found.optimizer and config.optimizer.name == "sgd":
        buffers, moved = torch_sgd.read_momentum(found.optimizer, entries, where), torch_sgd.moved(entries)
        check_shapes(buffers, moved, expected, f"the optimizer in {where}")
        check_values(buffers, f"the optimizer in {where}")
        opt_state = optax.tree_utils.tree_set(opt_state, trace=torch_names.to_ours(moved, buffers)["params"])
    return TrainState(jnp.int32(step), **trees, opt_state=opt_state)


def _step(found: Published, steps_per_epoch: int) -> int:
    """The noted step when it lies in the noted epoch: with other data or batches it would not."""
    if found.step is not None and found.step // steps_per_epoch == found.epoch:
        return found.step
    return found.epoch * steps_per_epoch


def _check_positions(arrays: dict[str, np.ndarray], entries: list[Entry], where: str | Path) -> None:
    for entry in entries:
        if entry.value is None or entry.name.endswith("num_batches_tracked"):
            continue
        theirs = arrays[entry.name]
        if theirs.shape != entry.value.shape:
            raise UserError(
                f"{where}: {entry.name} is {theirs.shape}, expected {entry.value.shape}: another image size?"
            )
        if np.abs(theirs - entry.value).max() > POSITION_TOLERANCE:
            raise UserError(f"{where}: {entry.name} are not the fixed sin-cos positions of this method")


def state_dict(state: TrainState, config: Config) -> dict[str, np.ndarray]:
    """All arrays of a state under the published names, in their order."""
    entries = torch_names.published(config)
    arrays = torch_names.to_torch(entries, jax.device_get({name: getattr(state, name) for name in TREES}))
    for name in arrays:
        if name.endswith("num_batches_tracked"):
            arrays[name] = np.array(int(state.step) * _passes(name, config), np.int64)
    return arrays


def _passes(name: str, config: Config) -> int:
    plain = config.method == "simfle" and config.facemae.masking == "semantic" and config.facemae.plain_in_averages
    if name.startswith("online_network.encoder") and not plain:
        return 2
    return next((count for part, count in PASSES.items() if name.startswith(part)), 2)


def write_published(
    path: Path, state: TrainState, config: Config, steps_per_epoch: int, metadata: dict[str, str]
) -> None:
    """Writes a state for the published program: `epoch` is that of the next step.

    After a run trained by Adam `optimizer` holds no buffers: SGD starts them anew.

    Raises:
        UserError: the published program knows no such method or trunk.
    """
    check_published(config)
    entries, step = torch_names.published(config), int(state.step)
    buffers = {}
    if config.optimizer.name == "sgd":
        trace = jax.device_get(optax.tree_utils.tree_get(state.opt_state, "trace"))
        buffers = torch_names.to_torch(torch_sgd.moved(entries), {"params": trace})
    lr = float(schedule(config, steps_per_epoch)(jnp.int32(step)))
    content = {
        "epoch": step // steps_per_epoch,
        "arch": "resnet50" if config.trunk.stage_sizes == (3, 4, 6, 3) and config.trunk.width == 64 else "resnet",
        "state_dict": state_dict(state, config),
        "optimizer": torch_sgd.write_momentum(
            buffers, entries, lr, config.optimizer.momentum, config.optimizer.weight_decay
        ),
        "step": step,
        "metadata": metadata,
    }
    write_torch(path, content)
