"""TensorBoard and Weights & Biases: what their packages are told. Their modules here are ones that note it."""

import contextlib
import sys
import threading
import types

import numpy as np
import pytest
import small
from PIL import Image

from simfle_jax.errors import UserError
from simfle_jax.runs.metrics_log import MetricsLog
from simfle_jax.runs.writers import Picture, optional_writers

VALUES = {"step": 7, "seconds": 1.5, "loss/total": 3.25}
PICTURE = Picture("images/masks", 5, np.arange(60, dtype=np.uint8).reshape(4, 5, 3))


@pytest.fixture
def tensorboard(monkeypatch):
    """Folders, first steps and scalars that tensorboardX was given."""
    told = types.SimpleNamespace(opened=[], scalars=[], images=[])

    class SummaryWriter:
        def __init__(self, folder, purge_step=None):
            told.opened.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            told.scalars.append((name, value, step))

        def add_image(self, name, pixels, step, dataformats):
            if told.full:
                raise OSError(28, "No space left on device")
            told.images.append((name, pixels, step, dataformats))

        def flush(self):
            told.flushed = len(told.scalars), len(told.images)

        def close(self):
            told.closed = len(told.scalars)

    told.full = False

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    return told


@pytest.fixture
def wandb(monkeypatch):
    """Runs that wandb was asked for, and what each was told."""
    runs = []

    def init(**settings):
        runs.append(types.SimpleNamespace(settings=settings, told=[]))
        return types.SimpleNamespace(
            log=lambda values, step=None, **how: runs[-1].told.append((step, values, *how.items())),
            finish=lambda exit_code: runs[-1].told.append(exit_code),
        )

    image = types.SimpleNamespace
    made = types.SimpleNamespace(init=init, Image=lambda pixels, caption: image(pixels=pixels, caption=caption))
    monkeypatch.setitem(sys.modules, "wandb", made)
    return runs


def test_tensorboard_gets_the_values_of_metrics_jsonl(tensorboard, tmp_path):
    log = MetricsLog(tmp_path, 0, optional_writers(small.config(tensorboard=True), tmp_path, 0))
    log.write(VALUES)
    assert tensorboard.opened == [(str(tmp_path / "tensorboard"), 1)]
    assert tensorboard.scalars == [("step", 7, 7), ("seconds", 1.5, 7), ("loss/total", 3.25, 7)]
    assert tensorboard.flushed == (3, 0), "a killed run loses what was not written"


@pytest.mark.parametrize("good", [True, False])
def test_the_end_of_a_run_waits_for_what_is_not_written_yet(good, tensorboard, wandb, tmp_path):
    config = small.config(tensorboard=True, wandb=True)
    with contextlib.suppress(KeyError), MetricsLog(tmp_path, 0, optional_writers(config, tmp_path, 0)) as log:
        log.write(VALUES)
        assert good or {}["a run that fails"]
    assert tensorboard.closed == 3 and wandb[0].told[-1] == (0 if good else 1)


def test_tensorboard_drops_what_lies_beyond_the_restored_step(tensorboard, tmp_path):
    optional_writers(small.config(tensorboard=True), tmp_path, 6)
    assert tensorboard.opened[0][1] == 7


def test_wandb_gets_the_values_of_metrics_jsonl(wandb, tmp_path):
    config = small.config(wandb=True)
    MetricsLog(tmp_path, 0, optional_writers(config, tmp_path, 0)).write(VALUES)
    assert wandb[0].told == [(7, VALUES)]
    assert wandb[0].settings["config"]["seed"] == config.seed and wandb[0].settings["resume"] == "allow"


def test_a_run_that_goes_on_is_the_same_run_at_wandb(wandb, tmp_path):
    for start in (0, 6, 8):
        optional_writers(small.config(wandb=True), tmp_path, start)
    first, *others = [run.settings["id"] for run in wandb]
    assert first and others == [first, first]


def test_a_run_that_begins_anew_is_another_one(wandb, tmp_path):
    for _ in range(2):
        optional_writers(small.config(wandb=True), tmp_path, 0)
    assert wandb[0].settings["id"] != wandb[1].settings["id"]


def test_a_damaged_id_is_made_anew(wandb, tmp_path):
    (tmp_path / "wandb_id.txt").write_bytes(b"\xff\0")
    optional_writers(small.config(wandb=True), tmp_path, 6)
    assert wandb[0].settings["id"].isalnum()
    assert (tmp_path / "wandb_id.txt").read_text() == wandb[0].settings["id"] + "\n"


def test_tensorboard_gets_pictures_and_a_full_disk_costs_only_them(tensorboard, tmp_path, caplog):
    log = MetricsLog(tmp_path, 0, optional_writers(small.config(tensorboard=True), tmp_path, 0))
    log.show([PICTURE])
    assert tensorboard.images == [("images/masks", PICTURE.pixels, 5, "HWC")] and tensorboard.flushed == (0, 1)
    tensorboard.full = True
    log.show([PICTURE])
    assert "images/masks of step 5 could not be written (No space left on device); training goes on" in caplog.text


def test_a_log_that_fails_is_left_out_and_costs_the_run_nothing(tensorboard, wandb, tmp_path, caplog):
    def fail(*_):
        raise RuntimeError("of the package's own")

    with MetricsLog(tmp_path, 0, optional_writers(small.config(tensorboard=True, wandb=True), tmp_path, 0)) as log:
        sys.modules["tensorboardX"].SummaryWriter.add_scalar = fail
        log.write(VALUES)
        log.write(VALUES | {"step": 8})
        sys.modules["tensorboardX"].SummaryWriter.close = lambda _: pytest.fail("it may block for ever")
    assert caplog.text.count("TensorBoard takes no more metrics (of the package's own) and is left out") == 1
    assert [values["step"] for _, values in wandb[0].told[:2]] == [7, 8]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_thread_that_died_does_not_block_the_run(tmp_path, caplog):
    """That of tensorboardX ends without a word; the queue to it then fills up."""
    pytest.importorskip("tensorboardX", reason="no tensorboardX here: pip install 'simfle-jax[report]'")
    (writer,) = optional_writers(small.config(tensorboard=True), tmp_path, 0)
    with MetricsLog(tmp_path, 0, [writer]) as log:
        log.write(VALUES)
        worker = next(each for each in threading.enumerate() if type(each).__name__ == "_EventLoggerThread")
        worker.stop()
        for step in range(8, 30):
            log.write(VALUES | {"step": step})
        log.show([PICTURE])
    assert caplog.text.count("its thread has ended") == 1


def test_wandb_that_cannot_begin_is_told_in_one_line(tmp_path, monkeypatch):
    def init(**_):
        raise RuntimeError("api_key not\nconfigured")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    with pytest.raises(UserError, match=r"wandb cannot begin \(api_key not configured\): .*WANDB_MODE=offline"):
        optional_writers(small.config(wandb=True), tmp_path, 0)


def test_wandb_gets_pictures_without_a_step_of_their_own(wandb, tmp_path):
    MetricsLog(tmp_path, 0, optional_writers(small.config(wandb=True), tmp_path, 0)).show([PICTURE])
    ((step, values, how),) = wandb[0].told
    assert step is None and how == ("commit", False), "W&B drops what is of an earlier step"
    assert values["images/masks"].pixels is PICTURE.pixels and "step 5" in values["images/masks"].caption


def test_wandb_itself_offline(tmp_path, monkeypatch):
    package = pytest.importorskip("wandb", reason="no W&B here: pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = MetricsLog(tmp_path, 0, optional_writers(small.config(wandb=True), tmp_path, 0))
    log.write(VALUES)
    log.show([PICTURE])
    log.write(VALUES | {"step": 8})
    package.finish()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (shown,) = (run / "files" / "media" / "images" / "images").glob("masks_*.png")
    with Image.open(shown) as image:
        np.testing.assert_array_equal(np.asarray(image), PICTURE.pixels)
    (told,) = run.glob("*.wandb")
    assert all(name in told.read_bytes() for name in (b"loss/total", b"images/masks"))


@pytest.mark.parametrize("name, package", [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_told_with_how_to_get_it(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{name} needs \w+: pip install .*\[report\]"):
        optional_writers(small.config(**{name: True}), tmp_path, 0)


def test_without_the_settings_nothing_is_imported(tmp_path, monkeypatch):
    for package in ("tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, package, None)
    assert optional_writers(small.config(), tmp_path, 0) == ()
