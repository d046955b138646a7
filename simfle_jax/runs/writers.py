"""Optional destinations of the same metrics that metrics.jsonl holds, and of the pictures of the live report."""

import errno
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simfle_jax.config import Config, as_dict
from simfle_jax.data.read_back import one_line
from simfle_jax.errors import UserError, lacks
from simfle_jax.runs.mirror import shown
from simfle_jax.writing import or_warn, write_whole


class Picture(NamedTuple):
    """A picture of a checkpoint: its name, the checkpoint's step, and uint8 pixels [H, W, 3]."""

    name: str
    step: int
    pixels: np.ndarray


class Writer(NamedTuple):
    """Takes the lines of metrics.jsonl, and pictures. `close` is told whether the run came to a good end."""

    name: str
    write: Callable[[dict[str, Any]], None]
    show: Callable[[Picture], None]
    close: Callable[[bool], None]


def optional_writers(config: Config, folder: Path, start: int) -> tuple[Writer, ...]:
    """The writers that the settings ask for, of a run that goes on from step `start`.

    Raises:
        UserError: the package of one is not installed.
    """
    wanted = [(config.tensorboard, _tensorboard), (config.wandb, _wandb)]
    return tuple(make(config, folder, start) for on, make in wanted if on)


def _tensorboard(config: Config, folder: Path, start: int) -> Writer:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise lacks("config: tensorboard", "tensorboardX", "report") from None
    # A killed run may have written steps beyond its checkpoint, which are now done again: those are to be dropped.
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def require_thread() -> None:
        # The package's thread ends without a word where its disk is full. The queue to it then fills, and blocks for ever.
        worker = getattr(getattr(getattr(writer, "file_writer", None), "event_writer", None), "_worker", None)
        if worker is not None and not worker.is_alive():
            raise OSError(errno.EPIPE, "its thread has ended")

    def write(values: dict[str, Any]) -> None:
        require_thread()
        for name, value in values.items():
            writer.add_scalar(name, value, values["step"])
        writer.flush()

    def show(picture: Picture) -> None:
        require_thread()
        writer.add_image(picture.name, picture.pixels, picture.step, dataformats="HWC")
        writer.flush()

    def close(good: bool) -> None:
        # A thread writes the values, and flushing does not wait for it: a folder that is copied would lack the last ones.
        require_thread()
        writer.close()

    return Writer("TensorBoard", write, show, close)


def _wandb(config: Config, folder: Path, start: int) -> Writer:
    """Steps that are done again need no care: W&B ignores a step that it has, and the values are the same."""
    try:
        import wandb
    except ImportError:
        raise lacks("config: wandb", "wandb", "report") from None
    try:
        run = wandb.init(
            project="simfle-jax", name=Path(shown(folder)).name, dir=folder, config=as_dict(config),
            id=_wandb_id(folder, start), resume="allow",
        )  # fmt: skip
    except Exception as error:  # its own classes, of which none is ours to import
        raise UserError(
            f"config: wandb cannot begin ({one_line(error)}): see to it, or set WANDB_MODE=offline, or leave it out"
        ) from None

    def show(picture: Picture) -> None:
        # Into the step that W&B is at: it takes nothing of an earlier one, which the checkpoint's may be.
        image = wandb.Image(picture.pixels, caption=f"checkpoint of step {picture.step}")
        run.log({picture.name: image}, commit=False)

    def close(good: bool) -> None:
        run.finish(exit_code=0 if good else 1)

    return Writer("W&B", lambda values: run.log(values, step=values["step"]), show, close)


def _wandb_id(folder: Path, start: int) -> str:
    """The name of the run at W&B, kept in the folder; a run that begins anew gets a new one."""
    file = folder / "wandb_id.txt"
    kept = file.read_text(errors="replace").strip() if start and file.exists() else ""
    if kept.isalnum():
        return kept
    made = uuid.uuid4().hex[:16]
    with or_warn(str(file)):
        write_whole(file, made + "\n")
    return made
