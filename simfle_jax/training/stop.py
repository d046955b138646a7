"""Stopping at a signal, at the same step on all processes."""

import itertools
import os
import signal
import sys
from typing import Any, NoReturn

import jax
from jax._src import distributed
from jax.experimental import multihost_utils

# Of the questions whether to stop. Not the steps: they begin anew where one process trains several times.
_questions = itertools.count(1)


class Stop:
    """Remembers a signal that asks to stop: Ctrl-C, SIGTERM, or Slurm's SIGUSR1. A second Ctrl-C stops at once.

    With several processes a signal may reach only one. JAX's preemption service then agrees on a step; its notice is
    SIGTERM, which it catches itself, so the other signals are handed on to it as that.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))  # not Windows

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._several = jax.process_count() > 1

    def __enter__(self) -> "Stop":
        numbers = [number for number in self.SIGNALS if not (self._several and number == signal.SIGTERM)]
        try:
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        except ValueError:  # not in the main thread: signals belong to somebody else
            self._before = {}
        return self

    def _note(self, number: int, _: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._several and not self.received:
            os.kill(os.getpid(), signal.SIGTERM)
        self.received = signal.Signals(number)

    def asked(self, step: int) -> bool:
        """Whether to stop after this step; the same on all processes, which must all ask at every step."""
        if self._several:
            return multihost_utils.reached_preemption_sync_point(next(_questions))
        return self.received is not None

    def noticed(self) -> bool:
        """Whether a stop is asked for, between steps and without the others: only to give up long work before them.

        All processes must come together after it and leave all or none.
        """
        if self.received is not None or not self._several:
            return self.received is not None
        client: Any = distributed.global_state.client
        try:
            client.key_value_try_get("RECEIVED_PREEMPTION_NOTICE")  # by which the preemption service tells all
        except jax.errors.JaxRuntimeError:  # nobody has had one
            return False
        return True

    def leave(self, step: int) -> NoReturn:
        """Ends the process with the status that a shell gives a signal."""
        self._leave(f"saved at step {step}; the same command goes on from there")

    def leave_unsaved(self, when: str) -> NoReturn:
        """The same before the first step, when there is nothing to save."""
        self._leave(f"stopped {when}; the same command starts it again")

    def _leave(self, message: str) -> NoReturn:
        received = self.received or signal.SIGTERM
        if jax.process_index() == 0:
            name = received.name if self.received else "preemption"
            print(f"{name}: {message}", file=sys.stderr, flush=True)
        raise SystemExit(128 + received)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
