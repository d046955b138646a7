"""One line that says how far a long job is and when it will be done."""

from __future__ import annotations

import sys
import threading
import time


class Progress:
    """Counts steps from any thread and rewrites a line on standard error (a new line each 10 s where it is a file)."""

    def __init__(self, total: int, verb: str) -> None:
        self.total, self.verb, self.done = total, verb, 0
        self._lock = threading.Lock()
        self._start = self._last = time.monotonic()
        self._live = sys.stderr.isatty()
        self._shown = False

    def step(self, count: int = 1) -> None:
        with self._lock:
            self.done += count
            now = time.monotonic()
            if now - self._last >= (0.5 if self._live else 10):
                self._last = now
                self._show(self.line(now - self._start, time.time()))

    def line(self, seconds: float, clock: float) -> str:
        """The line after `seconds` of work, at the clock time `clock` (seconds since 1970)."""
        left = seconds / max(self.done, 1) * (self.total - self.done)
        end = time.strftime("%H:%M:%S" if left < 12 * 3600 else "%d %b %H:%M", time.localtime(clock + left))
        share = 100 * self.done / max(self.total, 1)
        return f"{self.verb} {self.done:,} of {self.total:,} ({share:.0f} %), done at {end}"

    def close(self) -> None:
        if self._shown and self._live:
            sys.stderr.write("\r\033[K")

    def _show(self, line: str) -> None:
        self._shown = True
        sys.stderr.write(f"\r\033[K{line}" if self._live else line + "\n")
        sys.stderr.flush()
