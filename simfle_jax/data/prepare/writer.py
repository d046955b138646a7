"""Writes a plan as the canonical tree: train/<class>/, val/<class>/ and unlabelled/ (train without its labels).

Every file appears complete or not at all, so a run that was stopped is continued by starting it again.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simfle_jax.data.decode import BadImage
from simfle_jax.data.prepare.encode import encoded
from simfle_jax.data.prepare.plan import SPLITS, Item, Plan, Skipped
from simfle_jax.data.prepare.progress import Progress
from simfle_jax.errors import UserError

UNLABELLED = "unlabelled"
CHUNK = 128  # images that a thread takes at a time
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES)


def write(plan: Plan, out: Path, link: str) -> list[Item]:
    """Writes what is missing in `out` and returns the images that are there in the end.

    `link`: 'hard' (no space; the file is the source's own, do not edit it) or 'copy'. Images that cannot be decoded
    when they must be are added to `plan.skipped`.

    Raises:
        UserError: `out` holds images that are not of this plan, links do not work, or the disk is full.
    """
    targets = {_target(item): item for item in plan.items}
    flat = dict(zip(flat_names(plan.items), (item for item in plan.items if item.split == "train")))
    present = _present(out)
    strangers = sorted(present - targets.keys() - {f"{UNLABELLED}/{name}" for name in flat})
    if strangers:
        raise UserError(
            f"{out} holds {len(strangers)} files that are not of this preparation ({strangers[0]}): "
            "remove them or choose another --out"
        )
    for folder in sorted({os.path.dirname(target) for target in targets} | ({UNLABELLED} if flat else set())):
        (out / folder).mkdir(parents=True, exist_ok=True)
    missing = [(target, item) for target, item in targets.items() if target not in present]
    failed = _in_threads(missing, lambda pair: _produce(pair[1], out / pair[0], link), "writing", plan.skipped)
    views = [(f"{UNLABELLED}/{name}", item) for name, item in flat.items() if item.label is not None]
    views = [(name, item) for name, item in views if name not in present and id(item) not in failed]
    _in_threads(views, lambda pair: _view(out / _target(pair[1]), out / pair[0]), "listing", plan.skipped)
    return [item for item in plan.items if id(item) not in failed]


def flat_names(items: Iterable[Item]) -> list[str]:
    """Names of the train images in one folder: their own, with the class in front where two would collide."""
    train = [item for item in items if item.split == "train"]
    times = Counter(item.name for item in train)
    return [item.name if times[item.name] == 1 else f"{item.label or 'none'}_{item.name}" for item in train]


def _target(item: Item) -> str:
    return f"{UNLABELLED}/{item.name}" if item.label is None else f"{item.split}/{item.label}/{item.name}"


def _present(out: Path) -> set[str]:
    """The files below the folders that are written here, relative to `out`; hidden ones are unfinished."""
    found = set()
    for top in (*SPLITS, UNLABELLED):
        for directory, _, names in os.walk(out / top):
            prefix = Path(directory).relative_to(out).as_posix()
            found.update(f"{prefix}/{name}" for name in names if not name.startswith("."))
    return found


def _in_threads(pairs: list[tuple[str, Item]], act, verb: str, skipped: Skipped) -> set[int]:
    """Applies `act` to all pairs; returns the ids of the items that could not be decoded or read."""
    progress, failed = Progress(len(pairs), verb), []

    def run(chunk: list[tuple[str, Item]]) -> list[tuple[Item, str]]:
        bad = []
        for pair in chunk:
            try:
                act(pair)
            except BadImage as error:
                bad.append((pair[1], f"image not usable: {error}"))
            except PermissionError:
                bad.append((pair[1], "image not readable: no permission"))
        progress.step(len(chunk))
        return bad

    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for bad in pool.map(run, chunks):
            failed.extend(bad)
    except OSError as error:
        raise _explained(error) from None
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    for item, reason in failed:
        skipped.add(reason, item.name)
    return {id(item) for item, _ in failed}


def _produce(item: Item, target: Path, link: str) -> None:
    if item.box or item.pixels or os.path.splitext(item.path or "")[1].lower() != target.suffix.lower():
        _replace(target, encoded(item))
    elif link == "hard":
        _link(str(item.path), target)
    else:
        part = _part(target)
        shutil.copyfile(str(item.path), part)
        os.replace(part, target)


def _link(path: str, target: Path) -> None:
    try:
        os.link(os.path.realpath(path), target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        raise UserError(f"cannot hard-link {path} to {target} ({error.strerror}): use --link copy") from None


def _view(path: Path, target: Path) -> None:
    """Links within `out`; copies on file systems without links."""
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        part = _part(target)
        shutil.copyfile(path, part)
        os.replace(part, target)


def _replace(target: Path, data: bytes) -> None:
    part = _part(target)
    part.write_bytes(data)
    os.replace(part, target)


def _part(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _explained(error: OSError) -> Exception:
    if error.errno in FULL:
        return UserError("no space left on the disk: free some and give the same command again, it goes on from here")
    return error
