"""Who may write into a run's folder: RUN/lock.json, a lease that its holder renews.

It is a file and no flock, because the folder may lie on a network file system and the two runs on two hosts. A holder
that is gone leaves it behind. On the same machine that is seen by its process number; from another one by a count in
the file that no longer rises, watched by the own clock, because clocks of two hosts differ.
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simfle_jax.data.read_back import parse_json
from simfle_jax.errors import UserError

BEAT = 5.0  # seconds between two renewals
STALE = 60.0  # seconds without one after which a holder elsewhere counts as gone; file systems may show one late
COUNT_DIGITS = 12
NAME = "lock.json"
WINDOWS = os.name == "nt"


class Lock:
    """The right to write into `folder`; `with Lock(folder).acquire():` gives it back at the end.

    `instead`: the flag that names another place, for messages.
    """

    def __init__(self, folder: Path, beat: float = BEAT, stale: float = STALE, instead: str = "--workdir"):
        self.path, self.beat, self.stale, self.instead = folder / NAME, beat, stale, instead
        self.place = str(folder)
        self.me = {
            "id": uuid.uuid4().hex,
            "host": platform.node(),
            "machine": machine(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "command": " ".join(sys.argv)[:200],
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def acquire(self) -> "Lock":
        """Takes the lock, after a wait where a holder on another machine may be gone.

        Raises:
            UserError: somebody else holds it (who, and since when), or the folder cannot be written.
        """
        try:
            self._prepare()
            while not self._create():
                self._take_over_from(self._holder())
        except OSError as error:
            raise UserError(
                f"{self.place} cannot be written: {error.strerror}; mend that, or give another {self.instead}"
            ) from None
        self._renewing.start()
        return self

    def release(self) -> None:
        """Gives the lock back, unless somebody has taken it over."""
        self._ended.set()
        self._renewing.join()  # it must not make the file anew
        self._give_back()

    def verify(self) -> None:
        """Raises UserError if somebody has taken the lock over, e.g. while this process was suspended."""
        holder = self._holder()
        if holder and holder.get("id") != self.me["id"]:
            raise UserError(
                f"{self.place} was taken over by {_named(holder)} while this process stood still; it stops, and "
                "the other one goes on"
            )

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _text(self, count: int) -> str:
        """Always of the same length, because it is written over itself."""
        return json.dumps(self.me | {"count": f"{count:0{COUNT_DIGITS}d}"}, indent=2) + "\n"

    def _prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def _give_back(self) -> None:
        with contextlib.suppress(OSError):
            if self._holder().get("id") == self.me["id"]:
                self.path.unlink()

    def _create(self) -> bool:
        """Whether the file could be made; of several that try only one can."""
        with self._temporary(self._text(0)) as temporary:
            try:
                os.link(temporary, self.path)
            except FileExistsError:  # a network file system says so too when its answer to the first try was lost
                return temporary.stat().st_nlink == 2
            except OSError:  # no hard links here
                return self._create_exclusively()
            return True

    def _create_exclusively(self) -> bool:
        try:
            with self.path.open("x") as file:
                file.write(self._text(0))
        except FileExistsError:
            return False
        return True

    @contextlib.contextmanager
    def _temporary(self, text: str) -> Iterator[Path]:
        path = self.path.with_name(f".{NAME}.{self.me['id']}")
        try:
            path.write_text(text)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _holder(self) -> dict[str, Any]:
        """What the file says; {} where it is half written, gone, or cannot be read just now."""
        try:
            found = parse_json(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _take_over_from(self, holder: dict[str, Any]) -> None:
        """Moves the file of a holder that is gone out of the way; raises UserError if it lives."""
        if not self._is_there():
            return
        here = holder.get("machine") == self.me["machine"]
        lives = alive(holder.get("pid"), holder.get("started")) if here else None
        if lives:
            raise self._refusal(holder)
        if lives is None:
            self._watch(holder)
        self._remove(holder)

    def _watch(self, holder: dict[str, Any]) -> None:
        """Returns when the lock has not been renewed for so long that its holder is gone."""
        print(
            f"{self.place} is held by {_named(holder)}; waiting up to {self.stale:g} s to see whether it lives",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        end = time.monotonic() + self.stale
        while time.monotonic() < end:
            time.sleep(self.beat / 5)
            now = self._holder()
            if now != holder and now:
                raise self._refusal(now)
            if not self._is_there():
                return

    def _is_there(self) -> bool:
        return self.path.exists()

    def _remove(self, holder: dict[str, Any]) -> None:
        """Renames the lock away, and puts it back if it is not that holder's any more: another one was faster."""
        aside = self.path.with_name(f".{NAME}.{self.me['id']}.old")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            try:
                found = parse_json(aside.read_text() or "{}")
            except ValueError:
                found = {}
            if found.get("id") != holder.get("id"):
                with contextlib.suppress(OSError):
                    os.link(aside, self.path)
            aside.unlink()

    def _refusal(self, holder: dict[str, Any]) -> UserError:
        return UserError(
            f"{self.place} is in use by {_named(holder)}: wait until that ends, stop it, or give another {self.instead}"
        )

    def _renew(self) -> None:
        """Writes a higher count into the file itself: a new file would be seen late on a network file system."""
        count = 0
        while not self._ended.wait(self.beat):
            count += 1
            with contextlib.suppress(OSError):  # what cannot be written now may be written at the next beat
                self._write_count(count)

    def _write_count(self, count: int) -> None:
        if not self.path.exists():  # somebody removed it by hand
            self._create()
        elif self._holder().get("id") == self.me["id"]:
            with self.path.open("r+") as file:
                file.write(self._text(count))
                file.flush()
                os.fsync(file.fileno())


def _named(holder: dict[str, Any]) -> str:
    if not holder:
        return "a process that did not say its name"
    return f"process {holder.get('pid')} on {holder.get('host')} ({holder.get('command')}) since {holder.get('since')}"


def machine() -> str:
    """What distinguishes this machine, since it was started, and this container from others: its process numbers count."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def process_start(pid: int) -> str | None:
    """When a process began, in ticks since the machine did or as `ps` says; '' if it is dead but not buried.

    None where nothing tells.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _by_ps(pid)
    return "" if state in "ZX" else fields[18]


def _by_ps(pid: int) -> str | None:
    """The same where there is no /proc, as on macOS."""
    try:
        asked = ["ps", "-o", "state=,lstart=", "-p", str(pid)]
        plain = os.environ | {"TZ": "UTC", "LC_ALL": "C"}  # it tells the time as the shell of its caller does
        state, _, began = (
            subprocess.run(asked, env=plain, capture_output=True, text=True, timeout=10).stdout.strip().partition(" ")
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return "" if state.startswith("Z") else began.strip() or None


def alive(pid: Any, started: Any) -> bool | None:
    """Whether that process of this machine still runs; its number may have been given to another one since.

    None: this system does not tell.
    """
    if not isinstance(pid, int) or not 0 < pid < 2**31:
        return False
    if WINDOWS:  # where os.kill would end it
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # that of another user
        pass
    now = process_start(pid)
    return None if now is None or started is None else now == started
