"""A few damaged files of each kind; `make fuzz` tries thousands (docs/testing.md)."""

import contextlib

import pytest
from fuzz import NAMES, Worker

pytest.importorskip("torch")


def test_damaged_files_are_used_or_refused_in_a_line():
    with contextlib.closing(Worker(seed=1)) as worker:
        found = {
            f"{kind} {number}": worker.attempt(kind, number)
            for kind in NAMES
            for number in range(60 if kind == "images" else 6)
        }
    assert {what: one["text"] for what, one in found.items() if one["told"] == "fault"} == {}
    assert {one["told"] for one in found.values()} == {"sound", "refused"}
