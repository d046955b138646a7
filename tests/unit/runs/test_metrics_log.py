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
def test_a_damaged_line_costs_itself_and_is_kept(tmp_path, line, caplog):
    good, later = (json.dumps({"step": step, "seconds": 2.0}) for step in (1, 3))
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n{later}\n")
    assert MetricsLog(tmp_path, resume_step=3).earlier == [json.loads(good), json.loads(later)]
    assert (tmp_path / "metrics.jsonl").read_text() == f"{good}\n{later}\n"
    assert "has 1 damaged lines: they are left out, and kept in metrics.damaged.jsonl" in caplog.text
    assert (tmp_path / "metrics.damaged.jsonl").read_text() == f"{good}\n{line}\n{later}\n"


def test_the_last_line_of_a_killed_run_may_be_half_written(tmp_path, caplog):
    good = json.dumps({"step": 1, "seconds": 2.0})
    (tmp_path / "metrics.jsonl").write_text(f'{good}\n{{"step": 2, "se')
    assert MetricsLog(tmp_path, resume_step=3).earlier == [json.loads(good)]
    assert not caplog.text and [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
