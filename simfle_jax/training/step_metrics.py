"""What a run tells of its steps: a line of metrics.jsonl, the live line, and warnings."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from simfle_jax.config import Config
from simfle_jax.errors import UserError
from simfle_jax.progress import Progress
from simfle_jax.runs.checkpoint import REMEDY
from simfle_jax.runs.metrics_log import MetricsLog
from simfle_jax.training.warnings import Warnings


class StepMetrics:
    """The metrics of steps on their way from the device to the log.

    Values are fetched a step late: the device never waits for it. All processes look whether they are finite.

    Args:
        start: the step that the run goes on from.
        verify: raises where another process has taken the run's folder over.
        log: of process 0; None on the others, which tell nothing.
    """

    def __init__(
        self, config: Config, start: int, steps_per_epoch: int, verify: Callable[[], None], log: MetricsLog | None
    ):
        self.batch_size, self.steps_per_epoch = config.batch_size, steps_per_epoch
        self.verify, self.log = verify, log
        if log:
            self.progress = Progress(config.epochs * steps_per_epoch, "pre-training", start)
            self.warnings = Warnings(config, log.earlier)
        self.began = time.monotonic()
        self.told = start, self.began  # the last step that was told, and when it was done
        self.pending: tuple[int, Mapping[str, Any], float] | None = None

    def put_off(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Keeps the metrics of a step, and tells those that were kept before."""
        self.flush()
        self.pending = step, metrics, time.monotonic()

    def tell(self, step: int, metrics: Mapping[str, Any], done: float) -> None:
        """Tells the metrics of a step that was done at `done`; what was done since is not part of its time."""
        self.pending = step, metrics, done
        self.flush()
        self.told = step, time.monotonic()

    def flush(self) -> None:
        """Tells the metrics that were put off.

        Raises:
            UserError: a loss among them is not finite, or another process has taken the folder over.
        """
        if self.pending is None:
            return
        (step, metrics, done), self.pending = self.pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        check_finite(values, step)
        steps, seconds = step - self.told[0], done - self.told[1]
        speed = steps * self.batch_size / max(seconds, 1e-9)
        self.told = step, done
        if self.log:
            self.verify()
            self.progress.update(step, loss=values["loss/total"], images_per_s=f"{speed:.4g}")
            line = {"step": step, "epoch": (step - 1) // self.steps_per_epoch} | values
            self.warnings.look(line)
            seconds = round(self.log.seconds + done - self.began, 3)
            self.log.write(line | {"images_per_second": speed, "seconds": seconds})


def check_finite(values: Mapping[str, Any], step: int) -> None:
    """Raises UserError naming the first loss term that is not finite."""
    terms = sorted((name for name in values if name.startswith("loss/")), key=lambda name: name == "loss/total")
    for name in terms:
        if not math.isfinite(float(np.asarray(values[name]))):
            raise UserError(
                f"{name} is {float(values[name])} at step {step}; the last good checkpoint is kept. {REMEDY}"
            )
