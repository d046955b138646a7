"""train.py as its users meet it: runs that go on to the bit, repeat, and refuse what cannot work."""

import json
import logging
import os
import shutil
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
from safetensors.numpy import load_file, save_file

from simfle_jax.errors import UserError
from simfle_jax.training import loop
from simfle_jax.training.loop import train
from simfle_jax.training.restore import run_state
from simfle_jax.training.step_metrics import check_finite
from simfle_jax.weights.encoder_file import encoder_step

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


SLOWLY = """
import sys, time, small
from simfle_jax.training import loop

done, after_step = [], loop.Run._after_step

def count(run, step, *rest):
    done.append(step)
    time.sleep(0.1)  # so that a signal comes before the end
    after_step(run, step, *rest)
    print(f"steps computed: {len(done)}", file=sys.stderr, flush=True)

loop.Run._after_step = count
loop.train(small.config(data={"path": sys.argv[1]}, checkpoint_steps=3), sys.argv[2])
"""


def start(images: Path, workdir: Path) -> subprocess.Popen:
    """A run of ten steps that says how many it has computed."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", SLOWLY, str(images), str(workdir)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_line(process: subprocess.Popen, workdir: Path, lines: int) -> None:
    log = workdir / "metrics.jsonl"
    end = time.monotonic() + 240
    while not (log.exists() and log.read_text().count("\n") >= lines):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "the run wrote no metrics in four minutes"
        time.sleep(0.01)


def saved(workdir: Path) -> int:
    """The step of the newest whole checkpoint."""
    return max((int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()), default=0)


def assert_goes_on(images: Path, workdir: Path, step: int) -> None:
    """The same command again starts at this step, computes only those that are left, and ends well."""
    process = start(images, workdir)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert f"{workdir} goes on from step {step}\n" in errors, errors
    assert f"steps computed: {10 - step}\n" in errors and f"steps computed: {11 - step}" not in errors, errors


def test_a_killed_run_goes_on_to_the_bit(images, finished, tmp_path):
    """SIGKILL after a number of steps that differs at every run of the test."""
    workdir = tmp_path / "killed"
    process = start(images, workdir)
    wait_for_line(process, workdir, int(np.random.default_rng().integers(4, 8)))
    while not saved(workdir) and process.poll() is None:  # on a slow disk step 3 is whole no later than step 6 begins
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert saved(workdir) in (3, 6), "the kill came before a checkpoint was whole, or after the end"
    assert_goes_on(images, workdir, saved(workdir))
    assert_same_run(finished, workdir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_says_how_to_go_on(number, images, finished, tmp_path):
    workdir = tmp_path / "stopped"
    process = start(images, workdir)
    wait_for_line(process, workdir, 1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 128 + number, errors
    assert f"{number.name}: saved at step {saved(workdir)}; the same command goes on from there" in errors
    assert 1 <= saved(workdir) < 10 and not (workdir / "lock.json").exists()
    assert_goes_on(images, workdir, saved(workdir))
    assert_same_run(finished, workdir)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(images, finished, tmp_path, caplog, capsys):
    workdir = tmp_path / "damaged"
    config = small.config(data={"path": str(images)}, checkpoint_steps=4, epochs=2)
    train(config, str(workdir))
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)
    # In every large file: Orbax may leave copies of the data behind that nothing reads any more.
    for data in [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size > 1000]:
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    capsys.readouterr()
    train(config, str(workdir))
    assert "goes on from step 8" in capsys.readouterr().err
    assert f"{newest} is damaged" in caplog.text and newest.with_name("damaged-10").is_dir()
    assert_same_run(finished, workdir)


def test_another_config_is_refused_and_nothing_overwritten(images, finished):
    before = (finished / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"a run with optimizer.lr = 0.05, now 0.1; give the same settings"):
        train(small.config(lr=0.1, data={"path": str(images)}), str(finished))
    with pytest.raises(
        UserError, match=r"of 2 epochs, now 3, .* by --config\.trunk\.init_from=.*run/encoder\.safetensors"
    ):
        train(small.config(epochs=3, data={"path": str(images)}), str(finished))
    assert (finished / "config.json").read_bytes() == before


def test_other_images_are_refused(finished, tmp_path):
    other = small.write_images(tmp_path / "other", 41)
    with pytest.raises(UserError, match=r"was begun with other images than .*other: give theirs, or another --workdir"):
        train(small.config(data={"path": str(other)}), str(finished))


def test_images_of_val_among_those_to_train_on_are_told(tmp_path, caplog):
    small.write_images(tmp_path / "faces" / "train" / "a", 3)
    small.write_images(tmp_path / "faces" / "val" / "a", 3)
    loop.warn_of_val(small.config(data={"path": str(tmp_path / "faces" / "train")}))
    assert not caplog.text
    loop.warn_of_val(small.config(data={"path": str(tmp_path / "faces")}))
    assert f"both are trained on: --config.data.path={tmp_path}/faces/train leaves val out" in caplog.text


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


def test_a_save_that_waits_for_the_one_before_is_told_once(images, tmp_path, monkeypatch, caplog):
    """Where epochs are short and the disk is slow a run stands still at the end of each."""
    monkeypatch.setattr(loop, "WAIT", 0.0)
    train(small.config(data={"path": str(images)}), str(tmp_path / "run"))
    told = [record.getMessage() for record in caplog.records if "waited" in record.getMessage()]
    assert len(told) == 1 and told[0].endswith("--config.checkpoint_steps=N with an N above 5 saves less often")


def test_out_of_memory_is_told_without_traceback(images, tmp_path, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.")

    monkeypatch.setattr(loop, "prepare", lambda *_: (types.SimpleNamespace(step=0), exhausted))
    with pytest.raises(UserError, match=r"does not hold a step of 8 images; try .*--config\.accumulate=2"):
        train(small.config(data={"path": str(images)}), str(tmp_path / "run"))


def test_a_loss_that_is_not_finite_names_its_term_and_step():
    with pytest.raises(UserError, match="loss/grouping is nan at step 7; the last good checkpoint is kept"):
        check_finite({"loss/total": np.nan, "loss/grouping": np.nan, "loss/similarity": 1.0}, 7)


def test_a_run_whose_loss_is_not_finite_stops_and_keeps_the_last_good_checkpoint(images, tmp_path, monkeypatch):
    config = small.config(data={"path": str(images)}, checkpoint_steps=1)
    real = loop.step_program

    def diverging(*arguments):
        step = real(*arguments)

        def diverge(state, pixels):
            state, metrics = step(state, pixels)
            return state, metrics | {"loss/grouping": np.float32("nan")} if int(state.step) == 4 else metrics

        return diverge

    monkeypatch.setattr(loop, "step_program", diverging)
    with pytest.raises(
        UserError, match=r"loss/grouping is nan at step 4; the last good checkpoint is kept\. Start again"
    ):
        train(config, str(tmp_path / "run"))
    assert saved(tmp_path / "run") == 3 and [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3]


def test_a_state_that_is_not_finite_is_never_saved(images, tmp_path, monkeypatch):
    """The loss of a step is that before its update: it is finite where the update overflows."""
    workdir = tmp_path / "run"
    config = small.config(data={"path": str(images)}, checkpoint_steps=1, keep_checkpoints=1)
    real = loop.step_program

    def overflowing(*arguments):
        step = real(*arguments)

        def overflow(state, pixels):
            state, metrics = step(state, pixels)
            if int(state.step) == 3:
                state = state.replace(params=jax.tree.map(lambda x: x * np.float32("inf"), state.params))
            return state, metrics

        return overflow

    monkeypatch.setattr(loop, "step_program", overflowing)
    for _ in range(2):  # the second time it goes on from step 2, and meets the same
        with pytest.raises(UserError, match=r"params\..* is not finite after step 3, which is not saved"):
            train(config, str(workdir))
        assert saved(workdir) == 2
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(run_state(workdir)[1]))
        assert all(np.isfinite(x).all() for x in load_file(workdir / "encoder.safetensors").values())


def test_two_runs_in_one_folder_are_refused_and_the_first_goes_on(images, finished, tmp_path):
    workdir = tmp_path / "run"
    process = start(images, workdir)
    wait_for_line(process, workdir, 1)
    with pytest.raises(
        UserError, match=rf"run is in use by process {process.pid} on .*: wait until that ends, stop it"
    ):
        train(small.config(data={"path": str(images)}), str(workdir))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert_same_run(finished, workdir)


@pytest.mark.parametrize("log_steps", [1, 100])
def test_a_run_that_was_taken_over_writes_nothing_more(log_steps, images, tmp_path, monkeypatch):
    workdir, after_step = tmp_path / "run", loop.Run._after_step

    def taken_over_at_step_4(run, step, *rest):
        if step == 4:
            other = json.loads((workdir / "lock.json").read_text()) | {"id": "another", "host": "node7"}
            (workdir / "lock.json").write_text(json.dumps(other))
        after_step(run, step, *rest)

    monkeypatch.setattr(loop.Run, "_after_step", taken_over_at_step_4)
    with pytest.raises(UserError, match=r"was taken over by process \d+ on node7"):
        train(small.config(data={"path": str(images)}, checkpoint_steps=4, log_steps=log_steps), str(workdir))
    assert all(line["step"] < 4 for line in metrics(workdir)) and saved(workdir) == 0
    assert json.loads((workdir / "lock.json").read_text())["id"] == "another"


def test_what_a_message_offers_may_change(images, finished, tmp_path):
    """The limit of bad images at any time; what changes the numbers as long as there is no checkpoint and no encoder."""
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    train(small.config(data={"path": str(images), "max_bad_fraction": 0.5}), str(workdir))
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "encoder.safetensors").unlink()
    train(small.config(data={"path": str(images)}, batch_size=4, epochs=1, method="byol"), str(workdir))
    assert [line["step"] for line in metrics(workdir)] == list(range(1, 11))
    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 4


def test_a_complete_run_decodes_nothing_into_a_cache(images, finished, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    train(small.config(data={"path": str(images), "cache": str(tmp_path / "cache")}), str(workdir))
    assert not (tmp_path / "cache").exists() and metrics(workdir) == metrics(finished)


def test_the_weights_that_a_run_started_from_may_be_gone_when_it_goes_on(images, finished, tmp_path):
    weights = Path(shutil.copy(finished / "encoder.safetensors", tmp_path))
    settings = dict(data={"path": str(images)}, trunk={"init_from": str(weights)}, checkpoint_steps=5)
    train(small.config(**settings, keep_checkpoints=2), str(tmp_path / "run"))
    whole = Path(shutil.copytree(tmp_path / "run", tmp_path / "whole"))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "10")
    weights.unlink()
    train(small.config(**settings, keep_checkpoints=2), str(tmp_path / "run"))
    assert_same_run(tmp_path / "run", whole)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "encoder.safetensors").unlink()
    with pytest.raises(UserError, match=r"no file .*encoder\.safetensors"):
        train(small.config(**settings), str(tmp_path / "run"))


@pytest.mark.parametrize("content", ["", '{"alpha": 0.3, ', "[]", "\0\0\0"])
def test_a_damaged_config_file_is_told_in_a_line(content, images, finished, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    (workdir / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is damaged .*put it back from a copy"):
        train(small.config(data={"path": str(images)}), str(workdir))
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        run_state(workdir)
    assert (workdir / "config.json").read_text() == content


def test_lines_of_metrics_that_are_damaged_are_left_out(images, finished, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(workdir / "checkpoints" / "10")
    lines = (workdir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_bytes(b"".join(lines[:3]) + b"[1, 2]\n\xff\x00\n" + lines[3])
    train(small.config(data={"path": str(images)}), str(workdir))
    assert [line["step"] for line in metrics(workdir)] == [1, 2, 3, 4, 6, 7, 8, 9, 10]


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


@pytest.mark.parametrize("left", ["none", "of an earlier step"])
def test_a_run_that_was_ended_before_its_encoder_was_written_gets_it(left, images, finished, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    encoder = workdir / "encoder.safetensors"
    encoder.unlink()
    if left != "none":
        save_file(load_file(finished / encoder.name), encoder, metadata={"step": "9"})
    train(small.config(data={"path": str(images)}), str(workdir))
    assert metrics(workdir) == metrics(finished)
    assert_same_encoder(workdir, finished)


def assert_same_encoder(a: Path, b: Path) -> None:
    found, expected = (load_file(run / "encoder.safetensors") for run in (a, b))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert encoder_step(a / "encoder.safetensors") == encoder_step(b / "encoder.safetensors")


def test_only_the_last_encoder_must_be_written(images, finished, tmp_path, monkeypatch, caplog):
    """A full disk costs one of those before; a run that ends without any would not be told from a whole one."""
    written, export = [], loop.export_encoder

    def full(path, trunk, config, facts):
        written.append(facts["step"])
        raise UserError(f"{path} cannot be written: No space left on device; give another place")

    monkeypatch.setattr(loop, "export_encoder", full)
    settings = small.config(data={"path": str(images)}, checkpoint_steps=5)
    with pytest.raises(UserError, match="No space left on device; make room there, and the same command writes it"):
        train(settings, str(tmp_path / "run"))
    assert written == ["5", "10"] and "No space left on device; training goes on" in caplog.text
    monkeypatch.setattr(loop, "export_encoder", export)
    train(settings, str(tmp_path / "run"))
    assert_same_encoder(tmp_path / "run", finished)


def test_a_run_whose_checkpoints_were_removed_does_not_begin_anew_over_it(images, finished, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match="holds the encoder of step 10 and no checkpoint to go on from: put the"):
        train(small.config(data={"path": str(images)}), str(workdir))
    assert metrics(workdir) == metrics(finished)
    assert_same_encoder(workdir, finished)


def test_a_run_that_was_killed_while_it_saved_first_begins_anew(images, finished, tmp_path):
    """Its encoder may be there before its checkpoint is."""
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(workdir / "checkpoints")
    save_file(load_file(finished / "encoder.safetensors"), workdir / "encoder.safetensors", metadata={"step": "4"})
    train(small.config(data={"path": str(images)}, checkpoint_steps=4), str(workdir))
    assert_same_run(workdir, finished)
