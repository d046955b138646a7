"""Files that are written whole or not at all, and a disk that is full."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from simfle_jax.errors import UserError


def write_json(path: Path, content: Any) -> None:
    """Writes whole or not at all."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes whole or not at all."""
    with writing_whole(path) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when all went well, and is removed otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())  # a power cut may otherwise leave the new name with nothing in it
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def or_warn(what: str) -> Iterator[None]:
    """A full disk costs this file and not the run: it is told, and the next one is tried again."""
    try:
        yield
    except (OSError, UserError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        logging.warning("%s could not be written (%s); training goes on", what, reason)
