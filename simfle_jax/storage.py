"""Where data and runs may lie beside a disk: in a bucket, named gs://BUCKET/PREFIX or s3://BUCKET/PREFIX.

This is the one place that talks to buckets, through TensorStore, which Orbax brings: it finds credentials as gcloud and the
AWS programs do. An object is written once and whole; nothing is ever renamed. Everything else in the program sees local
files: what is read is copied to this machine first (`data.packs`), what is written is copied from it (`runs.mirror`).
"""

import argparse
import functools
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from absl import logging

from simfle_jax.errors import UserError

T = TypeVar("T")

PATIENCE = 180.0  # seconds that one request is tried again for; a bucket may be away for a minute
PIECE = 16 * 2**20  # bytes read by one request
TIMEOUT = 120.0  # seconds for one request
KINDS = {"gs": "gcs", "s3": "s3"}  # TensorStore's names
COPIES = {"gs": "gcloud storage cp -r", "s3": "aws s3 cp --recursive"}  # what copies from and to them
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters: Windows has C:/
DENIED = re.compile(
    r"PERMISSION_DENIED|UNAUTHENTICATED|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|"
    r"TokenRefreshRequired|response_code='40[13]'|[Cc]redentials"
)
NO_BUCKET = re.compile(r"NoSuchBucket|NOT_FOUND")
MISPLACED = re.compile(r"INVALID_ARGUMENT|PermanentRedirect|AuthorizationHeaderMalformed|response_code='30\d'")


class NoAccess(UserError):
    """The bucket is there and does not let us in: waiting does not mend that."""


class Unreachable(UserError):
    """The bucket did not answer for as long as we wait."""


class Content(NamedTuple):
    """An object as it was read: its bytes (None: there is no such object), and which version of it that was."""

    data: bytes | None
    version: bytes


def is_bucket(location: str | os.PathLike[str]) -> bool:
    """Whether a location is in a bucket; False: it is a path on this machine.

    Raises:
        UserError: it is of another scheme, or names a bucket wrongly, as in gs:/BUCKET.
    """
    text = os.fspath(location)
    found = SCHEME.match(text)
    if not found or isinstance(location, Path):
        return False
    kind = found[1]
    if kind not in KINDS:
        raise UserError(f"{text}: {kind}: is not known here; give a folder, gs://BUCKET/PREFIX or s3://BUCKET/PREFIX")
    if not re.match(r"\w+://[^/]", text):
        name = text.partition(":")[2].lstrip("/") or "BUCKET/PREFIX"
        raise UserError(f"{text} names no bucket: write it with two slashes, {kind}://{name}")
    return True


def refuse_bucket(location: str | os.PathLike[str], what: str, remedy: str = "") -> None:
    """Raises UserError where a location is in a bucket, which `what`, e.g. '--source', cannot be."""
    if is_bucket(location):
        copies = COPIES[os.fspath(location)[:2]]
        remedy = remedy or f"`{copies}` copies from a bucket, and what was made into one"
        raise UserError(f"{what} {location}: it must be on a disk of this machine; {remedy}")


def on_disk(text: str) -> Path:
    """What argparse makes of a path that may not lie in a bucket."""
    try:
        refuse_bucket(text, "")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).strip()) from None
    return Path(text)


def place(text: str) -> str:
    """What argparse makes of a path that may lie in a bucket; its name is checked."""
    try:
        is_bucket(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def safe_below(folder: Path, name: str) -> Path:
    """Where the copy of an object lies below a folder of this machine; raises UserError where its name leads elsewhere."""
    if any(part in ("", ".", "..") for part in name.split("/")) or os.path.isabs(name):
        raise UserError(f"an object is called {name!r}, which is no name of a file: rename it, or remove it")
    return folder / name


def joined(location: str, *names: str) -> str:
    """A location below another one."""
    return "/".join((location.rstrip("/"), *names)) if is_bucket(location) else os.path.join(location, *names)


class Bucket:
    """The objects below a location, by their names relative to it.

    Every request is tried again for PATIENCE seconds. All methods raise NoAccess, Unreachable, or UserError where there
    is no such bucket.
    """

    def __init__(self, location: str):
        kind, _, rest = location.partition("://")
        self.bucket, _, prefix = rest.partition("/")
        self.location = location.rstrip("/")
        self.prefix = prefix.strip("/")
        self._store = _opened(kind, self.bucket, f"{self.prefix}/" if self.prefix else "", _surroundings())

    def read(self, name: str) -> bytes | None:
        """The bytes of an object; None: there is none."""
        return self.look(name).data

    def look(self, name: str) -> Content:
        """The bytes of an object and its version."""
        found = self._ask(lambda: self._store.read(name), f"{name} cannot be read")
        return Content(found.value if found.state == "value" else None, found.stamp.generation)

    def piece(self, name: str, start: int, stop: int) -> Content:
        """The bytes `start` to `stop` of an object."""
        found = self._ask(lambda: self._store.read(name, byte_range=slice(start, stop)), f"{name} cannot be read")
        return Content(found.value if found.state == "value" else None, found.stamp.generation)

    def write(self, name: str, data: bytes) -> None:
        """Writes an object, whole or not at all, in place of what was there."""
        self._ask(lambda: self._store.write(name, data), f"{name} cannot be written")

    def write_if(self, name: str, data: bytes, version: bytes) -> bool:
        """Writes an object where `look` would still find that version; False: somebody else was faster."""
        done = self._ask(lambda: self._store.write(name, data, if_equal=version), f"{name} cannot be written")
        return bool(done.generation)

    def remove(self, name: str) -> None:
        """Removes an object; it need not be there."""
        self._ask(lambda: self._store.write(name, None), f"{name} cannot be removed")

    def remove_if(self, name: str, version: bytes) -> bool:
        """Removes an object where it still is that version."""
        done = self._ask(lambda: self._store.write(name, None, if_equal=version), f"{name} cannot be removed")
        return bool(done.generation)

    def names(self, below: str = "") -> list[str]:
        """The names of all objects that begin with `below`, sorted; without the empty ones by which consoles show folders."""
        import tensorstore as ts

        end = below[:-1] + chr(ord(below[-1]) + 1) if below else ""
        found = self._ask(lambda: self._store.list(ts.KvStore.KeyRange(below, end)), "it cannot be listed")
        return sorted(os.fsdecode(name) for name in found if name and not name.endswith(b"/"))

    def require_folder(self) -> None:
        """Raises UserError where there is no such bucket, or where an object has just this name."""
        self.names("lock.json")  # any request that is answered by a bucket alone
        if self.prefix and Bucket(self.location.rpartition("/")[0]).is_there(self.prefix.rpartition("/")[2]):
            raise UserError(f"{self.location} is an object and no folder: give another name")

    def is_there(self, name: str) -> bool:
        """Whether there is an object of just this name; its bytes are not read."""
        return name in self.names(name)

    def _ask(self, request: Callable[[], Any], failure: str) -> Any:
        return patiently(request, self.location, failure)


def patiently(request: Callable[[], Any], location: str, failure: str) -> Any:
    """The result of a request, which is made again after growing pauses for PATIENCE seconds.

    Raises:
        NoAccess, Unreachable: it failed for good, or for too long.
        UserError: there is no such bucket.
    """
    end, pause = time.monotonic() + PATIENCE, 0.5
    while True:
        try:
            return request().result(timeout=TIMEOUT)
        except (ValueError, TimeoutError, RuntimeError, OSError) as error:  # TensorStore raises ValueError for all
            reason = _reason(error, location)
            if time.monotonic() + pause > end:
                raise Unreachable(
                    f"{location}: {failure}: it has not answered for {PATIENCE:g} s ({reason}); "
                    "mend that, and the same command goes on"
                ) from None
        logging.warning("%s: %s: %s; trying again in %g s", location, failure, reason, pause)
        time.sleep(pause)
        pause = min(2 * pause, 15.0)


def _reason(error: Exception, location: str) -> str:
    """An error in a few words, where another try may help; raises where it does not."""
    text = " ".join(str(error).split())
    short = text.partition(" [")[0][:160] or type(error).__name__
    where = "://".join((location.partition("://")[0], location.partition("://")[2].partition("/")[0]))
    if "RequestTimeTooSkewed" in text:
        raise NoAccess(
            f"{location}: the clock of this machine is not that of {where}: set it, and the same command goes on"
        ) from None
    if DENIED.search(text):
        raise NoAccess(
            f"{location}: no permission ({short}): give credentials that may read and write {where}, as "
            "docs/scaling.md says, and the same command goes on"
        ) from None
    if NO_BUCKET.search(text):
        raise UserError(f"there is no bucket {where}: create it, or correct the name") from None
    if MISPLACED.search(text):
        raise UserError(f"{location} cannot be used ({short}): see the bucket's name, region and endpoint") from None
    return short


def _surroundings() -> tuple[str, ...]:
    """What the environment says of where buckets are and who we are."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID")
    return tuple(os.environ.get(name, "") for name in names)


@functools.cache
def _opened(kind: str, bucket: str, path: str, surroundings: tuple[str, ...]) -> Any:
    import tensorstore as ts  # here, because commands that use no bucket start faster without

    # A connection over which nothing comes is cut, and the request made again.
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "20")
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    retries = {"max_retries": 1, "initial_delay": "200ms", "max_delay": "1s"}  # `patiently` goes on, and tells
    spec = {
        "driver": KINDS[kind],
        "bucket": bucket,
        "path": path,
        "context": {f"{KINDS[kind]}_request_retries": retries},
    }
    own_endpoint, endpoint, region, default_region, key = surroundings
    if kind == "s3":
        if own_endpoint or endpoint:
            spec |= {"endpoint": own_endpoint or endpoint, "aws_region": region or default_region or "us-east-1"}
        elif region or default_region:
            spec |= {"aws_region": region or default_region}
        if key:  # otherwise every place where credentials may be is looked at, and told of on the error output
            spec |= {"aws_credentials": {"type": "environment"}}
    try:
        return ts.KvStore.open(spec).result(timeout=TIMEOUT)
    except (ValueError, TimeoutError) as error:
        _reason(error, f"{kind}://{bucket}")
        raise UserError(f"{kind}://{bucket} cannot be opened: {' '.join(str(error).split())[:200]}") from None
