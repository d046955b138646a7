"""Checkpoints of a run whose folder lies in a bucket: written here by process 0, then copied, the list of files last."""

import contextlib
import json
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from simfle_jax.errors import UserError
from simfle_jax.runs.checkpoint import Checkpoints, State, checked_number
from simfle_jax.runs.mirror import LostCopy, Mirror, mirror_of
from simfle_jax.runs.peers import gather_texts, together
from simfle_jax.storage import NoAccess


def open_checkpoints(folder: Path, keep: int) -> Checkpoints:
    """The checkpoints of a run that trains in `folder`, whether it is that of a disk or the copy of a bucket's."""
    mirror = mirror_of(folder)
    return BucketCheckpoints(folder, mirror, keep) if mirror else Checkpoints(folder, keep)


class BucketCheckpoints(Checkpoints):
    """As `Checkpoints`. A bucket that is away costs the checkpoint that it does not take, and not the run.

    Every process has its own folder. Process 0 gathers the state and writes it in a thread of its own.
    """

    def __init__(self, folder: Path, mirror: Mirror, keep: int):
        me = jax.process_index()
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        alone = ocp.options.MultiprocessingOptions(me, active_processes={me}, barrier_sync_key_prefix=f"process{me}")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, step_prefix=None, create=False, enable_async_checkpointing=False,
            multiprocessing_options=alone if jax.process_count() > 1 else ocp.options.MultiprocessingOptions(),
        )  # fmt: skip
        self._open(folder, options)
        self.mirror, self.keep, self.main = mirror, keep, me == 0
        self._thread = ThreadPoolExecutor(1)
        self._writing: tuple[int, Future[None]] | None = None

    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint in the bucket as process 0 knows them, newest first."""
        return json.loads(gather_texts(json.dumps(self.mirror.steps))[0])

    def save(self, state: State, wait: bool = False) -> None:
        """Saves at the state's own step; returns before the writing is done unless `wait`.

        Raises:
            UserError: a number is not finite, the bucket does not let us in, or with `wait` could not be reached.
        """
        step, began = int(state.step), time.monotonic()
        together(self._finish)
        self.waited = time.monotonic() - began
        if step in self.steps():
            return
        number = checked_number(state)
        on_host = jax.tree.map(_on_host, state)
        if self.main:
            self._writing = step, self._thread.submit(self._write, step, on_host, number)
        if wait:
            together(lambda: self._finish(last=True))

    def _write(self, step: int, state: State, number: int) -> None:
        meta = {"step": step, "checksum": number}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=items)
        self.mirror.push()  # a run goes on from a checkpoint whose metrics are there
        self.mirror.push_checkpoint(step, self.keep)

    def _finish(self, last: bool = False) -> None:
        """Waits for what is being written, and tells what went wrong."""
        if self._writing is None:
            return
        (step, writing), self._writing = self._writing, None
        try:
            writing.result()
        except (NoAccess, LostCopy) as error:
            raise type(error)(f"{error} {self._newest()}") from None
        except (OSError, ValueError, UserError) as error:
            reason = " ".join(str(error).split())
            if last:
                raise UserError(f"step {step} is not saved ({reason}); the run goes on {self._newest()}") from None
            logging.warning("checkpoint %d could not be written (%s); training goes on", step, reason)

    def _newest(self) -> str:
        return f"from step {self.mirror.steps[0]}" if self.mirror.steps else "from the start"

    def _load(self, step: int, target: Any) -> tuple[State | None, str]:
        problem = together(lambda: self.mirror.fetch_checkpoint(step))
        problem = next(filter(None, gather_texts(problem)), "")
        if problem:
            return None, problem
        self._manager.reload()
        return super()._load(step, target)

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            shutil.rmtree(self.folder / str(step), ignore_errors=True)

        def set_aside() -> None:
            for step in steps if self.main else ():
                self.mirror.set_aside(step)

        together(set_aside)
        self._manager.reload()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with contextlib.nullcontext() if kind is None else contextlib.suppress(UserError):
                self._finish(last=kind is None)
        finally:
            self._thread.shutdown()
            self._manager.close()


def _on_host(leaf: Any) -> np.ndarray:
    """A copy of an array in memory; all processes must call it where its parts lie on several."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.array(leaf)
    if leaf.is_fully_replicated:
        return np.array(leaf.addressable_data(0))
    return np.array(multihost_utils.process_allgather(leaf, tiled=True))
