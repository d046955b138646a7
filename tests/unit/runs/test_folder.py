"""The claim of a run's folder, as the processes that did not make it see it."""

import dataclasses
import json
import shutil
import threading

import pytest
import small

from simfle_jax.errors import UserError
from simfle_jax.runs import folder as folders
from simfle_jax.runs.folder import claim, wait_for_claim
from simfle_jax.training.restore import identity, upgraded_identity
from simfle_jax.writing import write_json, writing_whole


def test_a_folder_that_a_shared_disk_shows_late_is_waited_for(tmp_path):
    folder = tmp_path / "run"

    def appear():
        folder.mkdir()
        write_json(folder / "config.json", {})

    late = threading.Timer(0.5, appear)
    late.start()
    wait_for_claim(folder, seconds=30)
    assert (folder / "config.json").exists()
    late.join()


def test_a_folder_that_never_appears_is_told(tmp_path):
    with pytest.raises(
        UserError, match="of process 0 is not seen here: --workdir must be on a disk that all hosts share"
    ):
        wait_for_claim(tmp_path / "run", seconds=0.1)


def settings(**changes):
    config = small.config(data={"path": "/a", "sources": ("folder@/a=1", "folder@/b=3")}, trunk={"init_from": "/w.pth"})
    return identity(dataclasses.replace(config, **{
        name: dataclasses.replace(getattr(config, name), **values) for name, values in changes.items()
    }), "f" * 64)  # fmt: skip


@pytest.fixture
def begun(tmp_path):
    """The folder of a run with a checkpoint."""
    claim(tmp_path / "run", settings(), upgraded_identity)
    (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    return tmp_path / "run"


def test_what_only_says_where_a_file_lies_may_change(begun):
    moved = {
        "path": "/x",
        "cache": "/x/cache",
        "listing": "/x/listing.npz",
        "sources": ("folder@/x=y/a=1", "folder@/z=3"),
    }
    claim(begun, settings(data=moved, trunk={"init_from": "/elsewhere/w.pth"}), upgraded_identity)
    for change in ({"data": {"sources": ("folder@/a=2", "folder@/b=3")}}, {"trunk": {"init_from": ""}}):
        with pytest.raises(UserError, match=r"is a run with (data.sources|trunk.init_from) = "):
            claim(begun, settings(**change), upgraded_identity)


def test_a_run_that_has_not_looked_for_its_canvas_may_find_one(tmp_path):
    """As a published checkpoint became a run by an earlier version."""
    folder = tmp_path / "run"
    claim(folder, settings(data={"canvas": 0, "fitted": 0}), upgraded_identity)
    (folder / "checkpoints" / "3").mkdir(parents=True)
    claim(folder, settings(data={"canvas": 0, "fitted": 24}), upgraded_identity)
    with pytest.raises(UserError, match=r"data\.fitted = 24, now 32"):
        claim(folder, settings(data={"canvas": 0, "fitted": 32}), upgraded_identity)


def test_the_environment_is_that_in_which_a_run_was_begun(begun, monkeypatch):
    first = json.loads((begun / "environment.json").read_text())
    monkeypatch.setattr(folders, "environment", lambda: first | {"time": "later"})
    claim(begun, settings(), upgraded_identity)
    assert json.loads((begun / "environment.json").read_text()) == first
    monkeypatch.setattr(folders, "environment", lambda: first | {"git_commit": "new"})
    for _ in range(2):
        claim(begun, settings(), upgraded_identity)
    assert json.loads((begun / "environment.json").read_text()) == first | {
        "later_starts": [first | {"git_commit": "new"}]
    }


def test_the_folder_of_a_probe_is_not_taken_over(tmp_path):
    (tmp_path / "config.json").write_text('{"protocol": "knn"}')
    with pytest.raises(UserError, match="is the folder of a probe, not of a pre-training: give another --workdir"):
        claim(tmp_path, settings(), upgraded_identity)
    assert (tmp_path / "config.json").read_text() == '{"protocol": "knn"}'


def test_the_folder_of_a_pre_training_is_not_taken_over_by_a_probe(tmp_path):
    claim(tmp_path / "run", settings(), upgraded_identity)
    with pytest.raises(UserError, match="is the folder of a pre-training, not of a probe"):
        claim(tmp_path / "run", {"protocol": "knn"}, lambda found: found)


def test_a_run_whose_checkpoints_were_removed_keeps_its_settings(tmp_path):
    claim(tmp_path / "run", settings(), upgraded_identity)
    (tmp_path / "run" / "encoder.safetensors").touch()
    claim(tmp_path / "run", settings(), upgraded_identity)
    with pytest.raises(UserError, match=r"is a run with optimizer\.lr = "):
        claim(tmp_path / "run", settings(optimizer={"lr": 9.0}), upgraded_identity)


def test_a_start_that_was_killed_while_it_wrote_its_settings_goes_on(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(KeyError), writing_whole(tmp_path / "run" / "config.json") as temporary:
        temporary.write_text("{")
        left = shutil.copy(temporary, tmp_path / "left")
        name = temporary.name
        raise KeyError
    shutil.move(left, tmp_path / "run" / name)  # as a kill leaves it
    claim(tmp_path / "run", settings(), upgraded_identity)
