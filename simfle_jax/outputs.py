"""An error output that is closed, or cannot be written, must not end hours of work."""

import contextlib
import os
import sys
from typing import Any, TextIO, cast


class Lenient:
    """A text stream whose writing never fails: what nobody can read is dropped."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes if that is possible."""
        with self._forgiven():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Writes what was held back, if that is possible."""
        with self._forgiven():
            self._stream.flush()

    @contextlib.contextmanager
    def _forgiven(self) -> Any:
        try:
            yield
        except BrokenPipeError:  # for good; Python would fail once more when it flushes at its end
            _connect_to_nothing(self._stream.fileno())
        except OSError:  # e.g. a log on a full disk; the next line is tried again
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _connect_to_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)


def outlive_readers() -> None:
    """Makes sure that a closed terminal, pipe or descriptor costs only what would have been read there.

    A standard descriptor that is not open is opened: the next file would get its number, e.g. a checkpoint, and what
    libraries write to the error output would land in it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _connect_to_nothing(number)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = cast(TextIO, Lenient(sys.stderr or open(2, "w", closefd=False)))  # noqa: SIM115
