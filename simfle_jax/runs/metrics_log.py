"""metrics.jsonl: what a run tells of its steps."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from simfle_jax.data.read_back import one_line, parse_json
from simfle_jax.errors import UserError
from simfle_jax.runs.writers import Picture, Writer
from simfle_jax.writing import or_warn, write_whole

KINDS = {"step": (int,), "seconds": (int, float)}  # without these a line is damaged


def _read(text: str) -> dict[str, Any] | None:
    """A line; None: it is damaged."""
    try:
        line = parse_json(text)
    except ValueError:
        return None
    whole = isinstance(line, dict) and all(type(line.get(name)) in kinds for name, kinds in KINDS.items())
    return line if whole else None


class MetricsLog:
    """metrics.jsonl: one JSON object a line. On resuming, lines after the restored step are cut off.

    Use it in a `with`. earlier: the lines that were there and stay; seconds: of training at the last of them.
    """

    def __init__(self, folder: Path, resume_step: int, writers: Sequence[Writer] = ()):
        self.path, self.writers = folder / "metrics.jsonl", list(writers)
        kept = [line for line in self._lines() if line["step"] <= resume_step]
        self.earlier, self.seconds = kept, kept[-1]["seconds"] if kept else 0.0
        text = "".join(json.dumps(line) + "\n" for line in kept)
        try:
            write_whole(self.path, text)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; mend that, and the same command goes on"
            ) from None

    def _lines(self) -> list[dict[str, Any]]:
        texts = self.path.read_text(errors="replace").splitlines() if self.path.exists() else []
        lines = [_read(text) for text in texts]
        if None in lines[:-1]:  # the last one of a killed run may be half written
            kept = self.path.with_name("metrics.damaged.jsonl")
            with or_warn(str(kept)):
                shutil.copyfile(self.path, kept)
            logging.warning("%s has %d damaged lines: they are left out, and kept in %s",
                            self.path, lines.count(None), kept.name)  # fmt: skip
        return [line for line in lines if line is not None]

    def write(self, values: dict[str, Any]) -> None:
        """Appends one line and hands the same values to the other writers."""
        with or_warn(str(self.path)):
            whole = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("a") as file:
                    file.write(json.dumps(values) + "\n")
            except OSError:
                os.truncate(self.path, whole)  # half a line would hide all that come after it
                raise
        for writer in self.writers[:]:
            # Packages of others: whatever they raise, a run must not end for its optional log.
            try:
                writer.write(values)
            except Exception as error:
                self.writers.remove(writer)
                logging.warning(
                    "%s takes no more metrics (%s) and is left out; metrics.jsonl has all, and training goes on",
                    writer.name, one_line(error),
                )  # fmt: skip

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits until the other writers have written; what goes wrong with one of them is told."""
        for writer in self.writers:
            with _told(f"the end of {writer.name}"):
                writer.close(kind is None)

    def show(self, pictures: Sequence[Picture]) -> None:
        """Hands pictures to the other writers; what goes wrong with one costs that one."""
        for writer in self.writers:
            for picture in pictures:
                with _told(f"{picture.name} of step {picture.step}"):
                    writer.show(picture)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """As `or_warn`, of whatever another package raises."""
    with or_warn(what):
        try:
            yield
        except (OSError, UserError):
            raise
        except Exception as error:
            raise UserError(one_line(error)) from None
