"""The report of a run that goes on: made now and then by a process of its own, which gives way to the training."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import logging
from PIL import Image

from simfle_jax.config import Config
from simfle_jax.errors import lacks
from simfle_jax.runs import peers
from simfle_jax.runs.mirror import shown
from simfle_jax.runs.writers import Picture

PATIENCE = 240  # seconds that the end of a run waits for its last page


class LiveReport:
    """Refreshes RUN/report.html every `report_every` steps, unless a refresh is under way, or ended less long ago than it took:
    at least half of the time nothing runs beside the training.

    Nothing that goes wrong with the page reaches the run: it is told, and the next refresh is tried again.

    Args:
        config: of the run.

    Raises:
        UserError: Plotly is not installed.
    """

    def __init__(self, config: Config):
        if importlib.util.find_spec("plotly") is None:
            raise lacks("config: report_every", "Plotly", "report")
        self.every, self.folder = config.report_every, Path()
        self.wanted = config.tensorboard or config.wandb  # whether anybody takes the pictures
        self.flags = ["--images"] if config.report_images else []
        self.process: subprocess.Popen | None = None
        self._out: tempfile.TemporaryDirectory | None = None
        self._told = ""
        self._began = self._rests_until = 0.0

    def begin(self, folder: Path) -> None:
        """The run works in this folder from now on."""
        self.folder = folder

    def look(self, step: int) -> list[Picture]:
        """Starts a refresh where one is due; gives the pictures of one that has ended since."""
        found = self._ended()
        if step % self.every == 0 and self.process is None and time.monotonic() >= self._rests_until:
            self._start("--gently")
        return found

    def last(self) -> list[Picture]:
        """The page of the run's end, which is waited for, and its pictures."""
        self.close()
        self._start()
        end = time.monotonic() + PATIENCE
        while self.process is not None and self.process.poll() is None:
            if time.monotonic() > end:
                self._tell(f"it takes longer than {PATIENCE} s")
                self.close()
                return []
            time.sleep(0.1)
        return self._ended()

    def close(self) -> None:
        """Ends a refresh that is under way; the page of the one before stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._forget()

    def _start(self, *flags: str) -> None:
        """A process of its own session, so that Ctrl-C does not reach it, on the CPU, whatever device trains."""
        self._began = time.monotonic()
        try:
            self._out = tempfile.TemporaryDirectory(prefix="simfle-report-")
            command = [sys.executable, "-m", "simfle_jax.reporting.refresh", str(self.folder), *self.flags, *flags]
            command += ["--named", shown(self.folder)] if shown(self.folder) != str(self.folder) else []
            command += ["--pictures", self._out.name] if self.wanted else []
            package = str(Path(__file__).parents[2])
            paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)}
            with open(Path(self._out.name, "errors"), "wb") as errors:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=environment,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self._tell(str(error.strerror))
            self._forget()

    def _ended(self) -> list[Picture]:
        if self.process is None or self.process.poll() is None:
            return []
        assert self._out is not None
        now = time.monotonic()
        self._rests_until = now + (now - self._began)
        folder, status = Path(self._out.name), self.process.returncode
        pictures: list[Picture] = []
        try:
            if status:
                lines = (folder / "errors").read_text(errors="replace").splitlines()
                self._tell(lines[-1].removeprefix("error: ") if lines else f"status {status}")
            else:
                pictures = [_picture(file) for file in sorted(folder.glob("*.png"))]
        except (OSError, ValueError) as error:
            self._tell(str(error))
        self._forget()
        return pictures

    def _forget(self) -> None:
        if self._out is not None:
            self._out.cleanup()
        self.process = self._out = None

    def _tell(self, reason: str) -> None:
        """A warning, but not the same one at each refresh."""
        if reason != self._told:
            page = shown(self.folder / "report.html")
            logging.warning("%s could not be refreshed (%s); training goes on", page, reason)
        self._told = reason


def _picture(file: Path) -> Picture:
    name, step, _ = file.name.split(".")
    with Image.open(file) as image:
        return Picture(f"images/{name}", int(step), np.asarray(image.convert("RGB")))


def make_live(config: Config) -> LiveReport | None:
    """The live report that a run's settings ask for, on process 0 alone; else None.

    Raises:
        UserError: as `LiveReport` does, on all processes.
    """
    if not config.report_every:
        return None
    main = jax.process_index() == 0
    return peers.together(lambda: LiveReport(config) if main else None)
