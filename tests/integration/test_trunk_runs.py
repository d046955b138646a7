"""Runs of trunks other than bottleneck ResNets, from images to features: MAE on a ViT, SimFLE on basic blocks."""

import json

import jax
import numpy as np
import pytest
import small
from small_probe import COLOURS, write_split

import simfle_jax
from configs import probe as probe_config
from simfle_jax.commands import convert, embed
from simfle_jax.config import pretraining
from simfle_jax.errors import UserError
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing
from simfle_jax.models.transformer import positions
from simfle_jax.training.loop import train
from simfle_jax.training.restore import run_state
from simfle_jax.training.state import trunk_of

TRUNKS = {
    "mae": {"kind": "vit", "stage_sizes": (1,), "width": 16, "heads": 2, "patch": 4},
    "simfle": {"kind": "basic", "stage_sizes": (1, 1), "width": 4},
}


@pytest.fixture(scope="module", params=TRUNKS)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def run(method, tmp_path_factory):
    """A run of two epochs of two steps; a ViT of MAE sees plain images of 8 pixels alone."""
    folder = tmp_path_factory.mktemp(method)
    images = small.write_images(folder / "images", 16)
    changes = {"views": {"size": 16, "plain_size": 8}, "facemae": {"masking": "random"}} if method == "mae" else {}
    settings = small.settings(method=method, trunk=TRUNKS[method], data={"path": str(images)}, **changes)
    train(pretraining(settings), str(folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    write_split(folder / "train", dict.fromkeys(COLOURS, 4), size=16)
    write_split(folder / "val", dict.fromkeys(COLOURS, 3), seed=1, size=16)
    return folder


def converted(*arguments) -> str:
    return convert.convert(convert.make_parser().parse_args([str(each) for each in arguments]))


def test_it_trains_and_exports(run, method):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and all(np.isfinite(line["loss/total"]) for line in lines)
    encoder = simfle_jax.load_encoder(run)
    assert (encoder.trunk.kind, encoder.size) == (TRUNKS[method]["kind"], 8 if method == "mae" else 16)
    assert encoder.metadata["method"] == {"mae": "MAE", "simfle": "SimFLE"}[method]
    config, state = run_state(run)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(encoder.arrays), jax.device_get(trunk_of(state)))
    if method == "mae":
        np.testing.assert_array_equal(encoder.arrays["stats"]["positions"], positions(16, config.grid))


def test_it_is_probed_and_embedded(run, faces, tmp_path):
    settings = probe_config.get_config()
    settings.update(encoder=str(run), epochs=2)
    settings.data.path = str(faces)
    results = run_probe(probing(settings), str(tmp_path / "probe"))
    assert results["count"] == 9 and results["encoder_hash"] == simfle_jax.load_encoder(run).hash
    embed.main([str(faces / "val"), "--encoder", str(run), "--out", str(tmp_path / "features.npz")])
    features = np.load(tmp_path / "features.npz")["features"]
    assert features.shape == (9, simfle_jax.load_encoder(run).dim) and np.isfinite(features).all()
    assert "classifier of blue, green, red" in converted(tmp_path / "probe", tmp_path / "classifier.safetensors")


def test_it_is_converted_as_far_as_that_makes_sense(run, method, tmp_path):
    converted(run, tmp_path / "trunk.safetensors")
    assert simfle_jax.load_encoder(tmp_path / "trunk.safetensors").hash == simfle_jax.load_encoder(run).hash
    assert "model card" in converted(run, tmp_path / "card.md")
    with pytest.raises(UserError, match=f"hold simfle or byol on bottleneck ResNets, not {method} on"):
        converted(run, tmp_path / "checkpoint.pth.tar")
    assert not (tmp_path / "checkpoint.pth.tar").exists()


def test_the_target_branch_is_there_or_its_absence_is_told(run, method, tmp_path):
    if method == "simfle":
        assert simfle_jax.load_encoder(run, "target").metadata["branch"] == "target"
        return
    with pytest.raises(UserError, match="has no target network"):
        simfle_jax.load_encoder(run, "target")
    with pytest.raises(UserError, match="has no target network"):
        converted(run, tmp_path / "target.safetensors", "--branch", "target")
