"""A disk that is full: a small tmpfs, which needs root and a machine that lets it mount."""

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import small

from simfle_jax.errors import UserError
from simfle_jax.runs.checkpoint import Checkpoints
from simfle_jax.runs.metrics_log import MetricsLog
from simfle_jax.training.loop import train
from simfle_jax.training.restore import run_state

TIMES = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return small.write_images(tmp_path_factory.mktemp("data") / "images", 40)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """An uninterrupted run of ten steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(small.config(data={"path": str(images)}, checkpoint_steps=2), str(folder))
    return folder


def size(folder: Path) -> int:
    """Bytes in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def metrics(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


# TensorStore's threads may report a failed write after Orbax has closed the loop that waited for it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_training_goes_on_and_the_last_good_checkpoint_stays(images, whole, disk, caplog, monkeypatch):
    enough = 20 * size(whole)
    resize(disk, enough)
    save = Checkpoints.save

    def save_with_the_disk_full_after_the_first(checkpoints, state, wait=False):
        if int(state.step) == 4:
            checkpoints._manager.wait_until_finished()
            resize(disk, shutil.disk_usage(disk).used + size(whole / "checkpoints" / "10") // 2)
        save(checkpoints, state, wait)

    monkeypatch.setattr(Checkpoints, "save", save_with_the_disk_full_after_the_first)
    config = small.config(data={"path": str(images)}, checkpoint_steps=2)
    with pytest.raises(UserError, match="step 10 is not saved; make room, and the same command goes on from step 2"):
        train(config, str(disk / "run"))
    told = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    for step in (4, 6, 8, 10):
        assert f"checkpoint {step} could not be written (No space left on device); training goes on" in told
    assert all("\n" not in message for message in told), "a traceback is no message"
    assert int(run_state(disk / "run")[1].step) == 2

    resize(disk, enough)
    monkeypatch.undo()
    train(config, str(disk / "run"))
    assert metrics(disk / "run") == metrics(whole)
    (_, end), (_, expected) = run_state(disk / "run"), run_state(whole)
    jax.tree.map(np.testing.assert_array_equal, end, expected)


def test_a_run_that_cannot_even_begin_again_says_so_and_loses_nothing(images, whole, disk):
    resize(disk, 20 * size(whole))
    shutil.copytree(whole, disk / "run")
    fill(disk)
    with pytest.raises(UserError, match="cannot be written: No space left on device; mend that"):
        train(small.config(data={"path": str(images)}, checkpoint_steps=2), str(disk / "run"))
    assert metrics(disk / "run") == metrics(whole) and int(run_state(disk / "run")[1].step) == 10


def test_half_a_line_of_metrics_is_cut_off(disk):
    log = MetricsLog(disk, 0)
    log.write({"step": 1, "seconds": 1.0})
    filler = fill(disk)
    log.write({"step": 2, "seconds": 2.0, "long": "x" * 6000})
    filler.unlink()
    log.write({"step": 3, "seconds": 3.0})
    assert [line["step"] for line in map(json.loads, log.path.read_text().splitlines())] == [1, 3]
