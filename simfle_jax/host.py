"""Folders on this machine for what lies in buckets: one for each use, or one that all processes of the machine share."""

import contextlib
import hashlib
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from simfle_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def host_folder(*names: str) -> Path:
    """A folder for copies of what lies in buckets: below $SIMFLE_CACHE_DIR, or the user's cache.

    Raises:
        UserError: it cannot be made.
    """
    try:
        top = os.environ.get("SIMFLE_CACHE_DIR")
        base = Path(top) if top else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "simfle_jax")
        folder = base.absolute().joinpath("buckets", *names)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: neither HOME nor an entry of this user in passwd
        raise UserError(
            f"no folder for copies of what lies in buckets ({' '.join(str(error).split())}): "
            "name one on a disk of this machine with SIMFLE_CACHE_DIR=DIR"
        ) from None
    return folder


QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container on Linux: microseconds of cores in each so many, or 'max'


def schedulable_cores() -> int:
    """The cores on which this process may be scheduled, in a job fewer than the machine has; what XLA goes by."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores() -> int:
    """How many cores' time this process may use: a container may be scheduled on more than it has the time of."""
    try:
        quota, period = QUOTA.read_text().split()
        return min(schedulable_cores(), max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or no limit
        return schedulable_cores()


def digest(text: str | bytes) -> str:
    """A short name for a text."""
    return hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def scratch(location: str) -> Iterator[Path]:
    """A folder for one use, which is removed at the end; those of processes that were killed are removed at the start."""
    top = host_folder("work")
    for left in top.glob("*.held"):
        remove_if_free(left)
    held = top / f"{digest(location)}-{os.getpid()}-{uuid.uuid4().hex[:6]}.held"
    folder = held.with_suffix("")
    with holding(held):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            held.unlink(missing_ok=True)


@contextlib.contextmanager
def holding(file: Path, alone: bool = True) -> Iterator[None]:
    """Holds a lock on a file, which is made; the system gives it up for a process that dies. Waits for it."""
    number = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl:
            try:
                fcntl.flock(number, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            except OSError as error:  # network file systems that know no locks
                raise UserError(
                    f"{file} cannot be locked: {error.strerror}; SIMFLE_CACHE_DIR=DIR names a disk of this machine"
                ) from None
        yield
    finally:
        os.close(number)


def remove_if_free(held: Path) -> bool:
    """Removes the folder that a lock file stands beside, with the file, unless a process holds it."""
    if not fcntl:
        return False
    try:
        number = os.open(held, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(held.with_suffix(""), ignore_errors=True)
        held.unlink(missing_ok=True)
        return True
    except OSError:
        return False
    finally:
        os.close(number)
