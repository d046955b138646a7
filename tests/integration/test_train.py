"""train.py as its users meet it: runs that go on to the bit, repeat, and refuse what cannot work."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import small

from simfle_jax.errors import UserError
from simfle_jax.training import loop
from simfle_jax.training.loop import check_finite, train
from simfle_jax.training.restore import run_state

ROOT = Path(__file__).parents[2]
TIMES = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return small.write_images(tmp_path_factory.mktemp("data") / "images", 40)


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """An uninterrupted run of ten steps."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train(small.config(data={"path": str(images)}), str(workdir))
    return workdir


def metrics(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_same_run(a: Path, b: Path) -> None:
    (_, first), (_, second) = run_state(a), run_state(b)
    assert int(first.step) == int(second.step)
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(first)[0], jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=f"{jax.tree_util.keystr(path)} differs")
    assert metrics(a) == metrics(b)


def test_a_run_holds_what_it_promises(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "environment.json", "metrics.jsonl", "checkpoints", "encoder.safetensors"} <= names
    lines = metrics(finished)
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert [line["epoch"] for line in lines] == [0] * 5 + [1] * 5
    wanted = {"total", "similarity", "reconstruction", "distillation", "grouping"}
    assert {key.removeprefix("loss/") for key in lines[0] if key.startswith("loss/")} == wanted
    others = {"grouping/separation", "masking/agreement", "features/std", "features/effective_rank", "learning_rate"}
    assert others <= set(lines[0])
    assert lines[0]["learning_rate"] == pytest.approx(0.05 * 8 / 256)
    assert lines[-1]["learning_rate"] == pytest.approx(0.05 * 8 / 256 / 2)


def test_the_total_is_the_weighted_sum(finished):
    for line in metrics(finished):
        total = line["loss/similarity"] + line["loss/reconstruction"] + 0.3 * line["loss/distillation"]
        assert line["loss/total"] == pytest.approx(total + 0.03 * line["loss/grouping"], rel=1e-5)


def test_the_same_seed_gives_the_same_run_and_another_another(images, finished, tmp_path):
    train(small.config(data={"path": str(images)}), str(tmp_path / "same"))
    assert_same_run(finished, tmp_path / "same")
    train(small.config(seed=1, epochs=1, data={"path": str(images)}), str(tmp_path / "other"))
    assert metrics(tmp_path / "other")[0]["loss/total"] != metrics(finished)[0]["loss/total"]


def start(images: Path, workdir: Path) -> subprocess.Popen:
    code = (
        "import sys, small; from simfle_jax.training.loop import train; "
        "train(small.config(data={'path': sys.argv[1]}, checkpoint_steps=3), sys.argv[2])"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", code, str(images), str(workdir)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_line(process: subprocess.Popen, workdir: Path, lines: int) -> None:
    log = workdir / "metrics.jsonl"
    end = time.monotonic() + 240
    while not (log.exists() and log.read_text().count("\n") >= lines):
        assert process.poll() is None or process.returncode == 0, process.stderr.read()
        assert time.monotonic() < end, "the run wrote no metrics in four minutes"
        time.sleep(0.01)


def test_a_killed_run_goes_on_to_the_bit(images, finished, tmp_path):
    """SIGKILL after a number of steps that differs at every run of the test."""
    workdir = tmp_path / "killed"
    process = start(images, workdir)
    wait_for_line(process, workdir, int(np.random.default_rng().integers(1, 9)))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start(images, workdir)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert_same_run(finished, workdir)


def test_sigterm_saves_and_says_how_to_go_on(images, finished, tmp_path):
    workdir = tmp_path / "stopped"
    process = start(images, workdir)
    wait_for_line(process, workdir, 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    if process.returncode == 128 + signal.SIGTERM:  # else it was done before the signal came
        assert "saved at step" in errors and "the same command goes on" in errors
    train(small.config(data={"path": str(images)}, checkpoint_steps=3), str(workdir))
    assert_same_run(finished, workdir)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(images, finished, tmp_path, caplog):
    workdir = tmp_path / "damaged"
    config = small.config(data={"path": str(images)}, checkpoint_steps=4, epochs=2)
    train(config, str(workdir))
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)
    # In every large file: Orbax may leave copies of the data behind that nothing reads any more.
    for data in [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size > 1000]:
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    train(config, str(workdir))
    assert f"{newest} is damaged" in caplog.text
    assert_same_run(finished, workdir)


def test_another_config_is_refused_and_nothing_overwritten(images, finished):
    before = (finished / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"a run with lr = 0.05, now 0.1; give the same settings"):
        train(small.config(lr=0.1, data={"path": str(images)}), str(finished))
    assert (finished / "config.json").read_bytes() == before


def test_other_images_are_refused(finished, tmp_path):
    other = small.write_images(tmp_path / "other", 41)
    with pytest.raises(UserError, match="data_fingerprint"):
        train(small.config(data={"path": str(other)}), str(finished))


def test_a_folder_that_is_no_run_is_refused(images, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else than a run"):
        train(small.config(data={"path": str(images)}), str(tmp_path))


def test_a_batch_larger_than_the_data_is_refused(images, tmp_path):
    with pytest.raises(UserError, match=r"batch_size = 64 is larger than the data \(40 images\)"):
        train(small.config(batch_size=64, data={"path": str(images)}), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_step_is_compiled_once(images, tmp_path):
    compiled = []

    class Names(logging.Handler):
        def emit(self, record):
            compiled.append(record.getMessage())

    logger, names = logging.getLogger("jax._src.dispatch"), Names()
    logger.addHandler(names)
    try:
        with jax.log_compiles():
            train(small.config(data={"path": str(images)}), str(tmp_path / "run"))
    finally:
        logger.removeHandler(names)
    assert sum("Finished XLA compilation of jit(train_step)" in message for message in compiled) == 1


def test_out_of_memory_is_told_without_traceback(images, tmp_path, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.")

    monkeypatch.setattr(loop, "prepare", lambda *_: (types.SimpleNamespace(step=0), exhausted))
    with pytest.raises(UserError, match=r"does not hold a step of 8 images; try .*--config\.accumulate=2"):
        train(small.config(data={"path": str(images)}), str(tmp_path / "run"))


def test_a_loss_that_is_not_finite_names_its_term_and_step():
    with pytest.raises(UserError, match="loss/grouping is nan at step 7; the last good checkpoint is kept"):
        check_finite({"loss/total": np.nan, "loss/grouping": np.nan, "loss/similarity": 1.0}, 7)


BASELINES = [{"model": {"facemae": False}}, {"model": {"masking": "random"}}, {"alpha": 0.0}, {"dtype": "bfloat16"},
             {"model": {"grouping_init": "constant"}}, {"remat": True}]  # fmt: skip


@pytest.mark.parametrize("changes", BASELINES, ids=str)
def test_baselines_train(changes, images, tmp_path):
    train(small.config(**changes, epochs=1, data={"path": str(images)}), str(tmp_path / "run"))
    last = metrics(tmp_path / "run")[-1]
    assert np.isfinite(last["loss/total"])
    semantic = changes.get("model", {}).get("facemae", True) and changes.get("model", {}).get("masking") != "random"
    assert ("loss/grouping" in last) == semantic
    assert ("loss/distillation" in last) == (
        changes.get("model", {}).get("facemae", True) and changes.get("alpha") != 0
    )


COMMANDS = [
    (["--config.data.path=nowhere"], "no folder nowhere"),
    (["--config.data.pth=x"], "did you mean data.path?"),
    (["--config.mask_ratio=1.0"], "mask_ratio = 1.0 keeps 0 of 49 patches"),
    (["--config.lr=fast"], "could not convert"),
    ([], "data.path is empty"),
]


@pytest.mark.parametrize("flags,message", COMMANDS, ids=str)
def test_mistakes_on_the_command_line_end_in_one_line(flags, message, tmp_path):
    command = [sys.executable, "train.py", "--config=configs/simfle.py", f"--workdir={tmp_path / 'run'}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.removeprefix("distributed: off (no cluster found)\n").count("\n") == 1
    assert not (tmp_path / "run").exists()
