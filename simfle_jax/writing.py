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
    """Writes whole or not at all, keys sorted."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes whole or not at all; text as UTF-8."""
    with writing_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when all went well, and is removed otherwise.

    Each process has its own, so that two may write the same file; it ends in the same suffix, which some libraries add.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())  # a power cut may otherwise leave the new name with nothing in it
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_output(path: Path) -> Iterator[Path]:
    """`writing_whole` for a file that the user asked for: makes its folder.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_whole(path) as temporary:
            yield temporary
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; give another place") from None


@contextlib.contextmanager
def or_warn(what: str) -> Iterator[None]:
    """A full disk costs this file and not the run: it is told, and the next one is tried again."""
    try:
        yield
    except (OSError, UserError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        logging.warning("%s could not be written (%s); training goes on", what, reason)
