"""What the processes of one run tell each other: that they do the same, that one cannot go on, that they live."""

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from simfle_jax.config import flatten, without_places
from simfle_jax.errors import UserError
from simfle_jax.runs.environment import environment

T = TypeVar("T")
LOST = re.compile(r"gloo|nccl|connection closed|connection reset|coordination|heartbeat|unavailable", re.IGNORECASE)


class LostPeer(UserError):
    """Another process is gone, so there is nobody to say goodbye to."""


def gather_texts(text: str) -> list[str]:
    """The text of every process, on every process, in their order. All must call it."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(os.fsencode(text), np.uint8)  # names of files are not always UTF-8
    lengths = np.asarray(multihost_utils.process_allgather(np.array([data.size], np.int32))).ravel()
    padded = np.zeros(max(int(lengths.max()), 1), np.uint8)
    padded[: data.size] = data
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [os.fsdecode(bytes(row[:size])) for row, size in zip(rows, lengths, strict=True)]


def together(work: Callable[[], T]) -> T:
    """The result of `work`, unless it fails on any process: then all raise that process's UserError."""
    if jax.process_count() == 1:
        return work()
    results, problem = list[T](), ""
    try:
        results.append(work())
    except UserError as error:
        problem = str(error)
    problems = gather_texts(problem)
    failed = [index for index, text in enumerate(problems) if text]
    if not failed:
        return results[0]
    everywhere = len(set(problems)) == 1
    raise UserError(problems[0] if everywhere else f"process {failed[0]}: {problems[failed[0]]}")


def of_first(work: Callable[[], T]) -> T:
    """What `work` gives on process 0, a JSON value, on every process: a shared disk may show another one something else.

    Raises:
        UserError: that of process 0, on all.
    """
    if jax.process_count() == 1:
        return work()
    main = jax.process_index() == 0
    return json.loads(gather_texts(together(lambda: json.dumps(work() if main else None)))[0])


def check_same(settings: dict[str, Any]) -> None:
    """Raises UserError on all processes, naming who differs in what, unless all run the same on the same data.

    settings: what identifies the run, nested. Code version, package versions and the number of local devices are
    compared too. Folders may have other names on other hosts.
    """
    if jax.process_count() == 1:
        return
    here = {f"config.{key}": value for key, value in without_places(flatten(settings)).items()}
    facts = environment()
    here |= {"code": facts["git_commit"], "devices of the process": jax.local_device_count()}
    here |= {f"package {name}": version for name, version in facts["packages"].items()}
    first, *others = (json.loads(text) for text in gather_texts(json.dumps(here, sort_keys=True)))
    for index, other in enumerate(others, start=1):
        for key in sorted(first | other):
            if first.get(key) != other.get(key):
                raise UserError(
                    f"process {index} has {key} = {other.get(key)!r}, process 0 has {first.get(key)!r}: "
                    "start all processes with the same settings, code and data"
                )


def lost(error: Exception) -> LostPeer | None:
    """The error as one line if it tells that another process is gone."""
    text = " ".join(str(error).split())
    if jax.process_count() == 1 or not LOST.search(text):
        return None
    return LostPeer(
        f"process {jax.process_index()} lost another process of the run ({text[:160]}); see what that one says. "
        "The same command on all of them goes on from the last checkpoint"
    )


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns the error of whatever waits for a process that is gone into LostPeer."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise lost(error) or error from None


class Watch:
    """Ends this process when no step has been done for so long that another one must hang.

    Heartbeats of the runtime find a dead host; a process that waits for ever, e.g. for a file server, still sends
    them. It begins with the second beat: the first step is compiled, and the first beat tells only that it was handed
    to the devices. Use it in a `with`.
    """

    def __init__(self, seconds: float):
        self.seconds, self.step, self.beaten = seconds, 0, float("inf")
        self._ended = threading.Event()

    def beat(self, step: int) -> None:
        """Tells that a step is done."""
        if self.step:
            self.beaten = time.monotonic()
        self.step = step

    def rest(self) -> None:
        """Does not watch until the next beat: what comes may take as long as it takes."""
        self.beaten = float("inf")

    def _look(self) -> None:
        while not self._ended.wait(min(1.0, self.seconds / 4)):
            if time.monotonic() - self.beaten > self.seconds:
                print(
                    f"error: process {jax.process_index()} saw no step for {self.seconds:g} s after step {self.step}: "
                    "another process hangs or is gone, or reading or saving takes longer (--peer_timeout=SECONDS). "
                    "The same command on all of them goes on from the last checkpoint",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
                os._exit(2)

    def __enter__(self) -> "Watch":
        if jax.process_count() > 1:
            threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
