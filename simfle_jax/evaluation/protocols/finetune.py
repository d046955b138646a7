"""Fine-tuning: the whole trunk is trained with a classifier on the labels, by the probe's random crops and flips.

The last epoch is reported: nothing is chosen on val. Checkpoints are kept every few epochs and when a signal asks to
stop; the same command goes on from the newest, to the same bits.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax import compilation, parallel
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.data.sources import Source
from simfle_jax.encoder import Encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.finetune import TuneState, TuneStep
from simfle_jax.evaluation.linear import Linear
from simfle_jax.evaluation.protocols.base import TrunkProtocol, Tuned
from simfle_jax.evaluation.protocols.lowlabel import few_rows
from simfle_jax.evaluation.sets import Subset
from simfle_jax.progress import Progress
from simfle_jax.runs.checkpoint import Checkpoints
from simfle_jax.runs.metrics_log import MetricsLog
from simfle_jax.training.stop import Stop

SAVE_SECONDS = 60.0  # between two checkpoints, at least, which are made at the ends of epochs


class FineTune(TrunkProtocol):
    """Trunk and classifier trained together."""

    def tune(self, encoder: Encoder, train: Source, n_classes: int, canvas: int, folder: Path) -> Tuned:
        assert train.labels is not None
        probe, mesh = self.probe, parallel.data_mesh()
        if probe.finetune.share < 1:
            train = Subset(train, few_rows(train.labels, probe.finetune.share, (probe.seed, 0)))
        batch_size = min(probe.batch_size, len(train) // mesh.size * mesh.size)
        if not batch_size:
            raise UserError(f"{len(train)} training images are fewer than the {mesh.size} devices: take fewer devices")
        parallel.check_batch(batch_size, mesh)
        per_epoch = len(train) // batch_size
        step = TuneStep(encoder, n_classes, probe, batch_size, per_epoch)
        bad: dict[str, str] = {}
        with Checkpoints(folder) as checkpoints:
            state = _state(step, mesh, checkpoints)
            with self._batches(train, batch_size, canvas, int(state.step), bad) as batches:
                state = self._trained(step, state, batches, mesh, checkpoints, folder, per_epoch)
        found = jax.device_get(state)
        trunk = {"params": found.params["trunk"], "stats": found.stats}
        method = f"{encoder.metadata.get('method', 'unknown')}, fine-tuned"
        tuned = Encoder(trunk, encoder.trunk, encoder.metadata | {"method": method})
        facts = {"train_count": len(train), "kept": "the last epoch: nothing was chosen"}
        return Tuned(tuned, Linear(*map(jnp.asarray, found.params["fc"])), facts, bad)

    @contextlib.contextmanager
    def _batches(
        self, train: Source, batch_size: int, canvas: int, start: int, bad: dict[str, str]
    ) -> Iterator[TrainBatches]:
        data = self.probe.data
        with TrainBatches(
            train, seed=self.probe.seed, batch_size=batch_size, canvas=canvas, start_step=start, threads=data.threads,
            max_bad_fraction=data.max_bad_fraction,
        ) as batches:  # fmt: skip
            yield batches
            bad |= batches.bad

    def _trained(
        self, step: TuneStep, state: TuneState, batches: TrainBatches, mesh: Any, checkpoints: Checkpoints,
        folder: Path, per_epoch: int,
    ) -> TuneState:  # fmt: skip
        """From the state's step to the last one."""
        epochs, start = self.probe.epochs, int(state.step)
        total, began = epochs * per_epoch, time.monotonic()
        log, progress, saved = MetricsLog(folder, start), Progress(total, "fine-tuning", start), began
        everywhere, over = parallel.replicated(mesh), parallel.over_data(mesh)
        compiled = jax.jit(
            step, in_shardings=(everywhere, over, over), out_shardings=everywhere, donate_argnums=0,
            compiler_options=compilation.training_options(),
        )  # fmt: skip
        # The labels are those of the images that took the place of unreadable ones.
        waiting = ((batch["image"], batch["label"]) for batch in batches)
        with Stop() as stop:
            for number, (images, labels) in enumerate(parallel.ahead(waiting, mesh, total - start), start + 1):
                state, metrics = compiled(state, images, labels)
                stopping, last = stop.asked(number), number == total
                if number % per_epoch == 0 or stopping:
                    values = {name: float(value) for name, value in metrics.items()}
                    _require_finite(values["loss/train"], number)
                    line = {"step": number, "epoch": -(-number // per_epoch)} | values
                    log.write(line | {"seconds": round(log.seconds + time.monotonic() - began, 3)})
                    progress.update(number, epoch=line["epoch"], loss=values["loss/train"])
                due = number % per_epoch == 0 and time.monotonic() - saved > SAVE_SECONDS
                if due or last or stopping:
                    checkpoints.save(state, wait=last or stopping)
                    saved = time.monotonic()
                if stopping and not last:
                    stop.leave(number)
        return state


def _state(step: TuneStep, mesh: Any, checkpoints: Checkpoints) -> TuneState:
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


PROTOCOL = FineTune
