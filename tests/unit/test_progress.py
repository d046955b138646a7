"""The progress line: share, fields, pace and end; short in a log, live on a terminal."""

import io

import pytest

from simfle_jax import progress
from simfle_jax.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets; wall time starts at 12:00 UTC."""
    now = {"seconds": 1000.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: now["seconds"])
    monkeypatch.setattr(progress.time, "time", lambda: 43200.0 + now["seconds"] - 1000)
    monkeypatch.setattr(progress.time, "localtime", progress.time.gmtime)
    return now


def test_line_tells_share_fields_and_end(clock):
    out = io.StringIO()
    bar = Progress(400, "training", stream=out)
    clock["seconds"] += 60
    bar.update(100, loss=1.23456, images_per_s="340")
    assert out.getvalue() == "training 100/400 25% loss 1.235 images per s 340, ends 12:04 (in 3 min)\n"


def test_pace_is_that_of_this_process_when_work_is_continued(clock):
    bar = Progress(400, "training", start=300, stream=io.StringIO())
    assert bar.line(350, clock["seconds"] + 10, {}) == "training 350/400 87%, ends 12:00 (in 10 s)"


def test_a_log_gets_few_lines_and_always_the_last(clock):
    out = io.StringIO()
    bar = Progress(100, "reading", stream=out, every=15)
    for done in range(1, 101):
        clock["seconds"] += 0.5
        bar.update(done)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[-1] == "reading 100/100 100%, 50 s so far"


def test_a_terminal_shows_one_line_over_and_over(clock):
    out = Terminal()
    bar = Progress(2, "reading", stream=out)
    for done in (1, 2):
        clock["seconds"] += 1
        bar.update(done)
    assert out.getvalue().count("\r") == 2 and out.getvalue().count("\n") == 1


@pytest.mark.parametrize("seconds, text", [(59, "59 s"), (120, "2 min"), (5400, "1.5 h")])
def test_spans_are_in_the_unit_that_fits(clock, seconds, text):
    bar = Progress(2, "x", stream=io.StringIO())
    assert bar.line(1, clock["seconds"] + seconds, {}).endswith(f"(in {text})")
