"""What a run tells of its steps, and when."""

import json

import numpy as np
import pytest
import small

from simfle_jax.errors import UserError
from simfle_jax.runs.metrics_log import MetricsLog
from simfle_jax.training import loop, step_metrics
from simfle_jax.training.step_metrics import StepMetrics

WELL = {"loss/total": np.float32(1.5), "features/pooled_rank": np.float32(2.25)}
ILL = WELL | {"loss/similarity": np.float32(np.nan)}


@pytest.fixture
def clock(monkeypatch):
    """Seconds that stand still until the test moves them."""
    now = [100.0]
    monkeypatch.setattr(step_metrics.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def metrics(tmp_path, clock):
    return StepMetrics(small.config(batch_size=16), 0, 50, lambda: None, MetricsLog(tmp_path, 0))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_is_told_when_the_next_one_comes(metrics, clock, tmp_path):
    clock[0] = 104.0
    metrics.put_off(50, WELL)
    assert lines(tmp_path) == []
    clock[0] = 106.0
    metrics.put_off(100, WELL)
    metrics.flush()
    metrics.flush()
    assert [(line["step"], line["epoch"]) for line in lines(tmp_path)] == [(50, 0), (100, 1)]
    assert [line["images_per_second"] for line in lines(tmp_path)] == [50 * 16 / 4, 50 * 16 / 2]
    assert [line["seconds"] for line in lines(tmp_path)] == [4.0, 6.0]


def test_what_a_monitor_takes_is_no_time_of_the_images(metrics, clock, tmp_path):
    clock[0] = 130.0  # the step was done at 110, and the monitor took 20 s
    metrics.tell(50, WELL | {"monitor/knn": 0.5}, 110.0)
    clock[0] = 132.0
    metrics.put_off(100, WELL)
    metrics.flush()
    assert [line["images_per_second"] for line in lines(tmp_path)] == [50 * 16 / 10, 50 * 16 / 2]
    assert lines(tmp_path)[0]["monitor/knn"] == 0.5


@pytest.mark.usefixtures("clock")
def test_processes_that_tell_nothing_look_whether_the_loss_is_finite():
    metrics = StepMetrics(small.config(), 0, 50, lambda: None, None)
    metrics.put_off(1, WELL)
    metrics.put_off(2, ILL)
    with pytest.raises(UserError, match="loss/similarity is nan at step 2"):
        metrics.flush()


def test_warnings_see_every_line(metrics, monkeypatch):
    seen = []
    monkeypatch.setattr(metrics.warnings, "look", seen.append)
    metrics.put_off(650, WELL)
    metrics.flush()
    assert [(line["step"], line["features/pooled_rank"]) for line in seen] == [(650, 2.25)]


@pytest.mark.parametrize("canvas, told", [(0, False), (12, True), (16, False), (48, False)])
def test_a_canvas_below_the_views_is_told(canvas, told, caplog):
    loop.warn_of_canvas(small.config(data={"canvas": canvas}))
    assert ("larger images are shrunk to it and enlarged again" in caplog.text) == told
