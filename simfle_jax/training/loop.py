"""A pre-training run from its settings to its encoder; the same call continues it."""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
from absl import logging

from simfle_jax import canvases, compilation, parallel
from simfle_jax.config import Config
from simfle_jax.data.mixing import open_mixed, taken_apart
from simfle_jax.data.opening import crop_told, open_source
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError
from simfle_jax.runs import peers
from simfle_jax.runs.bucket_checkpoints import open_checkpoints
from simfle_jax.runs.checkpoint import Checkpoints
from simfle_jax.runs.folder import has_checkpoints
from simfle_jax.runs.metrics_log import MetricsLog
from simfle_jax.runs.mirror import REWRITTEN, brought, shown
from simfle_jax.runs.together import claimed_together, opened_together
from simfle_jax.runs.writers import Picture, optional_writers
from simfle_jax.training import keeping, memory
from simfle_jax.training.bad_images import BadImages
from simfle_jax.training.fitting import with_canvas
from simfle_jax.training.program import step_program
from simfle_jax.training.restore import identity, upgraded_identity
from simfle_jax.training.same_data import same_data
from simfle_jax.training.state import TrainState, trunk_of
from simfle_jax.training.step import TrainStep
from simfle_jax.training.step_metrics import StepMetrics, check_finite
from simfle_jax.training.stop import Stop
from simfle_jax.weights.encoder_file import encoder_step, export_encoder
from simfle_jax.weights.init import initial_trunk

WAIT = 1.0  # seconds; a save that blocks training for longer is told
Monitor = Callable[[Any, int], dict[str, float]]  # scores of a trunk ('params' and 'stats') at a step


class Live(Protocol):
    """A report of the run while it goes on."""

    def begin(self, folder: Path) -> None:
        """Called first, with the folder on this machine that the run works in."""

    def look(self, step: int) -> list[Picture]:
        """Called after each step: refreshes the report where that is due, and gives pictures that are new."""

    def last(self) -> list[Picture]:
        """Called at the end of the run: the last refresh."""

    def close(self) -> None:
        """Ends what is under way."""


def train(
    config: Config, workdir: str, peer_timeout: float = 300, monitor: Monitor | None = None, live: Live | None = None
) -> TrainState:
    """Trains to the end, or until a signal asks to stop; returns the last state.

    peer_timeout: seconds without a step after which a run of several processes ends.
    monitor: called on process 0 every `config.monitor.epochs` epochs and at the end; what it gives joins the metrics.
        Either all processes have one or none has.
    live: a report that is refreshed while training goes on, on process 0.

    Raises:
        UserError: whatever the user can mend, before anything is overwritten; the same on all processes.
    """
    compilation.use_cache()
    with peers.told(), opened_together(workdir, leave=REWRITTEN) as folder:
        if live:
            live.begin(folder)
        return _train(config, folder, peer_timeout, monitor, live)


def _train(
    config: Config, workdir: Path, peer_timeout: float, monitor: Monitor | None, live: Live | None
) -> TrainState:
    # ---------------------------------------------------------------- data
    source, steps_per_epoch = peers.together(lambda: open_data(config))
    if jax.process_index() == 0:
        warn_of_val(config)
        warn_of_canvas(config)
    source = same_data(source)
    config = with_canvas(config, source, workdir)

    # ---------------------------------------------------------------- devices and run folder
    mesh = parallel.data_mesh()
    parallel.check_batch(config.batch_size, mesh, config.accumulate)
    this_run = identity(config, source.fingerprint)
    peers.check_same(this_run)
    with claimed_together(workdir, this_run, upgraded_identity) as (folder, verify):
        # ------------------------------------------------------------ state: new, or the newest checkpoint
        train_step = TrainStep(config, steps_per_epoch, mesh)
        with (
            memory.explained(config),
            peers.Watch(peer_timeout) as watch,
            open_checkpoints(folder, config.keep_checkpoints) as checkpoints,
        ):
            first = config.checkpoint_steps or steps_per_epoch
            peers.together(lambda: refuse_restart(folder, min(first, config.epochs * steps_per_epoch - 1)))
            state, step_function = prepare(config, train_step, mesh, checkpoints)
            run = Run(config, folder, source, mesh, checkpoints, steps_per_epoch, watch, verify, monitor, live)
            return run.until_done(state, step_function)


def open_data(config: Config) -> tuple[Source, int]:
    """The images, and how many steps an epoch of them has."""
    mixed, data = config.data.sources, config.data
    source = open_mixed(mixed) if mixed else open_source(data.source, data.path, listing=data.listing)
    steps_per_epoch = len(source) // config.batch_size
    if not steps_per_epoch:
        raise UserError(f"config: batch_size = {config.batch_size} is larger than the data ({len(source)} images)")
    return source, steps_per_epoch


def warn_of_val(config: Config) -> None:
    """Says where the images to train on hold a split that probes are to be scored on."""
    path = Path(config.data.path)
    if (
        config.data.source == "folder"
        and not config.data.sources
        and all((path / x).is_dir() for x in ("train", "val"))
    ):
        logging.warning("%s holds train/ and val/, and both are trained on: --config.data.path=%s/train leaves val out",
                        path, path)  # fmt: skip


def warn_of_canvas(config: Config) -> None:
    """Says where images may be made smaller than what the networks see."""
    if 0 < config.data.canvas < config.largest_view:
        logging.warning(
            "data.canvas = %d is smaller than the views of %d pixels: larger images are shrunk to it and enlarged again; "
            "--config.data.canvas=0 fits it to the data", config.data.canvas, config.largest_view,
        )  # fmt: skip


def refuse_restart(folder: Path, first: int) -> None:
    """Raises UserError where a run would begin anew over what it came to: its checkpoints were removed.

    first: the step of its first checkpoint. An encoder of that one may be there before the checkpoint is.
    """
    step = None if has_checkpoints(folder) else encoder_step(brought(folder, "encoder.safetensors"))
    if step and step > first:
        raise UserError(
            f"{folder} holds the encoder of step {step} and no checkpoint to go on from: put the checkpoints back, or give "
            "another --workdir to train anew"
        )


def crop(config: Config) -> str:
    """How the images were cropped to the face, as far as their data sets tell."""
    mixed = [taken_apart(entry)[:2] for entry in config.data.sources]
    return crop_told(mixed or [(config.data.source, config.data.path)])


def prepare(config: Config, train_step: TrainStep, mesh: Any, checkpoints: Checkpoints) -> tuple[TrainState, Any]:
    """The state to start from, in place on the devices, and the compiled step with its state donated."""
    shapes = jax.eval_shape(train_step.fresh_state)
    shardings = parallel.state_shardings(mesh, shapes, config.shard_state)
    state = checkpoints.restore(shapes, shardings)
    if state is None:
        initial = initial_trunk(config.trunk, config.image_size)  # its file may be gone when the run goes on

        def fresh() -> TrainState:
            return train_step.fresh_state(initial)

        state = jax.jit(fresh, out_shardings=shardings, compiler_options=compilation.once())()
    return state, step_program(train_step, shapes, shardings)


class Run:
    """The loop: batch, step, and now and then metrics, a checkpoint and the encoder."""

    def __init__(
        self, config: Config, folder: Path, source: Source, mesh: Any, checkpoints: Checkpoints, steps_per_epoch: int,
        watch: peers.Watch, verify: Callable[[], None], monitor: Monitor | None, live: Live | None,
    ):  # fmt: skip
        self.config, self.folder, self.source, self.mesh = config, folder, source, mesh
        self.checkpoints, self.steps_per_epoch = checkpoints, steps_per_epoch
        self.watch, self.verify, self.monitor, self.live = watch, verify, monitor, live
        self.total = config.epochs * steps_per_epoch
        self.main = jax.process_index() == 0
        # Once: of a pack in a bucket it is asked for there.
        self.crop = peers.together(lambda: crop(config) if self.main else "")
        self.bad_images = BadImages(folder, source)
        self.checkpoint_steps = config.checkpoint_steps or steps_per_epoch
        self.monitor_steps = config.monitor.epochs * steps_per_epoch
        self.told_of_waiting = False

    def until_done(self, state: TrainState, step_function: Any) -> TrainState:
        """Trains from the state's step to the last one."""
        start, log = int(state.step), None
        if self.main:
            log = MetricsLog(self.folder, start, optional_writers(self.config, self.folder, start))
        self.metrics = StepMetrics(self.config, start, self.steps_per_epoch, self.verify, log)
        if start == self.total:
            self._complete(state)
        elif start and self.main:
            print(f"{shown(self.folder)} goes on from step {start}", file=sys.stderr, flush=True)
        if start < self.total and self.main:
            print(
                "compiling the step: minutes at the first start, seconds when it is cached", file=sys.stderr, flush=True
            )
        with (
            log or contextlib.nullcontext(),
            contextlib.closing(self.live) if self.live else contextlib.nullcontext(),
        ):
            if start < self.total:
                state = self._steps(state, step_function, start)
                if self.main:
                    place = shown(self.folder)
                    print(f"{place}/encoder.safetensors is done; score it: python probe.py --config=configs/probe.py "
                          f"--config.protocol=logistic --config.encoder={place} --config.data.path=DIR --workdir=PROBE",
                          file=sys.stderr, flush=True)  # fmt: skip
        return state

    def _steps(self, state: TrainState, step_function: Any, start: int) -> TrainState:
        with Stop() as stop, self._batches(start, stop) as batches, self.bad_images.of(batches):
            on_devices = parallel.ahead(map(canvases.of_batch, batches), self.mesh, self.total - start)
            for step, images in enumerate(on_devices, start):
                state, metrics = step_function(state, images)
                self._after_step(step + 1, state, metrics)
                self.watch.beat(step + 1)
                if stop.asked(step + 1):
                    self._save(state, metrics, step + 1, wait=True)
                    stop.leave(step + 1)
        self.metrics.flush()
        if self.live:
            self.watch.rest()
            self._show(self.live.last())
        return state

    def _complete(self, state: TrainState) -> None:
        """A run that was ended after its last checkpoint may lack its encoder, or have an earlier one."""
        if peers.of_first(lambda: encoder_step(brought(self.folder, "encoder.safetensors")) == self.total):
            logging.warning("%s is complete at step %d; nothing to do", shown(self.folder), self.total)
            return
        logging.warning("%s is complete at step %d; its encoder is written", shown(self.folder), self.total)
        self._export(state, self.total)

    def _export(self, state: TrainState, step: int) -> None:
        """Writes the encoder. What cannot be written costs this one alone, but for the last, which no other follows."""
        trunk = parallel.on_every_process(trunk_of(state), self.mesh)
        if not self.main:
            return
        metadata = {"step": str(step), "data_fingerprint": self.source.fingerprint, "crop": self.crop}
        try:
            export_encoder(self.folder / "encoder.safetensors", trunk, self.config, metadata)
        except UserError as error:
            reason = str(error).partition(";")[0]
            if step == self.total:
                raise UserError(f"{reason}; make room there, and the same command writes it") from None
            logging.warning("%s; training goes on", reason)

    def _show(self, pictures: list[Picture]) -> None:
        if self.metrics.log:
            self.metrics.log.show(pictures)

    def _batches(self, start: int, stop: Stop) -> TrainBatches:
        c = self.config
        return TrainBatches(
            keeping.kept(self.source, c, stop),
            seed=c.seed, batch_size=c.batch_size, canvas=c.canvas, least=c.least_side, start_step=start,
            process_index=jax.process_index(), process_count=jax.process_count(), threads=c.data.threads,
            max_bad_fraction=c.data.max_bad_fraction,
        )  # fmt: skip

    def _after_step(self, step: int, state: TrainState, metrics: dict[str, jax.Array]) -> None:
        due = self.monitor and (step % self.monitor_steps == 0 or step == self.total)
        if step % self.config.log_steps == 0 or step == self.total or due:
            self.metrics.put_off(step, metrics)
        if due:
            self._look(state, metrics, step)
        if step % self.checkpoint_steps == 0 or step == self.total:
            self._save(state, metrics, step)
        if self.live and step < self.total:
            self._show(self.live.look(step))

    def _look(self, state: TrainState, metrics: dict[str, jax.Array], step: int) -> None:
        """Writes the metrics of this step with the monitor's scores, which process 0 computes and the others wait for."""
        assert self.monitor is not None
        check_finite(jax.device_get(metrics), step)
        when, monitor = time.monotonic(), self.monitor
        trunk = parallel.on_every_process(trunk_of(state), self.mesh)
        self.watch.rest()
        scores = peers.together(lambda: monitor(jax.device_get(trunk), step) if self.main else {})
        self.metrics.tell(step, metrics | scores, when)

    def _save(self, state: TrainState, metrics: dict[str, jax.Array], step: int, wait: bool = False) -> None:
        """Saves checkpoint and encoder, unless the loss is no longer finite: a bad state must not replace a good one."""
        check_finite(jax.device_get(metrics), step)
        self.metrics.flush()
        self.verify()
        self.bad_images.save()
        self.checkpoints.save(state, wait=wait or step == self.total)
        if self.main and self.checkpoints.waited > WAIT and not self.told_of_waiting:
            self.told_of_waiting = True
            logging.warning(
                "step %d waited %.1f s until the checkpoint before it was written: --config.checkpoint_steps=N with an N above %d "
                "saves less often", step, self.checkpoints.waited, self.checkpoint_steps,
            )  # fmt: skip
        self._export(state, step)
