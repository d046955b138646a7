"""One live line for long work: how far, how fast, and when it ends."""

import sys
import time
from typing import TextIO


class Progress:
    """Prints `label 120/4000 3% loss 5.21 340 images/s, ends 14:32 (in 3 min)`.

    On a terminal one line is written over and over; elsewhere a plain line appears now and then, so that a log stays
    short. The end time assumes that what is left goes at the mean pace of what this process has done.
    """

    def __init__(self, total: int, label: str, start: int = 0, stream: TextIO | None = None, every: float = 15.0):
        self.total, self.label, self.start = total, label, start
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.every = 0.2 if self.live else every
        self.began = time.monotonic()
        self.shown = 0.0 if self.live else time.monotonic()

    def update(self, done: int, **fields: float | str) -> None:
        """Tells that `done` of the total are done; shows it if the last line is old enough or all is done."""
        now = time.monotonic()
        if now - self.shown < self.every and done < self.total:
            return
        self.shown = now
        line = self.line(done, now, fields)
        self.stream.write(f"\r\x1b[2K{line}" if self.live else line + "\n")
        if self.live and done >= self.total:
            self.stream.write("\n")
        self.stream.flush()

    def line(self, done: int, now: float, fields: dict[str, float | str]) -> str:
        """The text for this moment."""
        shown = "".join(f" {name.replace('_', ' ')} {_short(value)}" for name, value in fields.items())
        fresh = done - self.start
        if not fresh or done >= self.total:
            return (
                f"{self.label} {done}/{self.total} {100 * done // self.total}%{shown}, {_span(now - self.began)} so far"
            )
        left = (self.total - done) * (now - self.began) / fresh
        end = time.strftime("%H:%M", time.localtime(time.time() + left))
        return f"{self.label} {done}/{self.total} {100 * done // self.total}%{shown}, ends {end} (in {_span(left)})"


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
