"""probe.py as two processes over gloo, where it trains the trunk: what one process finds, written once."""

import json
import signal
import subprocess
import sys
import time

import processes
import pytest
from processes import ROOT
from small_probe import write_encoder, write_tuning

from configs import probe as probe_config
from simfle_jax.commands.faces import write_faces
from simfle_jax.data.synthetic_faces import DEMO
from simfle_jax.evaluation import tuning
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing

TUNE = {"lr": 0.1, "warmup_epochs": 0.0}
DRAWS = {"protocol": "lowlabel", "lowlabel.on": "finetune", "lowlabel.shares": (0.5,), "lowlabel.draws": 2}
POINTS = {"protocol": "landmarks", "landmarks.head": "finetune"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.safetensors", last_stride=2)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return write_tuning(tmp_path_factory.mktemp("colours"))


def asked(encoder, data, **changes):
    config = probe_config.get_config()
    settings = {"encoder": str(encoder), "data.path": str(data), "protocol": "finetune", "epochs": 4, "batch_size": 12}
    settings |= {f"finetune.{name}": value for name, value in TUNE.items()} | changes
    config.update_from_flattened_dict(settings)
    return settings, probing(config)


def start(settings, workdir, count=2, devices=1, stdout=None):
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    call = [sys.executable, str(ROOT / "probe.py"), f"--config={ROOT / 'configs/probe.py'}", f"--workdir={workdir}"]
    return processes.launch([*call, *flags], count, devices, stdout=stdout)


def losses(folder):
    return [json.loads(line)["loss/train"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_fine_tuning_in_two_processes_is_that_of_one_and_one_of_them_writes(encoder, colours, tmp_path):
    settings, probe = asked(encoder, colours)
    alone = run_probe(probe, str(tmp_path / "alone"))
    started = start(settings, tmp_path / "p", stdout=subprocess.PIPE)
    told = [process.stdout.read() for process in started]
    ended = processes.finish(started)
    assert [status for status, _ in ended] == [0, 0], ended
    results = json.loads((tmp_path / "p" / "results.json").read_text())
    for name in ("confusion", "train_count", "skipped", "encoder_hash", "data_fingerprint"):
        assert results[name] == alone[name], name
    assert losses(tmp_path / "p") == pytest.approx(losses(tmp_path / "alone"), rel=1e-3)
    assert "000.jpg" in (tmp_path / "p" / "bad_images.txt").read_text()  # whichever process read it
    assert "results.json" in told[0] and "results.json" not in told[1]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [DRAWS, POINTS], ids=["draws", "points"])
def test_draws_and_points_in_two_processes_are_those_of_one(changes, encoder, colours, tmp_path):
    data = colours
    if changes is POINTS:
        write_faces(data := tmp_path / "faces", 64, 32, 0, 24, DEMO)
    settings, probe = asked(encoder, data, **changes)
    alone = run_probe(probe, str(tmp_path / "alone"))
    ended = processes.finish(start(settings, tmp_path / "p", devices=2))
    assert [status for status, _ in ended] == [0, 0], ended
    results = json.loads((tmp_path / "p" / "results.json").read_text())
    if changes is POINTS:
        assert results["outer_eyes"]["nme"] == pytest.approx(alone["outer_eyes"]["nme"], rel=1e-3)
    else:
        assert [row["accuracy"] for row in results["draws"]] == [row["accuracy"] for row in alone["draws"]]
    assert not list((tmp_path / "p").glob("draws/*/checkpoints"))


@pytest.mark.slow
def test_a_signal_to_one_stops_both_within_a_draw_and_one_process_goes_on(encoder, colours, tmp_path, monkeypatch):
    settings, probe = asked(encoder, colours, **DRAWS | {"epochs": 100})
    started = start(settings, tmp_path / "p")
    log, end = tmp_path / "p" / "draws" / "0.5-1" / "metrics.jsonl", time.monotonic() + 240
    while not log.exists() or log.read_text().count("\n") < 3:
        assert all(process.poll() is None for process in started), processes.finish(started)
        assert time.monotonic() < end
        time.sleep(0.02)
    started[1].send_signal(signal.SIGUSR1)
    (first, text), (second, _) = processes.finish(started)
    assert first == 128 + signal.SIGTERM and second == 128 + signal.SIGUSR1 and "saved at step" in text
    assert not (tmp_path / "p" / "results.json").exists()
    begun, batches = [], tuning.TrainBatches
    monkeypatch.setattr(tuning, "TrainBatches", lambda *a, **k: begun.append(k["start_step"]) or batches(*a, **k))
    alone = run_probe(probe, str(tmp_path / "p"))
    saved = int(text.split("saved at step")[1].split(";")[0])
    assert begun == [100, saved] and 3 <= saved < 100 and len(alone["draws"]) == 2  # one step an epoch
