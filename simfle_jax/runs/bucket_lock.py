"""RUN/lock.json in a bucket: the same lease, made, renewed and taken over by writes that name the version they replace."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simfle_jax.errors import UserError
from simfle_jax.runs.lock import NAME, Lock
from simfle_jax.storage import Bucket

BEAT = 10.0  # seconds between two renewals, each of which is a request that is paid for
STALE = 60.0


class BucketLock(Lock):
    """The right to write into a bucket's folder. No request is made while a step waits: the renewals find out.

    before: what is done before it is given back, by whoever still holds it.
    """

    def __init__(self, bucket: Bucket, before: Callable[[], None], beat: float = BEAT, stale: float = STALE):
        super().__init__(Path(), beat, stale)
        self.bucket, self.place, self.before = bucket, bucket.location, before
        self._version = b""  # of what was found last
        self._other: dict[str, Any] = {}  # who has taken it over

    def verify(self) -> None:
        """Raises UserError if the last renewal found somebody else."""
        if self._other:
            super().verify()

    def _prepare(self) -> None:
        self.bucket.require_folder()

    def _create(self) -> bool:
        found = self.bucket.look(NAME)
        return found.data is None and self._write(0, found.version)

    def _write(self, count: int, version: bytes) -> bool:
        if self.bucket.write_if(NAME, self._text(count).encode(), version):
            return True
        return self._holder().get("id") == self.me["id"]  # the answer to the first try was lost, and it was tried again

    def _holder(self) -> dict[str, Any]:
        if self._other:
            return self._other
        data, self._version = self.bucket.look(NAME)
        try:
            found = json.loads(data or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _is_there(self) -> bool:
        return self.bucket.read(NAME) is not None

    def _remove(self, holder: dict[str, Any]) -> None:
        if self._holder() == holder:
            self.bucket.remove_if(NAME, self._version)

    def _give_back(self) -> None:
        # A bucket that does not answer now keeps a lock that goes stale; `mirror.opened` tells at a good end.
        with contextlib.suppress(UserError):
            if self._holder().get("id") == self.me["id"]:
                self.before()
                self._holder()
                self.bucket.remove_if(NAME, self._version)

    def _write_count(self, count: int) -> None:
        with contextlib.suppress(UserError):  # the next beat tries again, and what is saved tells
            holder = self._holder()
            if not holder:  # somebody removed it by hand
                self._create()
            elif holder.get("id") != self.me["id"]:
                self._other = holder
            else:
                self._write(count, self._version)
