"""Records of runs that are half way, cut short or damaged."""

import json
import math
from pathlib import Path

import pytest

from simfle_jax.errors import UserError
from simfle_jax.reporting.read import names_of, read_metrics, read_probe, read_run


def lines_of(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    notes = []
    return read_metrics(tmp_path / "metrics.jsonl", notes), notes


def test_a_half_written_line_is_told_and_left_out(tmp_path):
    lines, notes = lines_of(tmp_path, '{"step": 1, "loss/total": 2.5}\n{"step": 2, "loss/to')
    assert lines == [{"step": 1, "loss/total": 2.5}]
    assert notes == ["1 line of metrics.jsonl could not be read and is left out, as after a killed run"]


def test_lines_that_are_no_metrics_are_left_out(tmp_path):
    lines, notes = lines_of(tmp_path, '[1]\n{"loss/total": 1}\nnull\n{"step": 3, "loss/total": 1, "note": "text"}\n\n')
    assert lines == [{"step": 3, "loss/total": 1}] and notes[0].startswith("3 lines")


def test_values_that_are_not_finite_are_kept_and_told(tmp_path):
    lines, notes = lines_of(tmp_path, '{"step": 1, "loss/total": NaN}\n')
    assert math.isnan(lines[0]["loss/total"]) and "not finite" in notes[0]


def test_a_run_with_nothing_but_its_settings(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"schema": 2, "method": "byol", "data": {"path": "x"}}))
    run = read_run(tmp_path, "run", [])
    assert (run.settings["method"], run.settings["data.path"], run.metrics) == ("byol", "x", [])
    assert [note.split(",")[0] for note in run.notes] == [
        "no environment.json",
        "no metrics.jsonl yet",
        "no checkpoint yet",
    ]


def test_settings_of_an_earlier_version_have_todays_names(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model": {"facemae": False, "width": 8}, "alpha": 0.3, "views": {"size": 16}})
    )
    settings = read_run(tmp_path, "run", []).settings
    assert (settings["method"], settings["trunk.width"], settings["facemae.alpha"]) == ("byol", 8, 0.3)
    assert settings["views.light"] == 0, "one that came later is as it was before, and no difference between two runs"


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json: give the --workdir of a pre-training run"):
        read_run(tmp_path, "run", [])
    with pytest.raises(UserError, match="no folder"):
        read_probe(tmp_path / "nothing", "probe")


def test_a_damaged_result_is_a_note(tmp_path):
    (tmp_path / "results.json").write_text('{"accuracy": ')
    probe = read_probe(tmp_path, "probe")
    assert probe.results == {} and probe.notes == ["results.json is damaged"]


def test_folders_of_one_name_are_told_apart():
    assert names_of([Path("/a/run"), Path("/b/run")]) == ["a/run", "b/run"]
    assert names_of([Path("/a/run"), Path("/b/other")]) == ["run", "other"]
    assert len(set(names_of([Path("/a/run"), Path("/a/run")]))) == 2
