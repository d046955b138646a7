"""bad_images.txt of a run: every image that was ever found unreadable in it, whichever start found it."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import logging

from simfle_jax.data.bad_list import read_bad_list, write_bad_list
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.data.sources import Source
from simfle_jax.runs import peers
from simfle_jax.writing import or_warn


class BadImages:
    """The list in the run's folder; it grows at every save, and at every end of the run."""

    def __init__(self, folder: Path, source: Source):
        self.path, self.source = folder / "bad_images.txt", source
        self._found: dict[str, str] = {}

    @contextlib.contextmanager
    def of(self, batches: TrainBatches) -> Iterator[None]:
        """Lists what these batches find, also when an error or a signal ends them."""
        if jax.process_index() == 0:
            self._keep_listed()
        self._found = batches.bad
        try:
            yield
        except SystemExit:  # a signal: all have saved together
            raise
        except BaseException:
            self._add(self._found)  # at an error the others cannot be asked: each process adds its own
            raise
        finally:
            if jax.process_index() == 0 and (count := len(read_bad_list(self.path))):
                logging.warning("%d images could not be read and were replaced by others; see %s", count, self.path)

    def save(self) -> None:
        """Adds what all processes have found; all must call it."""
        texts = peers.gather_texts(json.dumps(self._found))
        if jax.process_index() == 0:
            self._add({name: reason for text in texts for name, reason in json.loads(text).items()})

    def _keep_listed(self) -> None:
        """Takes out what an earlier start has found and the data no longer have."""
        if held := read_bad_list(self.path):
            names = set(map(self.source.name, range(len(self.source))))
            self._write({name: reason for name, reason in held.items() if name in names})

    def _add(self, found: dict[str, str]) -> None:
        held = read_bad_list(self.path)
        if not found.items() <= held.items():
            self._write(held | found)

    def _write(self, bad: dict[str, str]) -> None:
        with or_warn(str(self.path)):
            write_bad_list(self.path, bad)
