"""Which files are images, which folders are none of the user's, and how a file is read."""

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import TypeVar

from absl import logging

from simfle_jax.errors import UserError

T = TypeVar("T")

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
# What file servers, systems and archives put beside the data, in small letters: thumbnails and deleted files are
# copies of images and would count twice. Names with a dot in front are passed over as well.
SERVICE = {
    b"@eadir", b"@tmp", b"@recycle", b"@recently-snapshot", b"@__thumb", b"#recycle", b"#snapshot", b"$recycle.bin",
    b"system volume information", b"__macosx", b"lost+found", b"thumbs.db", b"desktop.ini", b"__pycache__",
}  # fmt: skip
PAUSES = (0.2, 1.0, 5.0)  # seconds between the tries of a read that fails


class BadImage(Exception):
    """An image that cannot be used; the message is the reason in a few words."""


def is_service(name: str | bytes) -> bool:
    """Whether a file or folder of this name is hidden or a system's own: it is neither an image nor a class."""
    raw = os.fsencode(name)
    return raw.startswith(b".") or raw.lower() in SERVICE


def is_image(name: str | bytes, extensions: tuple[str, ...] = EXTENSIONS) -> bool:
    """Whether a file of this name is taken for an image; only a regular file is one."""
    return os.fsdecode(name).lower().endswith(extensions) and not is_service(name)


def read_file(path: str) -> bytes:
    """The whole file, in half the system calls of open().read(): these count when files are small and many.

    Raises:
        BadImage: it is no regular file but a pipe, a socket, a device or a folder.
        OSError: it cannot be read.
    """
    # A pipe without a writer must not be waited for: O_NONBLOCK changes nothing for a file. Windows has other flags.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise BadImage("not a regular file") from None
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not a regular file")
        data = os.read(file, status.st_size)
        while len(data) < status.st_size and (more := os.read(file, status.st_size - len(data))):
            data += more
    finally:
        os.close(file)
    return data


def patiently(read: Callable[[], T], failure: str, wait: Callable[[float], object] = time.sleep) -> T:
    """The result of `read`, tried again after growing pauses while it raises OSError.

    A file server that is away for a moment must neither stop a run nor change its batches: what could not be read is
    not therefore a bad image.

    Args:
        read: what to try.
        failure: begins the message, as in 'DIR/a.jpg cannot be read'.
        wait: called with each pause, in seconds.

    Raises:
        UserError: it failed every time, or in a way that waiting does not mend.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except OSError as error:
            reason = "it was there when the folder was listed" if _is_gone(error) else error.strerror or str(error)
            if pause is None or _is_gone(error) or isinstance(error, PermissionError):
                raise UserError(f"{failure}: {reason}; mend that, and the same command goes on") from None
            logging.warning("%s: %s; trying again in %g s", failure, reason, pause)
        wait(pause)
    raise AssertionError("the last try returns or raises")


def _is_gone(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError | NotADirectoryError)


def record_error(error: Exception, what: str) -> BadImage | OSError:
    """What a failed read of a record means: its content is damaged for good, or it could not be read this time."""
    text = " ".join(str(error).split())[:160]
    damaged = "orrupt" in text or "mismatch" in text
    return BadImage(f"damaged {what}: {text}") if damaged else OSError(f"{what}: {text}")
