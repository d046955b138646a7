"""The folder of a run or a probe: whose it is, and whether it may go on here."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simfle_jax.config import flatten, without_places
from simfle_jax.data.read_back import parse_json
from simfle_jax.errors import UserError
from simfle_jax.runs.bucket_lock import BucketLock
from simfle_jax.runs.environment import environment
from simfle_jax.runs.lock import NAME as LOCK
from simfle_jax.runs.lock import Lock
from simfle_jax.runs.mirror import mirror_of
from simfle_jax.writing import write_json

# What may change when a run goes on: it decides where and how fast, not what comes out.
FREE = {
    "log_steps", "checkpoint_steps", "keep_checkpoints", "tensorboard", "wandb", "report_every", "report_images", "remat",
    "shard_state", "data.path", "data.threads", "data.cache", "data.listing", "data.source", "data.max_bad_fraction",
    "monitor.path", "monitor.epochs",
    "monitor.protocol", "data.train_list", "data.val_list", "data.votes", "data.groups",
}  # fmt: skip
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]  # brings what an earlier version recorded to today's form


def claim(workdir: str | os.PathLike, settings: dict[str, Any], upgrade: Upgrade, write: bool = True) -> Path:
    """Makes the folder of a new run, or accepts that of the same run, or of one that has nothing to go on from yet.

    Raises:
        UserError: the folder belongs to a run with other settings (which are named), or to something else.
    """
    folder = Path(workdir)
    recorded = folder / "config.json"
    if recorded.exists():
        _check_kind(recorded, settings)
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
    mirror = mirror_of(folder)
    lock = (BucketLock(mirror.bucket, before=mirror.push) if mirror else Lock(folder)).acquire()
    try:
        if mirror:
            mirror.fetch(mirror.left)  # another one may have been at it since
            mirror.remove_remains()
        claim(workdir, settings, upgrade)
        if mirror:
            mirror.push()
    except BaseException:
        lock.release()
        raise
    return lock


def is_begun(folder: Path) -> bool:
    """Whether a run or a probe left something to go on from, so that its settings must stay."""
    done = ("progress.npz", "probe.safetensors", "results.json", "encoder.safetensors")
    return has_checkpoints(folder) or any((folder / name).exists() for name in done)


def has_checkpoints(folder: Path) -> bool:
    """Whether a run has any, damaged ones included; in a bucket they may not have been copied here."""
    if (mirror := mirror_of(folder)) and mirror.steps:
        return True
    checkpoints = folder / "checkpoints"
    saved = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return any(path.name.isdigit() or path.name.startswith("damaged-") for path in saved)


def read_settings(folder: Path) -> dict[str, Any]:
    """config.json of a run or a probe.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    file = folder / "config.json"
    try:
        found = parse_json(file.read_text())
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
    return name == LOCK or name.startswith((f".{LOCK}.", ".config."))


def wait_for_claim(folder: Path, seconds: float = 60) -> None:
    """Waits until the folder that process 0 claimed is seen here: a shared file system may show a file late.

    Raises:
        UserError: it does not appear.
    """
    end, mirror = time.monotonic() + seconds, mirror_of(folder)
    while not (mirror.fetch_one("config.json") if mirror else (folder / "config.json").exists()):
        if time.monotonic() > end:
            raise UserError(f"{folder} of process 0 is not seen here: --workdir must be on a disk that all hosts share")
        time.sleep(0.2)


def _write(folder: Path, settings: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", settings)
        write_json(folder / "environment.json", _environments(folder))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}; mend that, or give another --workdir") from None


def _check_kind(recorded: Path, settings: dict[str, Any]) -> None:
    """Raises UserError for the folder of a probe where a pre-training is to be, and the other way round."""
    try:
        found = parse_json(recorded.read_text())
    except (OSError, ValueError):  # told where it is needed
        return
    kinds = {True: "a probe", False: "a pre-training"}
    theirs, ours = ("protocol" in each for each in (found if isinstance(found, dict) else settings, settings))
    if theirs != ours:
        raise UserError(
            f"{recorded.parent} is the folder of {kinds[theirs]}, not of {kinds[ours]}: give another --workdir"
        )


def _environments(folder: Path) -> dict[str, Any]:
    """That in which the run was begun, and in `later_starts` those that differ from the one before them."""
    now, file = environment(), folder / "environment.json"
    try:
        before = parse_json(file.read_text()) if is_begun(folder) else {}
    except (OSError, ValueError):
        before = {}
    if not isinstance(before, dict) or not before:
        return now
    later = before.get("later_starts", [])
    last = later[-1] if later else before
    same = all(last.get(key) == value for key, value in now.items() if key != "time")
    return before if same else before | {"later_starts": [*later, now]}


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    before, now = flatten(old), flatten(new)
    kept, given = without_places(before), without_places(now)
    changed = [key for key in sorted(kept | given) if kept.get(key) != given.get(key) and key not in FREE]
    looked = before.get("data.canvas") or before.get("data.fitted", 1)
    if not looked:  # as earlier versions left a converted checkpoint: the canvas may be found now
        changed = [key for key in changed if key != "data.fitted"]
    if changed:
        key = changed[0]
        if changed == ["data_fingerprint"]:
            raise UserError(
                f"{folder} was begun with other images than {now.get('data.path') or 'these'}: give theirs, or another "
                "--workdir (data_fingerprint in its config.json is of their names and sizes)"
            )
        if changed == ["epochs"] and "protocol" not in now and folder.joinpath("encoder.safetensors").exists():
            raise UserError(
                f"{folder} is a run of {before['epochs']} epochs, now {now['epochs']}, and its rates are made for those: start a "
                f"new one from its trunk by --config.trunk.init_from={folder}/encoder.safetensors and another --workdir"
            )
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise UserError(
            f"{folder} is a run with {key} = {before.get(key)!r}, now {now.get(key)!r}{more}; "
            "give the same settings to continue it, or another --workdir"
        )
