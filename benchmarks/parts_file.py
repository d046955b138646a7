"""Results that are on the disk as soon as they are known: what a benchmark leaves when it is cut."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class PartsFile:
    """A JSON object in a file that is written anew whenever something is added; `complete` says that all is in it.

    What an earlier try left there stays until it is known anew. Without a file it is only shown.
    """

    def __init__(self, path: Path | None, **known: Any):
        self.path, self.began = path, time.monotonic()
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        earlier = json.loads(path.read_text()) if path and path.exists() else {}
        self.found = earlier | known | {"complete": False}
        self.add()

    def add(self, **found: Any) -> None:
        """Writes what is new, and shows it."""
        self.found |= found
        if self.path:
            temporary = self.path.with_name(f".{self.path.name}")
            temporary.write_text(json.dumps(self.found, indent=1) + "\n")
            os.replace(temporary, self.path)
        for name, value in found.items():
            print(f"{time.monotonic() - self.began:6.1f} s  {name}: {_short(value)}", file=sys.stderr, flush=True)


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) < 200 else f"... {text[-200:]}"
