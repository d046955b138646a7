"""The folder of a run or a probe that several processes work in: process 0 claims it, and alone writes its small files."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax

from simfle_jax.runs import folder as folders
from simfle_jax.runs import peers
from simfle_jax.runs.mirror import mirror_of, opened


@contextlib.contextmanager
def opened_together(workdir: str, leave: tuple[str, ...] = ()) -> Iterator[Path]:
    """The folder on this machine to work in; process 0 alone writes to one in a bucket. leave: files not brought.

    At a good end all wait for process 0: JAX ends every process when one waits too long for the others to leave.
    """
    with contextlib.ExitStack() as held:
        main = jax.process_index() == 0
        yield peers.together(lambda: held.enter_context(opened(workdir, writes=main, leave=leave)))
    peers.gather_texts("done")


@contextlib.contextmanager
def claimed_together(
    folder: Path, settings: dict[str, Any], upgrade: folders.Upgrade
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The folder, claimed and locked by process 0 and seen by the others; and what checks the lock."""
    main, mirror = jax.process_index() == 0, mirror_of(folder)
    with contextlib.ExitStack() as held:
        claim = partial(folders.take, folder, settings, upgrade)
        lock = peers.together(lambda: held.enter_context(claim()) if main else None)
        peers.together(lambda: None if main else folders.wait_for_claim(folder))

        def verify() -> None:
            if lock:
                lock.verify()
            if mirror:
                mirror.check()

        yield folder, verify
