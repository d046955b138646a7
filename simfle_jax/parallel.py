"""Devices: one mesh with one axis, `data`, over all of them; the batch is split along it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from simfle_jax.errors import UserError


def data_mesh() -> Mesh:
    """All devices of all processes in a row."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def over_data(mesh: Mesh) -> NamedSharding:
    """Split along the first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, shapes: Any, shard_state: bool) -> Any:
    """Where each array of a state lives: on every device, or split along its first axis that the devices divide."""
    return jax.tree.map(lambda x: _spread(mesh, x.shape) if shard_state else replicated(mesh), shapes)


def _spread(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    for axis, size in enumerate(shape):
        if size >= 2 * mesh.size and size % mesh.size == 0:
            return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return replicated(mesh)


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises UserError, naming the nearest batches that fit, unless the devices divide every micro-batch."""
    unit = mesh.size * accumulate
    if batch_size % unit:
        lower, upper = batch_size // unit * unit, -(-batch_size // unit) * unit
        near = f"{lower} or {upper}" if lower else f"{upper}"
        parts = f"{mesh.size} devices" + (f" x {accumulate} micro-batches" if accumulate > 1 else "")
        raise UserError(f"config: batch_size = {batch_size} cannot be divided among {parts}; the nearest are {near}")


def to_devices(batch: np.ndarray, mesh: Mesh) -> jax.Array:
    """This process's rows of a batch, as a part of the global array split along `data`."""
    return jax.make_array_from_process_local_data(over_data(mesh), batch)
