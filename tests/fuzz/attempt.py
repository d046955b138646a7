"""One damaged input, read under watch: what it did, and whether that is allowed."""

import contextlib
import io
import os
import resource
import shutil
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from kinds import KINDS, sound
from mutate import mutated

from simfle_jax.data.files import BadImage
from simfle_jax.errors import UserError

MEMORY = 2 << 30  # bytes beside those of the interpreter and its libraries
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
PROGRAMS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen"}


class Outcome(NamedTuple):
    """'sound' (it was used), 'refused' (in one line), or 'fault' with what went wrong."""

    told: str
    text: str = ""


class Watch:
    """Notes what Python does beyond a folder while it is armed; a hook of the interpreter, which stays for good."""

    def __init__(self, folder: Path):
        self.folder, self.armed = f"{folder.resolve()}/", False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple) -> None:
        if not self.armed:
            return
        if event in PROGRAMS:
            self.seen.append(f"{event} {args[:2]}")
        elif (event == "open" and args[2] & WRITES) or event in CHANGES:
            paths = args[:2] if event in ("os.rename", "os.link") else args[:1]
            self.seen += [f"{event} {path}" for path in paths if self._is_outside(path)]

    def _is_outside(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike) or os.fspath(path) in (os.devnull, b"/dev/null"):
            return False  # a descriptor was opened before
        return not os.path.abspath(os.fsdecode(path)).startswith(self.folder)


class Bench:
    """Tries inputs in a folder of its own, reproducibly: an input is what (seed, kind, number) make it."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.sound = {}
        for name, kind in KINDS.items():
            with contextlib.redirect_stderr(io.StringIO()):
                self.sound[name] = sound(kind, folder / "sound")
        self.watch = Watch(folder)
        for name, files in self.sound.items():
            inputs = [{path: content} for path, content in files.items()] if KINDS[name].alone else [files]
            outcomes = [self.give(name, one) for one in inputs]
            told = {outcome.told for outcome in outcomes}
            assert "sound" in told and "fault" not in told, f"{name} before any damage: {outcomes}"

    def limit_memory(self) -> None:
        """Makes this process fail where it wants more than MEMORY beside what it has now."""
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))

    def attempt(self, name: str, number: int) -> Outcome:
        """Makes input `number` of a kind, and has it read."""
        return self.give(name, self._damaged(name, number))

    def give(self, name: str, files: dict[str, bytes]) -> Outcome:
        """Has files of a kind read."""
        shutil.rmtree(self.folder / "box", ignore_errors=True)
        box, kept = self.folder / "box" / "in", KINDS[name].kept
        for path, content in files.items():
            (box / path).parent.mkdir(parents=True, exist_ok=True)
            (box / path).write_bytes(content)
        outcome = self._watched(name, box, self.folder / "box" / "out")
        before = Counter(content for path, content in files.items() if kept == "**/*" or _below(path, kept))
        after = Counter(path.read_bytes() for path in box.rglob("*") if path.is_file())
        return Outcome("fault", "a file was lost or changed") if before - after else outcome

    def _damaged(self, name: str, number: int) -> dict[str, bytes]:
        """The files of an input: one is damaged, or, seldom, not there."""
        kind, rng = KINDS[name], np.random.default_rng([self.seed, list(KINDS).index(name), number])
        files = self.sound[name]
        chosen = rng.choice(
            [path for path in files if Path("/x", path).match(kind.damaged) or _below(path, kind.damaged)]
        )
        files = {chosen: files[chosen]} if kind.alone else dict(files)
        if not kind.alone and rng.random() < 0.03:
            del files[chosen]
        else:
            files[chosen] = mutated(files[chosen], rng)
        return files

    def _watched(self, name: str, box: Path, out: Path) -> Outcome:
        self.watch.seen.clear()
        self.watch.armed = True
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                KINDS[name].use(box, out)
            outcome = Outcome("sound")
        except (BadImage, UserError) as error:
            outcome = Outcome("refused", str(error)) if str(error) else Outcome("fault", "refused without a word")
        except OSError as error:  # `commands/ending.py` makes a line of it
            outcome = Outcome("refused", f"{error.filename}: {error.strerror}")
        except BaseException as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "simfle_jax" in f.filename] or [None]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames[-1] else "elsewhere"
            outcome = Outcome("fault", f"{where} {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        finally:
            self.watch.armed = False
        return Outcome("fault", f"beyond its folder: {self.watch.seen[0]}") if self.watch.seen else outcome


def _below(path: str, pattern: str) -> bool:
    return pattern.endswith("**/*") and path.startswith(pattern[: -len("**/*")])
