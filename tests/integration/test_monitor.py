"""A probe during pre-training: its scores stand in the metrics, and training does not notice it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from small_probe import write_split

from configs import probe as probe_config
from simfle_jax.errors import UserError
from simfle_jax.evaluation.monitor import Monitor, make_monitor
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing
from simfle_jax.training.loop import train
from simfle_jax.training.restore import run_state

ROOT = Path(__file__).parents[2]
COUNTS = {"blue": 10, "green": 10, "red": 10}
NAMES = {"monitor/accuracy", "monitor/balanced_accuracy"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return small.write_images(tmp_path_factory.mktemp("data") / "images", 40)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    write_split(folder / "train", COUNTS)
    write_split(folder / "val", dict.fromkeys(COUNTS, 5), seed=1)
    return folder


@pytest.fixture(scope="module")
def settings(images):
    def make(**changes):
        return small.config(data={"path": str(images)}, method="byol", log_steps=3, epochs=4, **changes)

    return make


@pytest.fixture(scope="module")
def plain(settings, tmp_path_factory):
    """Twenty steps without a monitor."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    train(settings(), str(workdir))
    return workdir


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("protocol", ["knn", "logistic"])
def test_scores_come_every_n_epochs_and_training_is_the_same_to_the_bit(settings, plain, labelled, tmp_path, protocol):
    config = settings(monitor={"path": str(labelled), "epochs": 2, "protocol": protocol})
    train(config, str(tmp_path / "run"), monitor=make_monitor(config))
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines if line.keys() >= NAMES] == [10, 20]
    assert [line["step"] for line in lines] == [3, 6, 9, 10, 12, 15, 18, 20]
    assert all(0 <= line[name] <= 1 for line in lines for name in NAMES & line.keys())
    for a, b in zip(jax.tree.leaves(run_state(plain)[1]), jax.tree.leaves(run_state(tmp_path / "run")[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    before = {line["step"]: line["loss/total"] for line in metrics(plain)}
    assert before.items() <= {line["step"]: line["loss/total"] for line in lines}.items()


@pytest.mark.parametrize("protocol", ["knn", "logistic"])
def test_the_last_score_is_that_of_a_probe_of_the_encoder(settings, plain, labelled, tmp_path, protocol):
    config = settings(monitor={"path": str(labelled), "protocol": protocol})
    found = Monitor(config)(jax.device_get(_trunk(plain)), 20)
    probe = probe_config.get_config()
    probe.update(encoder=str(plain), protocol=protocol)
    probe.data.path = str(labelled)
    results = run_probe(probing(probe), str(tmp_path / "p"))
    assert found["monitor/accuracy"] == pytest.approx(results["accuracy"])
    assert found["monitor/balanced_accuracy"] == pytest.approx(results["balanced_accuracy"])
    assert found["monitor/accuracy"] > 0.5  # three colours


def _trunk(workdir):
    from simfle_jax.training.state import trunk_of

    return trunk_of(run_state(workdir)[1])


def test_a_run_goes_on_with_another_monitor_or_none(settings, plain, labelled, tmp_path):
    config = settings(monitor={"path": str(labelled), "epochs": 3})
    asked = []

    def stopping(trunk, step):
        asked.append(step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, str(tmp_path / "run"), monitor=stopping)
    assert asked == [15]
    train(settings(), str(tmp_path / "run"))
    for a, b in zip(jax.tree.leaves(run_state(plain)[1]), jax.tree.leaves(run_state(tmp_path / "run")[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_bad_path_is_told_before_training_begins(settings, images, labelled, tmp_path):
    for path, message in (
        (tmp_path / "nowhere", "no folder"),
        (images, "labelled data are laid out as train/CLASS/IMAGE"),
    ):
        with pytest.raises(UserError, match=f"config: monitor.path: .*{message}"):
            make_monitor(settings(monitor={"path": str(path)}))
    write_split(tmp_path / "other" / "train", COUNTS)
    write_split(tmp_path / "other" / "val", {"blue": 2, "red": 2})
    with pytest.raises(UserError, match=r"config: monitor.path: val has not the classes of train: it lacks green"):
        make_monitor(settings(monitor={"path": str(tmp_path / "other")}))
    call = [sys.executable, "train.py", "--config=tests/small_config.py", f"--config.data.path={images}",
            f"--config.monitor.path={tmp_path / 'nowhere'}", f"--workdir={tmp_path / 'run'}"]  # fmt: skip
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120, env=_environment())
    told = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and told.startswith("error: config: monitor.path: no folder "), done.stderr
    assert told.endswith("give an existing one with --config.monitor.path=DIR") and not (tmp_path / "run").exists()
    assert make_monitor(settings()) is None


def _environment():
    return os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
