"""The folder of a run: which run it belongs to, where it ran, and its metrics."""

import contextlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import logging

from simfle_jax.config import flatten
from simfle_jax.errors import UserError
from simfle_jax.runs.lock import NAME as LOCK
from simfle_jax.runs.lock import Lock

# What may change when a run goes on: it decides where and how fast, not what comes out.
FREE = {
    "log_steps", "checkpoint_steps", "keep_checkpoints", "tensorboard", "wandb", "remat", "shard_state", "data.path",
    "data.threads", "data.cache", "data.source", "data.max_bad_fraction", "monitor.path", "monitor.epochs",
    "monitor.protocol",
}  # fmt: skip
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "pillow",
    "simplejpeg",
    "simfle-jax",
)


Upgrade = Callable[[dict[str, Any]], dict[str, Any]]  # brings what an earlier version recorded to today's form


def claim(workdir: str | os.PathLike, settings: dict[str, Any], upgrade: Upgrade, write: bool = True) -> Path:
    """Makes the folder of a new run, or accepts that of the same run, or of one that has nothing to go on from yet.

    Raises:
        UserError: the folder belongs to a run with other settings (which are named), or to something else.
    """
    folder = Path(workdir)
    recorded = folder / "config.json"
    if recorded.exists():
        if is_begun(folder):
            _check_same(upgrade(read_settings(folder)), settings, folder)
    elif folder.is_file() or (folder.is_dir() and any(not _is_ours(path.name) for path in folder.iterdir())):
        raise UserError(f"{folder} holds something else than a run; give another --workdir")
    if write:
        _write(folder, settings)
    return folder


def take(workdir: str | os.PathLike, settings: dict[str, Any], upgrade: Upgrade) -> Lock:
    """Claims the folder as `claim` does, and takes its lock, which the caller releases.

    Raises:
        UserError: as `claim` and `Lock` do.
    """
    folder = claim(workdir, settings, upgrade, write=False)  # what is refused makes no folder
    lock = Lock(folder).acquire()
    try:
        claim(workdir, settings, upgrade)
    except BaseException:
        lock.release()
        raise
    return lock


def is_begun(folder: Path) -> bool:
    """Whether a run or a probe left something to go on from, so that its settings must stay."""
    done = ("progress.npz", "probe.safetensors", "results.json")
    checkpoints = folder / "checkpoints"
    saved = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return any((folder / name).exists() for name in done) or any(
        path.name.isdigit() or path.name.startswith("damaged-") for path in saved
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """config.json of a run or a probe.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        found, problem = None, str(error)
    else:
        problem = "it holds no settings"
    if not isinstance(found, dict):
        raise UserError(
            f"{file} is damaged ({problem}); put it back from a copy: a run with the same settings and images writes "
            "the same file into another --workdir"
        )
    return found


def _is_ours(name: str) -> bool:
    """Whether a file may stand in a folder that is not claimed yet: of the lock, or of a claim that was cut short."""
    return name == LOCK or name.startswith((f".{LOCK}.", ".config.json."))


def wait_for_claim(folder: Path, seconds: float = 60) -> None:
    """Waits until the folder that process 0 claimed is seen here: a shared file system may show a file late.

    Raises:
        UserError: it does not appear.
    """
    end = time.monotonic() + seconds
    while not (folder / "config.json").exists():
        if time.monotonic() > end:
            raise UserError(f"{folder} of process 0 is not seen here: --workdir must be on a disk that all hosts share")
        time.sleep(0.2)


@contextlib.contextmanager
def or_warn(what: str) -> Iterator[None]:
    """A full disk costs this file and not the run: it is told, and the next one is tried again."""
    try:
        yield
    except (OSError, UserError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        logging.warning("%s could not be written (%s); training goes on", what, reason)


def _write(folder: Path, settings: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", settings)
        write_json(folder / "environment.json", environment())
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}; mend that, or give another --workdir") from None


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    before, now = flatten(old), flatten(new)
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key not in FREE]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise UserError(
            f"{folder} is a run with {key} = {before.get(key)!r}, now {now.get(key)!r}{more}; "
            "give the same settings to continue it, or another --workdir"
        )


def write_json(path: Path, content: Any) -> None:
    """Writes whole or not at all."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # a power cut may otherwise leave the new name with nothing in it
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def environment() -> dict[str, Any]:
    """What this runs on: versions, devices, git commit, time."""
    import jax

    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": [str(device.device_kind) for device in jax.devices()],
        "processes": jax.process_count(),
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class MetricsLog:
    """metrics.jsonl: one JSON object a line. On resuming, lines after the restored step are cut off."""

    def __init__(self, folder: Path, resume_step: int, writers: tuple[Any, ...] = ()):
        self.path, self.writers = folder / "metrics.jsonl", writers
        kept = [line for line in self._lines() if line["step"] <= resume_step]
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        text = "".join(json.dumps(line) + "\n" for line in kept)
        try:
            write_whole(self.path, text)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; mend that, and the same command goes on"
            ) from None

    def _lines(self) -> list[dict[str, Any]]:
        lines = []
        for text in self.path.read_text(errors="replace").splitlines() if self.path.exists() else []:
            try:
                line = json.loads(text)
                int(line["step"]), float(line["seconds"])
            except (ValueError, TypeError, KeyError):  # the last line of a killed run may be half written
                break
            lines.append(line)
        return lines

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
        for writer in self.writers:
            writer(values)
