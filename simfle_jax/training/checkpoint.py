"""Checkpoints by Orbax: saved in the background, verified when restored, the newest sound one counts."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from simfle_jax.errors import UserError
from simfle_jax.training.peers import gather_texts
from simfle_jax.training.state import TrainState


def checksum(state: TrainState) -> jax.Array:
    """A number that changes with any bit of any array: the wrapping sum of all words, weighted by position."""

    def words(x: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32 if x.dtype.itemsize <= 4 else jnp.uint64)
        flat = bits.astype(jnp.uint32).ravel()
        return (flat * (2 * jnp.arange(flat.size, dtype=jnp.uint32) + 1)).sum(dtype=jnp.uint32)

    parts = [words(leaf) * jnp.uint32(2 * i + 1) for i, leaf in enumerate(jax.tree.leaves(state))]
    return jnp.stack(parts).sum(dtype=jnp.uint32)


class Checkpoints:
    """The checkpoints of one run, in `workdir`/checkpoints. Use it in a `with`: leaving waits for the last save."""

    def __init__(self, workdir: str | os.PathLike, keep: int = 2):
        self.folder = Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, step_prefix=None, create=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "meta"))
        self._checksum = jax.jit(checksum)

    def save(self, state: TrainState, wait: bool = False) -> None:
        """Saves at the state's own step; returns before the writing is done unless `wait`."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        meta = {"step": step, "checksum": int(self._checksum(state))}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        try:
            self._manager.save(step, args=items)
            if wait:
                self._manager.wait_until_finished()
        except OSError as error:
            logging.warning("checkpoint %d could not be written (%s); the one before stays", step, error.strerror)

    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def restore(self, shapes: Any, shardings: Any, step: int | None = None) -> TrainState | None:
        """The newest sound checkpoint, or that of `step` alone; None when the run has none yet.

        shapes: the state as ShapeDtypeStructs. A checkpoint that cannot be read, or whose checksum is not the one
        noted when it was saved, is named, put aside, and the one before is tried.

        Raises:
            UserError: there are checkpoints but none is sound.
        """
        target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
        found = self.steps() if step is None else [step]
        for one in found:
            for state in self._sound(one, target):
                return state
        if found:
            raise UserError(f"none of the checkpoints in {self.folder} can be read; start anew in another --workdir")
        return None

    def _sound(self, step: int, target: Any) -> Iterator[TrainState]:
        """Yields the state of a checkpoint if it is sound; says what is wrong and removes it otherwise."""
        problem = ""
        try:
            items = ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore())
            restored = self._manager.restore(step, args=items)
            state: Any = restored.state
            meta: Any = restored.meta
        except Exception as error:  # orbax and tensorstore raise nearly anything on damaged files
            problem = " ".join(str(error).split())[:200] or type(error).__name__
            state, meta = None, {"checksum": None}
        # What one process cannot read, all leave: the checksum is computed by all of them.
        problem = next(filter(None, gather_texts(problem)), "")
        if not problem and int(self._checksum(state)) != meta["checksum"]:
            problem = "its checksum differs"
        if not problem and int(state.step) != step:
            problem = "it holds another step"
        if not problem:
            yield state
            return
        logging.warning("checkpoint %s is damaged (%s); using the one before", self.folder / str(step), problem)
        self._manager.delete(step)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and jax.process_count() > 1 and not issubclass(kind, SystemExit):
            return  # saving needs all processes, and one may be gone
        self._manager.wait_until_finished()
        self._manager.close()
