"""A study: stopped and gone on with, its table, and what it refuses."""

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from small import status
from small_probe import write_encoder

from simfle_jax.commands import study
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.supervised import train_supervised
from simfle_jax.studies import work

FILE = str(Path(__file__).parents[1] / "small_study.py")


def call(folder, *flags, file=FILE):
    return status(study, [file, "--workdir", str(folder), *flags])


def read(file):
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The study's folder after a stop within the first pre-training, one before its probe, and the way to the end."""
    folder, patch, trained = tmp_path_factory.mktemp("study") / "s", pytest.MonkeyPatch(), []

    def stop_here(trunk, step):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    patch.setattr(work, "make_monitor", lambda config: stop_here)
    stopped = call(folder, "--only", "0")
    halfway = [path.name for path in (folder / "BYOL/seed0/run/checkpoints").iterdir() if path.name.isdigit()]
    patch.undo()

    def no_probe(*_):
        raise KeyboardInterrupt

    patch.setattr(work, "run_probe", no_probe)
    statuses = [stopped, call(folder)]
    patch.undo()
    own = work.train
    patch.setattr(work, "train", lambda *args, **rest: trained.append(args[1]) or own(*args, **rest))
    statuses.append(call(folder))
    patch.undo()
    return folder, halfway, statuses, trained


def test_a_study_goes_on_within_a_pre_training_and_does_nothing_twice(done, capsys):
    folder, halfway, statuses, trained = done
    assert halfway == ["2"] and statuses == [143, 130, 0]
    assert trained == []  # by then it was at its end
    steps = [json.loads(line)["step"] for line in (folder / "BYOL/seed0/run/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("results.json")}
    assert call(folder) == 0
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("results.json")} == before
    assert call(folder, "--list") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["   0  BYOL, seed 0  done", "   1  no training, seed 0  done"]


def test_the_table_holds_what_the_probes_found(done):
    folder, *_ = done
    found = read(folder / "table.json")
    assert found["columns"] == ["few"]
    values = {}
    for arm, name in (("BYOL", "BYOL"), ("no training", "no_training")):
        probes = [read(folder / name / "seed0/probes/few/results.json")]
        values[arm] = [results["shares"][0]["balanced_accuracy"]["mean"] for results in probes]
        row = found["arms"][arm]["scores"]["few"]
        assert row["values"] == values[arm] and row["mean"] == pytest.approx(np.mean(values[arm]))
    gap = found["arms"]["BYOL"]["scores"]["few"]["difference"]
    assert gap["values"] == pytest.approx(np.subtract(values["BYOL"], values["no training"]))
    assert "difference" not in row and found["arms"]["BYOL"]["cost"]["step"] == 4
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(line["arm"], line["score"]) for line in rows] == [("BYOL", "few"), ("no training", "few")]
    assert float(rows[0]["difference"]) == pytest.approx(gap["mean"], abs=1e-6)
    text = (folder / "table.md").read_text()
    assert "| arm | updates | minutes | few |" in text and "Differences from no training" in text


def test_checkpoints_are_probed_and_the_last_one_has_the_score_of_its_run(done):
    folder, *_ = done
    found = read(folder / "table.json")["arms"]["BYOL"]
    curve = found["curve"]["0"]
    assert [point["step"] for point in curve] == [2, 4] and curve[0]["seconds"] <= curve[1]["seconds"]
    assert curve[-1]["score"] == found["scores"]["few"]["values"][0]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_arm_that_changed_after_it_began_is_refused_and_named(done, capsys):
    folder, *_ = done
    record = (folder / "study.json").read_text()
    assert call(folder, file=f"{FILE}:0.1") == 2
    error = capsys.readouterr().err
    assert "has begun arm 'BYOL' with optimizer.lr = 0.05, now 0.1: give the old value back" in error
    assert len(error.splitlines()) == 1 and (folder / "study.json").read_text() == record


def test_a_piece_that_cannot_be_done_does_not_hold_up_the_others(tmp_path, capsys, monkeypatch):
    tried = []

    def do_piece(study, piece, *rest):
        tried.append(piece.number)
        if piece.number == 0:
            raise UserError("loss/total is nan at step 3")

    monkeypatch.setattr(work, "do_piece", do_piece)
    monkeypatch.setattr(study, "_faces", lambda *rest: tmp_path)
    assert call(tmp_path / "s") == 2 and tried == [0, 1]
    told = capsys.readouterr().err
    assert "piece 0 could not be done: loss/total is nan at step 3\n" in told
    assert "error: 1 of 2 pieces could not be done (0), the first because: loss/total is nan at step 3; " in told
    assert (tmp_path / "s" / "table.md").is_file()


def test_what_cannot_run_is_one_line(tmp_path, capsys):
    for flags, file, message in (
        (["--seeds", "1", "1"], FILE, "seeds (1, 1) must be some, each of them once"),
        (["--only", "6"], FILE, "--only 6: the study has the pieces 0 to 1"),
        (["--data", str(tmp_path)], FILE, "train: --data DIR holds train/ and val/"),
        ([], "ablation", "did you mean ablations?"),
        ([], f"{FILE}:-1", "arm 'BYOL' of the study: config: optimizer.lr = -1.0 must be positive"),
    ):
        assert call(tmp_path / "s", *flags, file=file) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "s").exists()


def test_the_ceiling_of_fewer_images_than_a_batch_is_trained_on_all_of_them(tmp_path):
    encoder = load_encoder(write_encoder(tmp_path / "encoder.safetensors"))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = train_supervised(encoder, images, np.array([0, 1, 1]), classes=2, epochs=1, batch_size=8, seed=0)
    assert found.hash != encoder.hash


@pytest.mark.slow
def test_a_supervised_arm_is_trained_on_the_labels_and_probed(tmp_path):
    assert call(tmp_path / "s", "--only", "0", file=f"{FILE}:supervised") == 0
    run = tmp_path / "s/supervised/seed0/run"
    encoder, fresh = load_encoder(run), tmp_path / "s/no_training/seed0/run"
    assert encoder.metadata["method"] == "supervised" and not fresh.exists()
    assert "few" in read(tmp_path / "s/table.json")["arms"]["supervised"]["scores"]
