"""The process that refreshes the report of a run: one at a time, gentle, and never at the run's cost."""

import importlib.util
import os
import sys
import time

import numpy as np
import pytest
import small
from PIL import Image

from simfle_jax.errors import UserError
from simfle_jax.reporting import live, refresh

needs_sh = pytest.mark.skipif(os.name == "nt", reason="the programs that stand in for Python here are for sh")


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Makes a live report whose processes run a script for sh in Python's place; `calls` has a line for each start."""

    def make(script: str, **settings) -> live.LiveReport:
        program = tmp_path / "program"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        made = live.LiveReport(small.config(report_every=2, **settings))
        made.begin(tmp_path / "run")
        return made

    return make


def calls(tmp_path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


def wait_for(what, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@needs_sh
def test_refreshes_are_started_when_due_and_one_at_a_time(report, tmp_path):
    running = report("exec sleep 60")
    for step in range(1, 8):
        assert running.look(step) == []
        if step == 2:
            wait_for(lambda: calls(tmp_path))
    (call,) = calls(tmp_path)
    assert call.split() == ["-m", "simfle_jax.reporting.refresh", str(tmp_path / "run"), "--gently"]
    process = running.process
    running.close()
    assert process.poll() is not None, "a run that ends leaves the process behind"


@needs_sh
def test_a_refresh_rests_as_long_as_it_took(report, tmp_path, monkeypatch):
    running = report("true")
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    seconds = {2: 100.0, 4: 109.0, 6: 117.0, 8: 118.0}  # started at once; seen ended after 9 s; rests until 118
    for step, now[0] in seconds.items():
        running.look(step)
        if running.process is not None:
            running.process.wait()
        assert (running.process is not None) == (step in (2, 8)), step
    assert len(calls(tmp_path)) == 2
    running.close()


@needs_sh
def test_pictures_of_a_refresh_that_has_ended_are_given_once(report, tmp_path):
    Image.new("RGB", (5, 3), "red").save(tmp_path / "red.png")
    running = report(
        f'for last; do :; done; cp {tmp_path}/red.png "$last/masks.70.png"', wandb=True, report_images=True
    )
    (picture,) = running.last()
    assert picture.name == "images/masks" and picture.step == 70
    np.testing.assert_array_equal(picture.pixels, np.full((3, 5, 3), (255, 0, 0)))
    assert "--images" in calls(tmp_path)[0] and "--gently" not in calls(tmp_path)[0]
    assert running.look(1) == []


@needs_sh
def test_a_refresh_that_fails_is_told_once_and_tried_again(report, tmp_path, caplog):
    running = report('echo "error: no space" >&2; exit 1')
    for step in (2, 4, 6):
        wait_for(lambda: running.process is None or running.process.poll() is not None)
        assert running.look(step - 1) == []
        wait_for(lambda: time.monotonic() >= running._rests_until)
        assert running.look(step) == []
    wait_for(lambda: len(calls(tmp_path)) == 3)
    running.close()
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'run' / 'report.html'} could not be refreshed (no space); training goes on"
    ]


def test_a_process_that_cannot_be_started_is_told(report, monkeypatch, caplog):
    running = report("")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert running.look(2) == [] and running.last() == []
    assert "could not be refreshed (No such file or directory)" in caplog.text


@needs_sh
def test_the_end_of_a_run_waits_so_long_and_no_longer(report, monkeypatch, caplog):
    running = report("exec sleep 60")
    monkeypatch.setattr(live, "PATIENCE", 0.2)
    assert running.last() == [] and running.process is None
    assert "it takes longer than 0.2 s" in caplog.text


def test_only_a_run_that_asks_for_it_has_one_and_process_0_alone(monkeypatch, tmp_path):
    assert live.make_live(small.config()) is None
    assert live.make_live(small.config(report_every=5)).every == 5
    monkeypatch.setattr(live.jax, "process_index", lambda: 1)
    assert live.make_live(small.config(report_every=5)) is None


def test_without_plotly_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"config: report_every needs Plotly: pip install .*\[report\]"):
        live.make_live(small.config(report_every=5))


def test_a_refresh_gives_way(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda *how: asked.append(how[:2]), raising=False)
    monkeypatch.setattr(os, "nice", asked.append, raising=False)
    monkeypatch.setattr(os, "SCHED_IDLE", 5, raising=False)
    monkeypatch.setattr(os, "sched_param", lambda priority: priority, raising=False)
    refresh.give_way()
    monkeypatch.delattr(os, "SCHED_IDLE")
    refresh.give_way()
    assert asked == [(0, 5), 19]


def test_a_container_that_forbids_it_gets_low_priority(monkeypatch):
    asked = []

    def forbidden(*how):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbidden, raising=False)
    monkeypatch.setattr(os, "nice", asked.append, raising=False)
    refresh.give_way()
    assert asked == [19]


def test_a_folder_that_is_no_run_ends_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .* holds no config\.json"):
        refresh.main([str(tmp_path)])
