"""The protocol landmarks through probe.py's own way, on generated faces."""

import errno
import json

import numpy as np
import pytest
from small_probe import write_encoder

from configs import probe as probe_config
from simfle_jax.commands.faces import write_faces
from simfle_jax.data.synthetic_faces import DEMO
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import tuning
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces") / "d"
    write_faces(folder, 64, 32, 0, 24, DEMO)
    return folder


@pytest.fixture(scope="module")
def settings(data, tmp_path_factory):
    encoder = write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.safetensors")

    def make(**changes):
        config = probe_config.get_config()
        config.update(encoder=str(encoder), protocol="landmarks", data={"path": str(data)})
        config.update(changes)
        return probing(config)

    return make


def refused(*arguments):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_head_is_fitted_read_again_and_evaluates_to_the_same(settings, data, tmp_path, caplog, monkeypatch):
    results = run_probe(settings(), str(tmp_path / "p"))
    assert results["outer_eyes"]["nme"] < results["mean_shape"]["outer_eyes"]["nme"]
    assert (results["count"], results["points"], results["train_count"], results["head"]) == (32, 68, 64, "linear")
    assert list(results["parts"]) == ["jaw", "brows", "nose", "eyes", "mouth"] and results["subsets"] == {}
    assert json.loads((tmp_path / "p" / "results.json").read_text()) == json.loads(json.dumps(results))
    assert {"curve.png", "faces.png"} <= {path.name for path in (tmp_path / "p").iterdir()}
    with np.load(tmp_path / "p" / "predicted_landmarks.npz") as found, np.load(data / "landmarks.npz") as true:
        rows = [true["name"].tolist().index(name) for name in found["name"]]
        points = true["points"][rows]
        far = np.sqrt(np.square(found["points"] - points).sum(-1)).mean(1)  # pixels, with no help from the package
        eyes = np.sqrt(np.square(points[:, 36] - points[:, 45]).sum(-1))
    assert (far / eyes).mean() == pytest.approx(results["outer_eyes"]["nme"], rel=1e-4)
    assert run_probe(settings(), str(tmp_path / "p"))["outer_eyes"] == results["outer_eyes"]
    assert f"{tmp_path / 'p'} is complete; nothing to do" in caplog.text
    again = run_probe(settings(protocol="linear", eval_only=True), str(tmp_path / "p"))
    assert again["outer_eyes"] == results["outer_eyes"] and (tmp_path / "p" / "evaluation.json").exists()
    (tmp_path / "p" / "evaluation.json").unlink()
    monkeypatch.setattr("simfle_jax.runs.folder.write_json", refused)
    unwritten = run_probe(settings(eval_only=True), str(tmp_path / "p"))
    assert unwritten["outer_eyes"] == results["outer_eyes"] and "may only be read: evaluation.json was" in caplog.text
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"belongs to encoder v2-.*: give its own"):
        run_probe(settings(untrained=True, eval_only=True), str(tmp_path / "p"))
    with pytest.raises(UserError, match=r"is a run with landmarks\.head = 'linear', now 'attention'"):
        run_probe(settings(landmarks={"head": "attention"}), str(tmp_path / "p"))


def test_subsets_and_images_without_points_are_told(settings, data, tmp_path, caplog):
    with np.load(data / "landmarks.npz") as true:
        keep = np.arange(len(true["name"])) != len(true["name"]) - 1
        names = true["name"][keep].astype("<U64")
        flags = np.char.find(names, "val/anger") == 0
        names[0] = "train/anger/gone.jpg"
        np.savez(tmp_path / "some.npz", name=names, points=true["points"][keep], subsets=flags[:, None],
                 subset_names=np.array(["angry"]))  # fmt: skip
    changes = {"file": str(tmp_path / "some.npz"), "head": "attention"}
    results = run_probe(settings(landmarks=changes, epochs=2, batch_size=64), str(tmp_path / "p"))
    assert results["subsets"]["angry"]["count"] == 4 and results["skipped"] == 2 and results["count"] == 31
    assert "1 of 32 images in val have no points and are left out" in caplog.text
    assert "has points of 1 images that are not in train, first train/anger/gone.jpg" in caplog.text
    assert "no points in" in (tmp_path / "p" / "bad_images.txt").read_text()


TUNED = {
    "landmarks": {"head": "finetune"},
    "epochs": 12,
    "batch_size": 16,
    "finetune": {"lr": 0.05, "warmup_epochs": 1.0, "layer_decay": 1.0},
}


def test_a_tuned_trunk_beats_the_mean_shape_goes_on_to_the_bit_and_is_read_again(settings, tmp_path, monkeypatch):
    """From scratch, with two seeds: the supervised ceiling. The second seed is stopped within an epoch."""

    class Stopped(tuning.Stop):
        def asked(self, step):
            return len(begun) == 3 and step == 14

    begun, batches, changes = [], tuning.TrainBatches, TUNED | {"untrained": True}
    monkeypatch.setattr(tuning, "TrainBatches", lambda *a, **k: begun.append(k["start_step"]) or batches(*a, **k))
    whole = run_probe(settings(**changes, seed=1), str(tmp_path / "whole"))
    assert whole["outer_eyes"]["nme"] < 0.9 * whole["mean_shape"]["outer_eyes"]["nme"] and whole["head"] == "finetune"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(tuning, "Stop", Stopped)
        run_probe(settings(**changes, seeds=(0, 1)), str(tmp_path / "p"))
    found = run_probe(settings(**changes, seeds=(0, 1)), str(tmp_path / "p"))
    assert begun == [0, 0, 0, 14]
    values = found["over_seeds"]["nme"]["values"]
    assert values == [found["outer_eyes"]["nme"], whole["outer_eyes"]["nme"]] and values[0] != values[1]
    assert found["over_seeds"]["box"]["auc_10"]["values"][1] == whole["box"]["auc_10"]
    tuned = load_encoder(tmp_path / "p")
    assert found["tuned_encoder_hash"] == tuned.hash != found["encoder_hash"]
    again = run_probe(settings(eval_only=True, seeds=(0, 1)), str(tmp_path / "p"))  # with the encoder it started from
    assert again["over_seeds"]["nme"] == found["over_seeds"]["nme"] and again["head"] == "finetune"
