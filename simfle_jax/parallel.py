"""Devices: one mesh with one axis, `data`, over all of them; the batch is split along it."""

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from simfle_jax.errors import UserError


def data_mesh() -> Mesh:
    """All devices of all processes in a row, those of one process side by side: it reads the rows of its devices."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def own_mesh() -> Mesh:
    """The devices of this process alone, in a row: for what every process computes by itself."""
    return mesh_of(sorted(jax.local_devices(), key=lambda device: device.id))


def mesh_of(devices: Sequence[Any]) -> Mesh:
    """These devices in a row; they need not be there, as long as one only compiles for them."""
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


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
    """Vectors stay whole: they are small, and spread ones would tempt the compiler to split activations by channel."""
    for axis, size in enumerate(shape if len(shape) > 1 else ()):
        if size >= 2 * mesh.size and size % mesh.size == 0:
            return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return replicated(mesh)


def gathered(mesh: Mesh, arrays: Any) -> Any:
    """Arrays placed by `state_shardings` as whole ones on every device; their gradients are reduced to the shards.

    Without this the compiler splits products along the shards and sends activations in place of parameters.
    """
    return jax.tree.map(functools.partial(_gather, mesh), arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gather(mesh: Mesh, x: jax.Array) -> jax.Array:
    # Said before and after, so that a cast in front of this is done on the shards and the narrower array travels.
    x = jax.lax.with_sharding_constraint(x, _spread(mesh, x.shape))
    return jax.lax.with_sharding_constraint(x, replicated(mesh))


def _gather_forward(mesh: Mesh, x: jax.Array) -> tuple[jax.Array, None]:
    return _gather(mesh, x), None


def _gather_backward(mesh: Mesh, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.with_sharding_constraint(gradient, _spread(mesh, gradient.shape)),)


_gather.defvjp(_gather_forward, _gather_backward)


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises UserError, naming the nearest batches that fit, unless the devices divide every micro-batch."""
    unit = mesh.size * accumulate
    if batch_size % unit:
        lower, upper = batch_size // unit * unit, -(-batch_size // unit) * unit
        near = f"{lower} or {upper}" if lower else f"{upper}"
        parts = f"{mesh.size} devices" + (f" x {accumulate} micro-batches" if accumulate > 1 else "")
        raise UserError(f"config: batch_size = {batch_size} cannot be divided among {parts}; the nearest are {near}")


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """This process's rows of a batch, an array or a tree of them, as a part of the global one split along `data`."""
    return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, over_data(mesh)), batch)


def on_every_process(arrays: Any, mesh: Mesh) -> Any:
    """Arrays placed on the mesh as whole ones on every process, for export; all processes must call it."""
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))(arrays) if jax.process_count() > 1 else arrays


def ahead(batches: Iterator[Any], mesh: Mesh, count: int, depth: int = 2) -> Iterator[Any]:
    """The next `count` batches on the devices, sent `depth` batches before they are asked for; reads none beyond.

    What is waiting holds no state: batches are a function of the step, so a run that stops here goes on exactly.
    """
    waiting: deque[Any] = deque()
    for _ in range(count):
        waiting.append(to_devices(next(batches), mesh))
        if len(waiting) > depth:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
