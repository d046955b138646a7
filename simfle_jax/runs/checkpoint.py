"""Checkpoints by Orbax: saved in the background, verified when restored, the newest sound one counts."""

import logging as python_logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from simfle_jax.errors import UserError
from simfle_jax.runs.peers import gather_texts

TrainState = Any  # training/state.py has it; training imports this file, so this file does not import training


def checksum(state: TrainState) -> int:
    """A number that changes with any bit of any array: the sum of all 32-bit words, weighted by position, mod 2**32.

    The same however the arrays are spread; all processes must call it. On the host, because a program of five hundred
    sums takes ten seconds to compile and runs once an epoch.
    """
    leaves = enumerate(jax.tree.leaves(state))
    mine = sum((2 * i + 1) * _words(*part, leaf.shape) for i, leaf in leaves for part in _parts(leaf))
    return sum(map(int, gather_texts(str(mine)))) % 2**32


def _parts(leaf: Any) -> list[tuple[np.ndarray, tuple[slice, ...]]]:
    """What this process counts of an array, and where in it that is: each part counts once, whoever holds it."""
    if isinstance(leaf, np.ndarray):
        return [(leaf, ())]
    return [(np.asarray(shard.data), shard.index) for shard in leaf.addressable_shards if not shard.replica_id]


def _words(part: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    """The sum over a part of an array of this shape."""
    words = np.ascontiguousarray(part).reshape(-1, 1).view(np.uint32)  # two of them for a float64
    position = np.arange(np.prod(shape, dtype=int), dtype=np.uint32).reshape(shape)[index].reshape(-1, 1)
    weight = 2 * (position * np.uint32(words.shape[1]) + np.arange(words.shape[1], dtype=np.uint32)) + np.uint32(1)
    return int((words * weight).sum(dtype=np.uint32))


def quiet(record: python_logging.LogRecord) -> bool:
    """Leaves out the errors of Orbax's threads, a hundred lines of traceback each, of which the first is raised too."""
    error = record.exc_info[1] if record.exc_info else None
    theirs = "orbax" in record.pathname
    if record.name == "asyncio":  # only Orbax uses it here; a future that nobody asked does not name it
        theirs = "orbax" in record.getMessage() or isinstance(error, OSError)
    return record.levelno < python_logging.ERROR or not theirs


def disk_problem(error: Exception) -> str:
    """What an error says of the disk, e.g. 'No space left on device'; empty if it is about something else."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # TensorStore raises ValueError: '... Failed to write 330978 bytes: No space left on device [os_error_code='28']'.
    before, found, _ = " ".join(str(error).split()).partition(" [os_error_code=")
    return before.rpartition(": ")[2] if found else ""


class Checkpoints:
    """The checkpoints of one run, in `workdir`/checkpoints. Use it in a `with`: leaving waits for the last save.

    A full disk costs the checkpoint that does not fit: it is told, its remains are removed, the ones before stay and
    training goes on. Several processes cannot: one may have written its part, so they end and start again.
    """

    def __init__(self, workdir: str | os.PathLike, keep: int = 2):
        self.folder = Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, step_prefix=None, create=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "meta"))
        self._saving: int | None = None
        for logger in ("absl", "asyncio"):
            python_logging.getLogger(logger).addFilter(quiet)

    def save(self, state: TrainState, wait: bool = False) -> None:
        """Saves at the state's own step; returns before the writing is done unless `wait`.

        Raises:
            UserError: the disk is full, and nothing will be saved after this: `wait`, or one of several processes.
        """
        step = int(state.step)
        self._written(self._manager.wait_until_finished)
        if step in self._manager.all_steps():
            return
        meta = {"step": step, "checksum": checksum(state)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._saving = step
        written = self._written(lambda: self._manager.save(step, args=items))
        if wait and not (written and self._written(self._manager.wait_until_finished)):
            raise UserError(f"step {step} is not saved; make room, and the same command goes on {self._newest()}")

    def _written(self, work: Callable[[], object]) -> bool:
        """Whether `work` could write; otherwise says so and removes what it left."""
        try:
            work()
            return True
        except (OSError, ValueError) as error:
            problem = disk_problem(error)
            if not problem:
                raise
        if jax.process_count() > 1:
            raise UserError(
                f"checkpoint {self._saving} could not be written ({problem}); make room, and the same command on all "
                f"processes goes on {self._newest()}"
            )
        for remains in self.folder.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(remains, ignore_errors=True)
        self._manager.reload()
        logging.warning("checkpoint %d could not be written (%s); training goes on", self._saving, problem)
        return False

    def _newest(self) -> str:
        found = [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()]
        return f"from step {max(found)}" if found else "from the start"

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
        if not problem and checksum(state) != meta["checksum"]:
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
        self._written(self._manager.wait_until_finished)
        self._manager.close()
