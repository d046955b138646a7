"""What this machine lets a process use."""

import errno
import os

import pytest

from simfle_jax import host
from simfle_jax.errors import UserError


@pytest.mark.parametrize("text, most", [("max 100000", 99), ("250000 100000\n", 3), ("50000 100000", 1), ("", 99)])
def test_a_container_counts_by_the_time_that_it_has(text, most, tmp_path, monkeypatch):
    """On a machine of 99 cores; half a core is one thread, and 2.5 are three."""
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(host, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(99)), raising=False)
    assert host.cores() == most and host.schedulable_cores() == 99
    monkeypatch.setattr(host, "QUOTA", tmp_path / "nothing")
    assert host.cores() == 99


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(host.fcntl, "flock", refused)
    told = r"a\.held cannot be locked: No locks available; SIMFLE_CACHE_DIR=DIR names a disk"
    with pytest.raises(UserError, match=told), host.holding(tmp_path / "a.held"):
        pass
