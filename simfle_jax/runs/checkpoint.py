"""Checkpoints by Orbax: saved in the background, verified when restored, the newest sound one counts.

Nothing here deletes a checkpoint for having failed to load. What only reads uses `SavedCheckpoints`, which changes
nothing on the disk; a run that trains uses `Checkpoints`, which saves too.
"""

import json
import logging as python_logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from simfle_jax.errors import UserError
from simfle_jax.runs.checksum import checksum, survey
from simfle_jax.runs.peers import gather_texts

NEEDED = ("meta/metadata", "state/_METADATA", "state/manifest.ocdbt")  # without these a checkpoint is not whole
DAMAGED = re.compile(
    "^(DATA_LOSS|OUT_OF_RANGE|NOT_FOUND): |Error (decoding|decompressing) |checksum verification failed|[Zz]std-|ZSTD_"
)
FORM = re.compile("Object must be |Metadata dict must be ")  # Orbax, of metadata that are JSON of another form
REMEDY = "Start again in another --workdir with a lower lr, or with --config.dtype=float32 where it is bfloat16"

State = Any  # a training state: a tree of arrays with a `step`


def checked_number(state: State) -> int:
    """The checksum of a state that may be saved.

    Raises:
        UserError: it holds a number that is not finite, which must not replace a good one.
    """
    number, poisoned = survey(state)
    if poisoned:
        raise UserError(
            f"{poisoned} is not finite after step {int(state.step)}, which is not saved; the last good checkpoint is "
            f"kept. {REMEDY}"
        )
    return number


def quiet(record: python_logging.LogRecord) -> bool:
    """Leaves out the errors of Orbax's threads, a hundred lines of traceback each, of which the first is raised too.

    And its warnings that a folder which is only read is only read, and that a save waited, which the loop tells itself.
    """
    error = record.exc_info[1] if record.exc_info else None
    theirs = "orbax" in record.pathname
    if record.name == "asyncio":  # only Orbax uses it here; a future that nobody asked does not name it
        theirs = "orbax" in record.getMessage() or isinstance(error, OSError)
    dull = ("read only", "Waiting for previous save")
    return not theirs or (record.levelno < python_logging.ERROR and not any(text in str(record.msg) for text in dull))


def hush_given_up_reads() -> None:
    """Leaves out what is said of the reads that Orbax gave up after their first error: a traceback for each array."""
    before = sys.unraisablehook
    if getattr(before, "hushes_given_up_reads", False):
        return

    def hook(caught: "sys.UnraisableHookArgs") -> None:
        abandoned = "orbax" in getattr(getattr(caught.object, "cr_code", None), "co_filename", "")
        closed = isinstance(caught.exc_value, RuntimeError) and "Event loop is closed" in str(caught.exc_value)
        if not (abandoned or closed):
            before(caught)

    hook.hushes_given_up_reads = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def disk_problem(error: Exception) -> str:
    """What an error says of the disk, e.g. 'No space left on device'; empty if it is about something else."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # TensorStore raises ValueError: '... Failed to write 330978 bytes: No space left on device [os_error_code='28']'.
    before, found, _ = " ".join(str(error).split()).partition(" [os_error_code=")
    return before.rpartition(": ")[2] if found else ""


def first(error: BaseException) -> BaseException:
    """The error that others were raised from: Orbax wraps that of a single array."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def told(error: BaseException) -> str:
    """An error as a part of a line; never empty."""
    return " ".join(str(error).split()).partition(" [tensorstore_spec=")[0][:300] or type(error).__name__


def damage(error: BaseException, folder: Path) -> str:
    """What is damaged in a checkpoint's folder, by the error of reading it; '' when something else went wrong.

    Damaged are bytes that do not decode and files that are missing or too short. Too little memory, too many open
    files, a stale handle, a missing permission, a disk that is not there, or a state of other shapes are no damage.
    """
    text = " ".join(str(error).split()).partition(" [tensorstore_spec=")[0]
    # TensorStore raises ValueError. An operating system's error other than ENOENT says nothing of the file's content.
    foreign = "os_error_code=" in str(error) and "os_error_code='2'" not in str(error)
    if isinstance(error, ValueError) and DAMAGED.search(text) and not foreign:
        return text[-160:] if folder.is_dir() else ""
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) or FORM.match(text):
        return f"its metadata cannot be read: {text}"
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return ""
    missing = [name for name in NEEDED if folder.is_dir() and not (folder / name).exists()]
    return f"it has no {missing[0]}" if missing else ""


class SavedCheckpoints:
    """The checkpoints of one run, in `workdir`/checkpoints, to be read: nothing on the disk is made or changed.

    Use it in a `with`.
    """

    def __init__(self, workdir: str | os.PathLike):
        # Without a limit and a rhythm of saving: Orbax warns of both where it only reads.
        self._open(
            workdir, ocp.CheckpointManagerOptions(read_only=True, create=False, step_prefix=None, save_interval_steps=0)
        )

    def _open(self, workdir: str | os.PathLike, options: ocp.CheckpointManagerOptions) -> None:
        self.folder = Path(workdir).absolute() / "checkpoints"
        for logger in ("absl", "asyncio"):
            python_logging.getLogger(logger).addFilter(quiet)
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "meta"))
        except ValueError as error:  # it reads the metadata of all; a file system's errors are others
            if "os_error_code=" in str(error):
                raise
            raise UserError(
                f"{self.folder}: the metadata of a checkpoint cannot be read ({error}); put that one back from a copy, "
                "or move its folder aside, and the same command goes on from the one before"
            ) from None
        hush_given_up_reads()

    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint, newest first."""
        try:
            return sorted(self._manager.all_steps(), reverse=True)
        except ValueError:  # Orbax reads the metadata of all for it, and those of one are damaged
            return sorted((int(path.name) for path in self.folder.iterdir() if path.name.isdigit()), reverse=True)

    def restore(self, shapes: Any, shardings: Any, step: int | None = None) -> State | None:
        """The newest sound checkpoint, or that of `step` alone; None when the run has none yet.

        shapes: the state as ShapeDtypeStructs. A checkpoint that is damaged, or whose checksum is not the one noted
        when it was saved, is named, and the one before is tried.

        Raises:
            UserError: there are checkpoints but none is sound, or one could not be read for another reason.
        """
        target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
        found = self.steps() if step is None else [step]
        damaged = list[int]()
        for one in found:
            state, problem = self._load(one, target)
            if state is not None:
                self._set_aside(damaged)
                return state
            logging.warning("checkpoint %s is damaged (%s); using the one before", self.folder / str(one), problem)
            damaged.append(one)
        if found:
            raise UserError(
                f"none of the checkpoints in {self.folder} is sound ({problem}); put one back from a copy, or start "
                "anew in another --workdir"
            )
        return None

    def _load(self, step: int, target: Any) -> tuple[State | None, str]:
        """The state of a checkpoint if it is sound, otherwise what is damaged in it; raises where it is not known."""
        error, problem = None, ""
        try:
            items = ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore())
            restored: Any = self._manager.restore(step, args=items)
        except Exception as raised:  # orbax and tensorstore raise nearly anything
            problem = damage(first(raised), self.folder / str(step))
            error = None if problem else raised
        # What one process cannot read, all leave: the checksum is computed by all of them.
        self._agree_to_go_on(step, error)
        problem = next(filter(None, gather_texts(problem)), "")
        if problem:
            return None, problem
        noted = restored.meta if isinstance(restored.meta, dict) else {}
        if checksum(restored.state) != noted.get("checksum"):
            return None, "its checksum differs"
        return (restored.state, "") if int(restored.state.step) == step else (None, "it holds another step")

    def _agree_to_go_on(self, step: int, error: Exception | None) -> None:
        """Raises the error of this process, and on the others that it happened: the checkpoint may be sound."""
        texts = gather_texts(told(first(error)) if error else "")
        if not any(texts):
            return
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise error
        index = next(number for number, text in enumerate(texts) if text)
        by = f"process {index}: " if len(texts) > 1 else ""
        raise UserError(
            f"checkpoint {self.folder / str(step)} could not be read ({by}{texts[index]}); it stays as it is: mend "
            "that, and the same command goes on; where it cannot be mended, rename it, and the one before is used"
        ) from error

    def _set_aside(self, steps: list[int]) -> None:
        """What is done with damaged checkpoints once a sound one is found: nothing, where one only reads."""

    def __enter__(self) -> "SavedCheckpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._manager.close()


class Checkpoints(SavedCheckpoints):
    """The checkpoints of a run that trains. Use it in a `with`: leaving waits for the last save.

    A full disk costs the checkpoint that does not fit: it is told, its remains are removed, the ones before stay and
    training goes on. Several processes cannot: one may have written its part, so they end and start again.
    """

    waited = 0.0  # seconds that the last `save` stood still until the one before it was written

    def __init__(self, workdir: str | os.PathLike, keep: int = 2):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, step_prefix=None, create=True,
            cleanup_tmp_directories=True,  # of saves that were killed, each as large as a checkpoint; the lock is held
        )  # fmt: skip
        self._open(workdir, options)
        self._saving: int | None = None

    def save(self, state: State, wait: bool = False) -> None:
        """Saves at the state's own step; returns before the writing is done unless `wait`.

        Raises:
            UserError: the state holds a number that is not finite, which must not replace a good one; or the disk is
                full, and nothing will be saved after this: `wait`, or one of several processes.
        """
        step, began = int(state.step), time.monotonic()
        self._written(self._manager.wait_until_finished)
        self.waited = time.monotonic() - began
        if step in self._manager.all_steps():
            return
        number = checked_number(state)
        meta = {"step": step, "checksum": number}
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

    def _set_aside(self, steps: list[int]) -> None:
        """Renames damaged checkpoints, so that the run can save these steps again and somebody can look at them."""
        if not steps:
            return
        for step in steps if jax.process_index() == 0 else []:
            names = (self.folder / f"damaged-{step}{more}" for more in ("", *(f"-{i}" for i in range(2, 1000))))
            aside = next(name for name in names if not name.exists())
            (self.folder / str(step)).rename(aside)
            logging.warning("the damaged checkpoint is kept as %s; remove it when it is of no use", aside)
        gather_texts("")  # the others look again when that is done
        self._manager.reload()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and jax.process_count() > 1 and not issubclass(kind, SystemExit):
            return  # saving needs all processes, and one may be gone
        self._written(self._manager.wait_until_finished)
        self._manager.close()
