"""Runs whose canvas fits their data: what is recorded, how they go on, and that every source gives the same run."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small

from simfle_jax.config import pretraining
from simfle_jax.data.packing import pack
from simfle_jax.errors import UserError
from simfle_jax.training import fitting, loop
from simfle_jax.training.loop import train
from simfle_jax.training.restore import run_config


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Sixteen images of 12 pixels, sixteen of 20 and eight of 40, which are halved."""
    folder = tmp_path_factory.mktemp("data") / "images"
    for size, count in ((12, 16), (20, 16), (40, 8)):
        small.write_images(folder / f"{size}", count, size)
    return folder


def settings(images: Path, **data):
    changes = {"data": {"canvas": 0, "path": str(images)} | data}
    return small.config(method="byol", checkpoint_steps=2, keep_checkpoints=9, **changes)


def losses(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key.startswith("loss/")} for line in lines]


def data_of(workdir: Path) -> dict:
    return json.loads((workdir / "config.json").read_text())["data"]


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(settings(images), str(workdir))
    return workdir


def test_the_canvas_is_recorded_and_is_that_of_the_batches(finished):
    assert (data_of(finished)["canvas"], data_of(finished)["fitted"]) == (0, 20)
    config = run_config(finished)
    assert (config.canvas, config.own_sizes, config.least_side) == (20, True, 16)
    assert len(losses(finished)) == 10


def cut_to(finished: Path, step: int, workdir: Path) -> Path:
    """A copy of a run that was stopped at a step."""
    shutil.copytree(finished, workdir)
    for saved in (workdir / "checkpoints").iterdir():
        if saved.name.isdigit() and int(saved.name) > step:
            shutil.rmtree(saved)
    return workdir


def test_a_resumed_run_is_the_same_run_and_does_not_look_again(images, finished, tmp_path, monkeypatch, capsys):
    workdir = cut_to(finished, 4, tmp_path / "run")
    monkeypatch.setattr(fitting, "fitting_canvas", None)
    train(settings(images), str(workdir))
    assert "goes on from step 4" in capsys.readouterr().err
    assert losses(workdir) == losses(finished)


def test_data_that_grew_are_refused_for_themselves_and_not_for_their_canvas(images, finished, tmp_path):
    workdir, grown = cut_to(finished, 4, tmp_path / "run"), tmp_path / "grown"
    shutil.copytree(images, grown)
    small.write_images(grown / "large", 40, 31)
    with pytest.raises(UserError, match=r"was begun with other images than .*: give theirs, or another --workdir"):
        train(settings(grown), str(workdir))
    assert data_of(workdir)["fitted"] == 20


def test_a_run_of_an_earlier_version_keeps_its_canvas(images, tmp_path, monkeypatch):
    """It recorded the canvas that was the default then, and is started again with today's default, 0."""
    before = tmp_path / "before"
    train(settings(images, canvas=18), str(before))
    recorded = json.loads((before / "config.json").read_text())
    del recorded["data"]["fitted"]
    (before / "config.json").write_text(json.dumps(recorded))
    workdir = cut_to(before, 4, tmp_path / "run")
    monkeypatch.setattr(fitting, "fitting_canvas", None)
    train(settings(images), str(workdir))
    assert losses(workdir) == losses(before)
    assert data_of(workdir)["canvas"] == 18


def test_another_canvas_than_the_recorded_one_is_refused(images, finished):
    with pytest.raises(UserError, match=r"is a run with data.canvas = 0, now 32"):
        train(settings(images, canvas=32), str(finished))


@pytest.mark.parametrize("source", ["array_record", "tfds", "cache"])
def test_every_source_gives_the_same_run(source, images, finished, tmp_path):
    if source == "cache":
        data = {"cache": str(tmp_path / "kept")}
    elif source == "array_record":
        pack(str(images), str(tmp_path / "pack"), shard_bytes=20_000)
        data = {"source": "array_record", "path": str(tmp_path / "pack")}
    else:
        pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
        from simfle_jax.data.tfds_builders import build

        build(str(images), str(tmp_path / "tfds"), "unlabelled")
        data = {"source": "tfds:simfle_folder/unlabelled:train", "path": str(tmp_path / "tfds")}
    train(settings(images, **data), str(tmp_path / "run"))
    assert losses(tmp_path / "run") == losses(finished)
    assert data_of(tmp_path / "run")["fitted"] == 20


def test_parts_of_a_batch_hold_their_own_sides(images, tmp_path, monkeypatch):
    seen = []
    of_batch = loop.canvases.of_batch
    monkeypatch.setattr(loop.canvases, "of_batch", lambda batch: seen.append(batch["side"]) or of_batch(batch))
    train(dataclasses.replace(settings(images), accumulate=2, epochs=1), str(tmp_path / "run"))
    assert set(np.concatenate(seen).tolist()) == {12, 20}
    assert all(np.isfinite(list(line.values())).all() for line in losses(tmp_path / "run"))


@pytest.mark.parametrize("canvas", [1, 7, -1])
def test_a_canvas_too_small_to_hold_anything_is_refused(canvas):
    with pytest.raises(UserError, match=rf"data.canvas = {canvas} must be at least 8 pixels, or 0 to fit the data"):
        pretraining(small.settings(data={"canvas": canvas}))
