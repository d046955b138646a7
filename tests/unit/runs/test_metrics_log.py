"""metrics.jsonl of a run that goes on."""

import json

import pytest

from simfle_jax.runs.metrics_log import MetricsLog


def test_lines_after_the_restored_step_are_cut_off(tmp_path):
    log = MetricsLog(tmp_path, resume_step=0)
    for step in range(1, 6):
        log.write({"step": step, "seconds": 2.0 * step})
    again = MetricsLog(tmp_path, resume_step=3)
    assert again.seconds == 6.0
    again.write({"step": 4, "seconds": 9.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and lines[-1]["seconds"] == 9.0


@pytest.mark.parametrize(
    "line", ['{"step": "2", "seconds": 4.0}', '{"step": 1e999, "seconds": 4.0}', "[2]", "[" * 5000, "{"]
)
def test_a_damaged_line_ends_what_is_kept(tmp_path, line):
    good = json.dumps({"step": 1, "seconds": 2.0})
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    assert MetricsLog(tmp_path, resume_step=3).earlier == [json.loads(good)]
    assert (tmp_path / "metrics.jsonl").read_text() == f"{good}\n"
