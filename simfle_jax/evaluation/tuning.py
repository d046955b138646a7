"""Fine-tuning, the run: batches, checkpoints, the log, and stopping at a signal.

Checkpoints are kept every few epochs and when a signal asks to stop; what is run again goes on from the newest, to the
same bits. Several processes read their parts of each batch and end with the same state; process 0 alone writes the log.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from simfle_jax import compilation, distributed, parallel
from simfle_jax.data.bad_list import read_bad_list, write_bad_list
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError
from simfle_jax.evaluation.finetune import TuneState, Tuning
from simfle_jax.evaluation.settings import Probe
from simfle_jax.progress import Progress
from simfle_jax.runs import peers
from simfle_jax.runs.bucket_checkpoints import open_checkpoints
from simfle_jax.runs.checkpoint import Checkpoints
from simfle_jax.runs.metrics_log import MetricsLog
from simfle_jax.training.stop import Stop
from simfle_jax.writing import or_warn

SAVE_SECONDS = 60.0  # between two checkpoints, at least, which are made at the ends of epochs
KEPT = 2  # checkpoints
BAD_LIST = "bad_images.txt"


def tuned(
    make_step: Callable[[int, int], Tuning], images: Source, targets: np.ndarray, probe: Probe, canvas: int,
    folder: Path, told: str = "fine-tuning",
) -> tuple[TuneState, dict[str, str]]:  # fmt: skip
    """Trains to the last step, or goes on from the newest checkpoint in the folder: the state, on the host.

    make_step: of batch size and steps an epoch. targets: [n, ...], of each image by its number. canvas: side of the
    decoded images. told: beside the progress. Also gives the images that could not be read, and why.

    Raises:
        UserError: fewer images than devices, too many that cannot be read, or a loss that is not finite.
    """
    mesh, data = parallel.data_mesh(), probe.data
    batch_size = min(probe.batch_size, len(images) // mesh.size * mesh.size)
    if not batch_size:
        raise UserError(f"{len(images)} training images are fewer than the {mesh.size} devices: take fewer devices")
    if batch_size < min(probe.batch_size, len(images)) and jax.process_index() == 0:
        logging.warning("%d training images on %d devices: batches of %d, and the rate that goes with them; one device takes all",
                        len(images), mesh.size, batch_size)  # fmt: skip
    parallel.check_batch(batch_size, mesh)
    per_epoch = len(images) // batch_size
    step = make_step(batch_size, per_epoch)
    try:
        with peers.Watch(distributed.peer_timeout()) as watch, open_checkpoints(folder, KEPT) as checkpoints:
            state = _state(step, mesh, checkpoints)
            with TrainBatches(
                images, seed=probe.seed, batch_size=batch_size, canvas=canvas, start_step=int(state.step),
                process_index=jax.process_index(), process_count=jax.process_count(), threads=data.threads,
                max_bad_fraction=data.max_bad_fraction,
            ) as batches:  # fmt: skip
                run = _Run(step, mesh, checkpoints, folder, probe.epochs * per_epoch, per_epoch, told, watch)
                state = run(state, batches, targets)
        found = all_bad(batches, folder)
    except (RuntimeError, ValueError) as error:
        raise peers.lost(error) or error from None
    return jax.device_get(state), found


def bad_before(folder: Path) -> dict[str, str]:
    """The training images that an earlier start of this probe found unreadable, as train/NAME, and why."""
    listed = read_bad_list(folder / BAD_LIST)
    return {name: reason for name, reason in listed.items() if name.startswith("train/")}


def all_bad(batches: TrainBatches, folder: Path) -> dict[str, str]:
    """What all processes have found so far, and earlier starts before; all must call it. It is listed in the folder."""
    texts = peers.gather_texts(json.dumps(batches.bad))
    found = {name: reason for text in texts for name, reason in json.loads(text).items()}
    earlier = peers.of_first(lambda: bad_before(folder)) or {}
    found |= {name.removeprefix("train/"): reason for name, reason in earlier.items()}
    if jax.process_index() == 0 and found:
        with or_warn(str(folder / BAD_LIST)):
            write_bad_list(folder / BAD_LIST, {f"train/{name}": reason for name, reason in found.items()})
    return found


class _Run:
    """The steps from a state to the last one."""

    def __init__(
        self, step: Tuning, mesh: Any, checkpoints: Checkpoints, folder: Path, total: int, per_epoch: int, told: str,
        watch: peers.Watch,
    ):  # fmt: skip
        self.mesh, self.checkpoints, self.folder = mesh, checkpoints, folder
        self.total, self.per_epoch, self.told, self.watch = total, per_epoch, told, watch
        self.main = jax.process_index() == 0
        everywhere, over = parallel.replicated(mesh), parallel.over_data(mesh)
        self.compiled = jax.jit(
            step, in_shardings=(everywhere, over, over), out_shardings=everywhere, donate_argnums=0,
            compiler_options=compilation.training_options(),
        )  # fmt: skip

    def __call__(self, state: TuneState, batches: TrainBatches, targets: np.ndarray) -> TuneState:
        start, began = int(state.step), time.monotonic()
        if self.main:
            self.log, self.progress = MetricsLog(self.folder, start), Progress(self.total, self.told, start)
        self.saved = began
        # The targets are those of the images that took the place of unreadable ones.
        waiting = ((batch["image"], targets[batch["index"]]) for batch in batches)
        with Stop() as stop:
            for number, batch in enumerate(parallel.ahead(waiting, self.mesh, self.total - start), start + 1):
                state, metrics = self.compiled(state, *batch)
                self.watch.beat(number)
                stopping, last, ended = stop.asked(number), number == self.total, number % self.per_epoch == 0
                if ended or stopping:
                    self._tell(number, metrics, time.monotonic() - began)
                # Clocks differ from process to process, and all must save.
                if last or stopping or (ended and peers.of_first(self._due)):
                    all_bad(batches, self.folder)
                    self.checkpoints.save(state, wait=last or stopping)
                    self.saved = time.monotonic()
                if stopping and not last:
                    stop.leave(number)
        return state

    def _due(self) -> bool:
        return time.monotonic() - self.saved > SAVE_SECONDS

    def _tell(self, number: int, metrics: dict[str, jax.Array], seconds: float) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        _require_finite(values["loss/train"], number)
        if self.main:
            line = {"step": number, "epoch": -(-number // self.per_epoch)} | values
            self.log.write(line | {"seconds": round(self.log.seconds + seconds, 3)})
            self.progress.update(number, epoch=line["epoch"], loss=values["loss/train"])


def _state(step: Tuning, mesh: Any, checkpoints: Checkpoints) -> TuneState:
    """The newest checkpoint, or a new state, on every device."""
    everywhere = parallel.replicated(mesh)
    shapes = jax.eval_shape(step.fresh_state)
    state = checkpoints.restore(shapes, jax.tree.map(lambda _: everywhere, shapes))
    if state is not None:
        return state
    return jax.jit(step.fresh_state, out_shardings=everywhere, compiler_options=compilation.once())()


def _require_finite(loss: float, step: int) -> None:
    if not np.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {step}: start again in another --workdir with a lower --config.finetune.lr"
        )
