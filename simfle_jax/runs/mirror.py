"""The folder of a run or a probe that lies in a bucket: its files on this machine, and how they get there.

The program works in a folder of this machine as it always does. What it wrote there is copied to the bucket in the order
in which it was written, now and then and at every checkpoint. In the bucket lie

    config.json, metrics.jsonl, encoder.safetensors ...    as in a folder
    checkpoints/STEP.json                                  written last: the files of a checkpoint, their sizes and SHA-256
    checkpoints/STEP-XXXXXXXX/...                          those files, as Orbax reads them

A checkpoint without its STEP.json is none. The bucket alone counts: a start takes everything from there.
"""

import contextlib
import hashlib
import json
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import logging

from simfle_jax.errors import UserError
from simfle_jax.host import scratch
from simfle_jax.runs.lock import NAME as LOCK
from simfle_jax.storage import Bucket, NoAccess, Unreachable, is_bucket, safe_below

EVERY = 30.0  # seconds between two copies of what changed
THREADS = 8
MANIFEST = re.compile(r"checkpoints/(\d+)\.json")
OURS = ("config.json", "encoder.safetensors", "probe.safetensors")  # one of them is in every folder of ours
KEPT = (*OURS, "environment.json", "metrics.jsonl")  # the program never removes these
LISTS = re.compile(r"(^|/)bad_images\w*\.txt$")
REWRITTEN = ("encoder.safetensors",)  # of a run that trains: it is not read, and large


class LostCopy(UserError):
    """Files of a run were removed from the folder on this machine in which it works."""


class Mirror:
    """One folder in a bucket and its files on this machine, in `folder`.

    writes: False in the processes of a run that only read.
    """

    def __init__(self, location: str, folder: Path, writes: bool = True):
        self.bucket, self.folder, self.writes = Bucket(location), folder, writes
        self.location = self.bucket.location
        self._sent: dict[str, tuple[int, int]] = {}
        self._pushing = threading.Lock()
        self._ended = threading.Event()
        self._problem: NoAccess | LostCopy | None = None
        self.steps: list[int] = []
        self.left: tuple[str, ...] = ()
        self._unlisted: list[str] = []  # folders of checkpoints that are to be removed after the next good one

    # ---------------------------------------------------------------- small files

    def fetch(self, leave: tuple[str, ...] = ()) -> None:
        """Brings the files that are there, without checkpoints and those to `leave`.

        Raises:
            UserError: the location is an object, or holds something else than a run or a probe.
        """
        self.bucket.require_folder()
        names = [name for name in self.bucket.names() if name != LOCK]
        if names and not set(names) & set(OURS):
            raise UserError(f"{self.location} holds something else than a run or a probe: give another folder")
        self.steps = sorted((int(found[1]) for found in map(MANIFEST.fullmatch, names) if found), reverse=True)
        wanted = [name for name in names if not name.startswith("checkpoints/") and name not in leave]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._bring, wanted))

    def fetch_one(self, name: str) -> bool:
        """Brings one file; whether it is there."""
        return self._bring(name)

    def _bring(self, name: str) -> bool:
        data, path = self.bucket.read(name), safe_below(self.folder, name)
        if data is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self._sent[name] = _stamp(path)
        return data is not None

    def push(self) -> None:
        """Copies what changed to the bucket, in the order in which it was written; removes lists that were removed.

        Raises:
            LostCopy: somebody removed files here. Nothing is copied then: what the run begins anew would replace them.
        """
        with self._pushing:
            files = {path.relative_to(self.folder).as_posix(): path for path in _files(self.folder)}
            gone = (name for name in self._sent.keys() - files.keys() if name in KEPT)
            if lost := sorted(name for name in gone if not (self.folder / name).exists()):  # not only being replaced
                raise LostCopy(
                    f"{lost[0]} of {self.location} was removed from {self.folder} on this machine, by something that "
                    "cleans folders: let SIMFLE_CACHE_DIR be one that stays, and the same command goes on"
                )
            for name, path in sorted(files.items(), key=lambda item: item[1].stat().st_mtime_ns):
                if self._sent.get(name) != (stamp := _stamp(path)):
                    self.bucket.write(name, path.read_bytes())
                    self._sent[name] = stamp
            for name in self._sent.keys() - files.keys():
                if LISTS.search(name):  # the program removes no other file, and a bucket keeps what others remove
                    self.bucket.remove(name)
                del self._sent[name]

    def keep_pushing(self) -> None:
        """Copies now and then, in a thread of its own, until `end`."""

        def work() -> None:
            while not self._ended.wait(EVERY):
                try:
                    self.push()
                except (NoAccess, LostCopy) as error:
                    self._problem = error
                except (UserError, OSError) as error:  # OSError: a file was removed meanwhile
                    logging.warning("%s", error)

        threading.Thread(target=work, daemon=True).start()

    def end(self) -> None:
        """Stops copying by itself."""
        self._ended.set()

    def check(self) -> None:
        """Raises the NoAccess or LostCopy for which the last copy was not made."""
        if self._problem:
            raise self._problem

    # ---------------------------------------------------------------- checkpoints

    def push_checkpoint(self, step: int, keep: int) -> None:
        """Copies checkpoints/STEP, its list of files last, and removes the oldest beyond `keep`."""
        folder, place = self.folder / "checkpoints" / str(step), f"{step}-{secrets.token_hex(4)}"
        self._unlisted.append(place)
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

        def send(name: str) -> dict[str, Any]:
            data = files[name].read_bytes()
            self.bucket.write(f"checkpoints/{place}/{name}", data)
            return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        with ThreadPoolExecutor(THREADS) as pool:
            described = dict(zip(files, pool.map(send, files)))
        manifest = {"folder": place, "files": described}
        self.bucket.write(f"checkpoints/{step}.json", json.dumps(manifest, indent=1).encode())
        self._unlisted.remove(place)
        self.steps = sorted({step, *self.steps}, reverse=True)
        for old in self.steps[keep:]:
            self._remove_checkpoint(old)
        self.steps = self.steps[:keep]
        for remains in self._unlisted[:]:
            self._empty(remains)

    def remove_remains(self) -> None:
        """Removes what no list names: checkpoints that a killed run was copying, or removing. Only who holds the lock may."""
        names = self.bucket.names("checkpoints/")
        # Whatever stands beside the folders may be a list, also one that somebody has renamed.
        listed = {self._list(name).get("folder") for name in names if name.count("/") == 1}
        if None not in listed:  # what cannot be read may name any of them
            found = (re.match(r"checkpoints/(\d+-[0-9a-f]{8})/", name) for name in names)
            for place in {each[1] for each in found if each} - listed:
                self._empty(place)

    def _empty(self, place: str) -> None:
        """Removes the files of a checkpoint that no list names any more."""
        for name in self.bucket.names(f"checkpoints/{place}/"):
            self.bucket.remove(name)
        if place in self._unlisted:
            self._unlisted.remove(place)

    def _remove_checkpoint(self, step: int) -> None:
        manifest = self._manifest(step)
        self.bucket.remove(f"checkpoints/{step}.json")
        if manifest:
            self._unlisted.append(manifest["folder"])

    def fetch_checkpoint(self, step: int) -> str:
        """Brings a checkpoint to checkpoints/STEP; what is damaged in it, or ''."""
        manifest, folder = self._manifest(step), self.folder / "checkpoints" / str(step)
        if not manifest:
            return f"its list {step}.json cannot be read"
        shutil.rmtree(folder, ignore_errors=True)

        def bring(name: str) -> str:
            data = self.bucket.read(f"checkpoints/{manifest['folder']}/{name}")
            if data is None:
                return f"it has no {name}"
            if hashlib.sha256(data).hexdigest() != manifest["files"][name]["sha256"]:
                return f"{name} is not what was written"
            path = safe_below(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            return ""

        with ThreadPoolExecutor(THREADS) as pool:
            problem = next(filter(None, pool.map(bring, manifest["files"])), "")
        if problem:
            shutil.rmtree(folder, ignore_errors=True)
        return problem

    def set_aside(self, step: int) -> None:
        """Gives a damaged checkpoint another name, so that somebody can look at it and the step be saved again."""
        data, aside = self.bucket.read(f"checkpoints/{step}.json"), f"checkpoints/damaged-{step}.json"
        self.bucket.write(aside, data or b"{}")
        self.bucket.remove(f"checkpoints/{step}.json")
        self.steps.remove(step)
        logging.warning("the damaged checkpoint is kept as %s/%s; remove it when it is of no use", self.location, aside)

    def _manifest(self, step: int) -> dict[str, Any]:
        return self._list(f"checkpoints/{step}.json")

    def _list(self, name: str) -> dict[str, Any]:
        """What a list of a checkpoint's files holds; nothing where it cannot be read."""
        try:
            found = json.loads(self.bucket.read(name) or b"")
            return found if {"folder", "files"} <= found.keys() else {}
        except (ValueError, AttributeError):
            return {}


_mirrors: dict[Path, Mirror] = {}  # of this process, by their folder


def mirror_of(folder: Path) -> Mirror | None:
    """What copies a folder of this machine to a bucket; None: it is no such folder."""
    return _mirrors.get(folder)


def brought(folder: Path, name: str) -> Path:
    """A file of a folder; of one that stands for a bucket it is copied from there where it was left."""
    path, mirror = folder / name, mirror_of(folder)
    if mirror and not path.exists():
        mirror.fetch_one(name)
    return path


@contextlib.contextmanager
def opened(workdir: str, writes: bool = True, leave: tuple[str, ...] = ()) -> Iterator[Path]:
    """A run's or probe's folder on this machine, whether `workdir` names it or one in a bucket.

    At a good end what changed is copied to the bucket. Errors name the bucket. `leave`: files that are not brought.
    """
    if not is_bucket(workdir):
        yield Path(workdir)
        return
    with scratch(workdir) as folder, named_by(folder, workdir):
        mirror = Mirror(workdir, folder, writes)
        mirror.left = leave
        mirror.fetch(leave)
        _mirrors[folder] = mirror
        if writes:
            mirror.keep_pushing()
        try:
            yield folder
            if writes:
                mirror.push()
        finally:
            mirror.end()
            del _mirrors[folder]


_named: dict[str, str] = {}  # folders of this machine, and what they are the copies of


@contextlib.contextmanager
def named_by(folder: Path, location: str) -> Iterator[None]:
    """What is told of a folder of this machine names what it is the copy of: errors, and what `named` is asked for."""
    _named[str(folder)] = location.rstrip("/")
    try:
        yield
    except (NoAccess, Unreachable, LostCopy):
        raise
    except UserError as error:
        raise type(error)(named(str(error))) from None
    finally:
        del _named[str(folder)]


def named(text: str) -> str:
    """A text in which copies on this machine are called by what they are the copies of."""
    for folder, location in _named.items():
        text = text.replace(folder, location)
    return text


def shown(folder: Path) -> str:
    """The location of a folder as its user gave it."""
    return named(str(folder))


def _files(folder: Path) -> list[Path]:
    """What is copied: no checkpoints, and no temporary files."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if not path.name.startswith(".")
            and "checkpoints" not in path.relative_to(folder).parts]  # fmt: skip


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
