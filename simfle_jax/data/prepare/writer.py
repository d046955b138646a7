"""Writes a plan as the canonical tree: train/<class>/, val/<class>/ and unlabelled/ (train without its labels).

Every file appears complete or not at all, so a run that was stopped is continued by starting it again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simfle_jax.data.decode import BadImage
from simfle_jax.data.files import is_service
from simfle_jax.data.photographs.alignment import Alignment
from simfle_jax.data.prepare.encode import aligned_file, encoded
from simfle_jax.data.prepare.names import distinct
from simfle_jax.data.prepare.plan import SPLITS, Item, Plan
from simfle_jax.errors import UserError
from simfle_jax.progress import Progress

UNLABELLED = "unlabelled"
CHUNK = 128  # images that a thread takes at a time
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES, errno.ENOSYS)


class Unreadable(Exception):
    """An image of the source cannot be read; its text is the reason."""


def write(
    plan: Plan, out: Path, link: str, alignment: Alignment | None = None, other_source: bool = False
) -> list[Item]:
    """Writes what is missing in `out`, or is not the source's any more, and returns the images that are there in the end.

    alignment: writes the faces in them instead. other_source: what is there came from another folder, so that images that
    were decoded are written anew; of the others the files tell.

    `link`: 'hard' (no space; the file is the source's own, do not edit it) or 'copy'. Images that cannot be decoded
    when they must be are added to `plan.skipped`.

    Raises:
        UserError: `out` holds images that are not of this plan or cannot be written, links do not work, or the disk is
            full.
    """
    flat = flat_names(plan.items)
    targets = {_target(item, flat): item for item in plan.items}
    views = {f"{UNLABELLED}/{name}": target for target, name in _labelled_train(targets, flat)}
    present = _present(out)
    _refuse_strangers(out, present - targets.keys() - views.keys())
    for folder in {os.path.dirname(name) for name in (*targets, *views)}:
        (out / folder).mkdir(parents=True, exist_ok=True)
    missing = [
        target for target, item in targets.items()
        if target not in present or not _is_of(item, out / target, link, alignment, other_source)
    ]  # fmt: skip
    rewritten = set(missing) & present
    bad = _in_threads(missing, lambda target: _produce(targets[target], out / target, link, alignment), "writing")
    for target, reason in bad.items():
        plan.skipped.add(reason, targets[target].name)
    unlisted = [
        view for view, target in views.items() if (view not in present or target in rewritten) and target not in bad
    ]
    _in_threads(unlisted, lambda view: _view(out / views[view], out / view), "listing")
    return [item for target, item in targets.items() if target not in bad]


def names_in(items: Iterable[Item]) -> dict[Item, str]:
    """Where every image lies in the canonical tree."""
    items = list(items)
    flat = flat_names(items)
    return {item: _target(item, flat) for item in items}


def flat_names(items: Iterable[Item]) -> dict[Item, str]:
    """Names of the train images in one folder: their own, with the class in front where two would collide."""
    train = [item for item in items if item.split == "train"]
    times = Counter(item.name for item in train)
    wanted = [item.name if times[item.name] == 1 else f"{item.label or 'none'}_{item.name}" for item in train]
    return dict(zip(train, distinct([(None, name) for name in wanted], [""] * len(wanted))))


def _target(item: Item, flat: dict[Item, str]) -> str:
    return f"{UNLABELLED}/{flat[item]}" if item.label is None else f"{item.split}/{item.label}/{item.name}"


def _labelled_train(targets: dict[str, Item], flat: dict[Item, str]) -> Iterator[tuple[str, str]]:
    for target, item in targets.items():
        if item.split == "train" and item.label is not None:
            yield target, flat[item]


def _refuse_strangers(out: Path, strangers: set[str]) -> None:
    if strangers:
        raise UserError(
            f"{out} holds {len(strangers)} files that are not of this preparation (first: {min(strangers)}): "
            "remove them or choose another --out"
        )


def _present(out: Path) -> set[str]:
    """The files below the folders that are written here, relative to `out`; hidden ones are unfinished.

    What file servers and systems put there (thumbnails, Thumbs.db) is nobody's.
    """
    found: set[str] = set()
    for top in (*SPLITS, UNLABELLED):
        for directory, folders, names in os.walk(out / top):
            folders[:] = [name for name in folders if not is_service(name)]
            prefix = Path(directory).relative_to(out).as_posix()
            found.update(f"{prefix}/{name}" for name in names if not is_service(name))
    return found


def _in_threads(names: list[str], act: Callable[[str], None], verb: str) -> dict[str, str]:
    """Applies `act` to all names; returns those whose image could not be read, with the reason."""
    progress, bad = Progress(len(names), verb), {}

    def run(start: int) -> dict[str, str]:
        return {name: reason for name in names[start : start + CHUNK] if (reason := _attempt(act, name))}

    starts = range(0, len(names), CHUNK)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for start, reasons in zip(starts, pool.map(run, starts)):
            bad.update(reasons)
            progress.update(min(start + CHUNK, len(names)))
    except OSError as error:
        if error.errno in FULL:
            raise UserError("the disk is full: free some space and give the same command again, it goes on") from None
        place = error.filename2 or error.filename or "a file"
        raise UserError(
            f"{place} cannot be written: {error.strerror}; mend that, and the same command goes on"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
    return bad


def _attempt(act: Callable[[str], None], name: str) -> str:
    """Why the image could not be read, or ''. Failures to write are the caller's."""
    try:
        act(name)
    except BadImage as error:
        return f"image not usable: {error}"
    except Unreadable as error:
        return f"image not readable: {error}"
    return ""


def _is_decoded(item: Item, target: Path, alignment: Alignment | None) -> bool:
    """Whether an image is written anew; otherwise the file is the source's."""
    suffix = os.path.splitext(item.path or "")[1].lower()
    return bool(alignment or item.box or item.pixels or suffix != target.suffix.lower())


def _is_of(item: Item, target: Path, link: str, alignment: Alignment | None, other_source: bool) -> bool:
    """Whether what is there is what would be written, as far as the files tell without being read."""
    try:
        source, there = os.stat(item.path) if item.path else None, os.stat(target)
    except OSError:  # the source's is gone: what is there stays
        return True
    newer = source is not None and source.st_mtime_ns > there.st_mtime_ns
    if source is None or _is_decoded(item, target, alignment):
        return not other_source and not newer
    shared = os.path.samestat(source, there)
    return shared if link == "hard" else not (shared or newer or source.st_size != there.st_size)


def _produce(item: Item, target: Path, link: str, alignment: Alignment | None) -> None:
    with _reading():
        data = aligned_file(item, target.suffix, alignment) if alignment else None
        if data is None and _is_decoded(item, target, None):
            data = encoded(item)
    if data is not None:
        _replace(target, data)
    elif link == "hard":
        _link(str(item.path), target)
    else:
        _copy(str(item.path), target)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileNotFoundError) as error:
        raise Unreadable(error.strerror) from None


def _link(path: str, target: Path) -> None:
    with _reading():
        os.stat(path)
    try:
        _link_over(os.path.realpath(path), target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        raise UserError(f"cannot hard-link {path} to {target} ({error.strerror}): use --link copy") from None


def _link_over(path: str | Path, target: Path) -> None:
    """A link in place of whatever was there."""
    with _replacing(target) as part:
        part.unlink(missing_ok=True)
        os.link(path, part)


def _copy(path: str | Path, target: Path) -> None:
    with _reading():
        source = open(path, "rb")  # noqa: SIM115
    with source, _replacing(target) as part, part.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _view(path: Path, target: Path) -> None:
    """Links within `out`; copies on file systems without links."""
    try:
        _link_over(path, target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        _copy(path, target)


def _replace(target: Path, data: bytes) -> None:
    with _replacing(target) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A hidden file beside `target` that takes its place when all went well."""
    # Not the name and more: that may be as long as the file system allows.
    part = target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.part")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)  # also where a link replaced one to the same file, which leaves both
