"""The exported encoder: a torch ResNet loads it and agrees; damaged and foreign files are named."""

import dataclasses
import json
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import simfle_jax
from simfle_jax.config import TrunkSettings, named_trunk
from simfle_jax.encoder import untrained_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.classifier import load_classifier
from simfle_jax.models.trunks import fresh_trunk
from simfle_jax.training.published import read_published
from simfle_jax.training.state import trunk_of
from simfle_jax.training.step import TrainStep
from simfle_jax.weights import torch_names
from simfle_jax.weights.encoder_file import architecture_text, export_encoder
from simfle_jax.weights.files import read_arrays
from simfle_jax.weights.init import initial_trunk
from simfle_jax.weights.trunk import find_trunk

CONFIG = small.config()


@pytest.fixture(scope="module")
def state():
    """A state whose statistics are not the initial ones."""
    quick = {"xla_backend_optimization_level": 0}  # it runs once
    fresh = jax.jit(TrainStep(CONFIG, 1).fresh_state, compiler_options=quick)()
    random = np.random.default_rng(0)
    return fresh.replace(
        stats=jax.tree.map(lambda x: np.abs(x + 0.1 * random.normal(size=x.shape)).astype("f4"), fresh.stats)
    )


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    export_encoder(path, trunk_of(state), CONFIG, {"step": "3"})
    return path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), np.uint8)


def test_a_torch_resnet_loads_it_strictly_and_gives_the_same_features(file, images):
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet

    network = ResNet(CONFIG.trunk.stage_sizes, CONFIG.trunk.width)
    network.load_state_dict({name: torch.from_numpy(x) for name, x in load_file(file).items()}, strict=True)
    x = (images / 255 - np.array(CONFIG.data.mean)) / np.array(CONFIG.data.std)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).numpy()
    found = simfle_jax.load_encoder(file)(images)
    assert found.dtype == np.float32 and found.shape == (5, CONFIG.trunk.features)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_features_are_the_mean_of_the_feature_map_whatever_the_batch(file, images):
    encoder = simfle_jax.load_encoder(file)
    together = encoder(images)
    np.testing.assert_allclose(encoder.feature_map(images).mean((1, 2)), together, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        np.concatenate([encoder(image[None]) for image in images]), together, rtol=1e-4, atol=1e-6
    )


def test_any_size_of_image_is_taken(file):
    encoder = simfle_jax.load_encoder(file)
    assert encoder(np.zeros((2, 20, 33, 3), np.uint8)).shape == (2, encoder.dim)
    assert encoder(np.zeros((0, 16, 16, 3), np.uint8)).shape == (0, encoder.dim)
    with pytest.raises(UserError, match="must be uint8"):
        encoder(np.zeros((2, 16, 16, 3), np.float32))


def test_the_shorter_side_is_resized_and_the_centre_cut_out(file):
    encoder, random = simfle_jax.load_encoder(file), np.random.default_rng(2)
    wide = random.integers(0, 256, (2, 16, 25, 3), np.uint8)  # as high as the encoder's images: nothing is resized
    np.testing.assert_allclose(encoder(wide), encoder(wide[:, :, 4:20]), rtol=1e-4, atol=1e-6)
    tall = wide.transpose(0, 2, 1, 3)
    np.testing.assert_allclose(encoder(tall), encoder(tall[:, 4:20]), rtol=1e-4, atol=1e-6)
    large = np.repeat(np.repeat(wide, 2, 1), 2, 2)
    smooth = np.full_like(large, 90)
    assert encoder.feature_map(large).shape == encoder.feature_map(wide).shape == (2, 2, 2, encoder.dim)
    np.testing.assert_allclose(encoder(smooth), encoder(smooth[:, :16, :16]), rtol=1e-4, atol=1e-6)


def test_metadata_tells_what_made_it(file):
    metadata = simfle_jax.load_encoder(file).metadata
    assert (metadata["method"], metadata["step"], metadata["size"]) == ("SimFLE", "3", "16")
    assert json.loads(metadata["mean"]) == list(CONFIG.data.mean)


def test_an_untrained_encoder_differs_but_is_of_the_same_architecture(file):
    trained = simfle_jax.load_encoder(file)
    fresh = untrained_encoder(trained, 0)
    assert fresh.hash != trained.hash and fresh.dim == trained.dim and fresh.size == trained.size
    assert fresh.hash == untrained_encoder(trained, 0).hash != untrained_encoder(trained, 1).hash


def test_pretraining_starts_from_a_trunk(file, state):
    trunk = initial_trunk(small.config(trunk={"init_from": str(file)}).trunk)
    for ours, theirs in ((trunk["params"], state.params), (trunk["stats"], state.stats)):
        jax.tree.map(np.testing.assert_array_equal, ours, jax.device_get(theirs["online"]["encoder"]))


def test_a_start_with_another_last_stride_or_other_heads_is_refused(file, tmp_path):
    """No array shows either: the network would be another one, without a word."""
    with safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    sizes = json.loads(metadata["architecture"])
    save_file(load_file(file), tmp_path / "other.safetensors",
              metadata=metadata | {"architecture": json.dumps(sizes | {"last_stride": 3 - sizes["last_stride"]})})  # fmt: skip
    with pytest.raises(UserError, match=rf"is of trunk\.last_stride = {3 - sizes['last_stride']}, .* give --config"):
        initial_trunk(small.config(trunk={"init_from": str(tmp_path / "other.safetensors")}).trunk)
    vit = named_trunk("vit_small_patch16_224") | {
        "stage_sizes": (1,),
        "width": 16,
        "heads": 2,
        "patch": 4,
        "init_from": "",
    }
    vit = TrunkSettings(**vit)
    arrays = torch_names.to_torch(torch_names.trunk_entries(vit), jax.device_get(fresh_trunk(vit, 0, 16)))
    sizes = json.loads(architecture_text(vit))
    for heads in (vit.heads, 2 * vit.heads):
        save_file(arrays, tmp_path / "vit.safetensors", metadata={"architecture": json.dumps(sizes | {"heads": heads})})
        start = dataclasses.replace(vit, init_from=str(tmp_path / "vit.safetensors"))
        if heads == vit.heads:
            initial_trunk(start, 16)
        else:
            with pytest.raises(
                UserError, match=rf"is of trunk\.heads = {heads}, .* give --config\.trunk\.heads={heads}"
            ):
                initial_trunk(start, 16)


def test_the_published_layout_round_trips_to_the_bit(state):
    trees = jax.device_get(
        {name: getattr(state, name) for name in ("params", "stats", "target_params", "target_stats")}
    )
    entries = torch_names.published(CONFIG)
    back = torch_names.to_ours(entries, torch_names.to_torch(entries, trees))
    jax.tree.map(np.testing.assert_array_equal, back, trees)


def test_pretraining_starts_from_a_torch_file_with_fc(file, tmp_path):
    torch = pytest.importorskip("torch")
    arrays = load_file(file) | {
        "fc.weight": np.zeros((9, CONFIG.trunk.features), np.float32),
        "fc.bias": np.zeros(9, np.float32),
    }
    torch.save({name: torch.from_numpy(x) for name, x in arrays.items()}, tmp_path / "resnet.pth")
    first, second = (
        initial_trunk(small.config(trunk={"init_from": str(path)}).trunk) for path in (file, tmp_path / "resnet.pth")
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_prefixes_and_other_precisions_are_read_as_float32(file, tmp_path, kind):
    arrays = {f"module.{name}": x.astype(kind) for name, x in load_file(file).items()}
    save_file(arrays, tmp_path / "other.safetensors")
    found = find_trunk(read_arrays(tmp_path / "other.safetensors")[0], "online", "other.safetensors")
    assert found.keys() == load_file(file).keys() and {x.dtype for x in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found["conv1.weight"], arrays["module.conv1.weight"].astype(np.float32))


def test_weights_that_would_give_nan_are_refused(file, tmp_path):
    bad, arrays = tmp_path / "bad.safetensors", load_file(file)
    for name, value, message in (
        ("layer2.0.conv1.weight", np.nan, r"not finite in 1 arrays \(layer2.0.conv1.weight\)"),
        ("bn1.running_mean", np.inf, r"not finite in 1 arrays \(bn1.running_mean\)"),
        ("bn1.running_var", -1, r"negative variances in 1 arrays \(bn1.running_var\)"),
    ):
        save_file(arrays | {name: np.full_like(arrays[name], value)}, bad)
        with pytest.raises(UserError, match=message):
            simfle_jax.load_encoder(bad)
        with pytest.raises(UserError, match=message):
            initial_trunk(small.config(trunk={"init_from": str(bad)}).trunk)


def test_the_branch_of_a_file_is_told_and_another_is_refused(state, file, tmp_path):
    target = tmp_path / "target.safetensors"
    export_encoder(target, trunk_of(state, "target"), CONFIG, {}, "target")
    assert [simfle_jax.load_encoder(path).metadata["branch"] for path in (file, target)] == ["online", "target"]
    assert simfle_jax.load_encoder(target, "target").hash == simfle_jax.load_encoder(target).hash
    with pytest.raises(UserError, match="holds one trunk only"):
        simfle_jax.load_encoder(file, "target")
    with pytest.raises(UserError, match="must be one of online, target"):
        simfle_jax.load_encoder(file, "teacher")


def test_other_architectures_are_recognised(file, tmp_path):
    path = tmp_path / "other.safetensors"
    for names, message in (
        (["blocks.0.attn.qkv.weight"], "a Vision Transformer"),
        (["conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight"], "basic blocks"),
        (
            ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv3.weight", "layer1.0.se.fc1.weight"],
            "another ResNet",
        ),
        (["online_network.encoder.conv1.weight"], r"missing .* surplus \(conv1.weight\)|missing"),
    ):
        save_file({name: np.zeros((4, 3, 7, 7), np.float32) for name in names}, path)
        with pytest.raises(UserError, match=message):
            simfle_jax.load_encoder(path)


def test_files_that_cannot_serve_are_named(file, tmp_path):
    with pytest.raises(UserError, match="no file"):
        simfle_jax.load_encoder(tmp_path / "nothing.safetensors")
    with pytest.raises(UserError, match=r"holds no encoder.safetensors"):
        simfle_jax.load_encoder(tmp_path)
    short = tmp_path / "short.safetensors"
    short.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        simfle_jax.load_encoder(short)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "x"), ("size", "0"), ("size", "1" * 30), ("mean", "[0.5, 0.5]"), ("mean", "5"), ("std", "[0.2, 0.2, 0]"),
        ("std", "[0.2, 0.2, NaN]"), ("standardise", "no"), ("architecture", "[" * 5000), ("architecture", "{}"),
        ("architecture", '{"stage_sizes": [1, 1000000000], "width": 4, "last_stride": 1}'),
        ("architecture", '{"stage_sizes": [1, true], "width": 4, "last_stride": 1}'),
        ("architecture", '{"stage_sizes": [1, 1], "width": "4", "last_stride": 1}'),
    ],
)  # fmt: skip
def test_metadata_that_this_program_does_not_write_are_told(file, tmp_path, name, value):
    arrays, metadata = read_arrays(file)
    save_file(arrays, tmp_path / "e.safetensors", metadata=metadata | {name: value})
    with pytest.raises(UserError, match=rf"e.safetensors: its metadata `?{name}"):
        simfle_jax.load_encoder(tmp_path / "e.safetensors")


def test_missing_surplus_and_misshapen_arrays_are_named(file, tmp_path):
    arrays, metadata = load_file(file), simfle_jax.load_encoder(file).metadata
    foreign = tmp_path / "foreign.safetensors"
    kept = {name: x for name, x in arrays.items() if name != "bn1.weight"}
    save_file(
        {**kept, "conv2.weight": np.zeros(2), "head.weight": np.zeros(2)}, foreign, metadata
    )  # the head is left out
    with pytest.raises(UserError, match=r"1 missing \(bn1.weight\) and 1 surplus \(conv2.weight\)$"):
        simfle_jax.load_encoder(foreign)
    with pytest.raises(
        UserError, match=r" 7 missing \(([a-z0-9._]+, ){5}\.\.\.\) and 6 surplus \(a0, a1, a2, a3, a4, \.\.\.\)"
    ):
        kept = {name: x for name, x in arrays.items() if not name.startswith(("bn1.", "layer1.0.conv"))}
        save_file(kept | {f"a{i}": np.zeros(2) for i in range(6)}, foreign, metadata)
        simfle_jax.load_encoder(foreign)
    save_file({name: np.zeros(3, np.float32) for name in arrays}, foreign, metadata)  # no axes to turn, either
    with pytest.raises(
        UserError, match=r"holds \d+ arrays of other sizes: conv1.weight is \(3,\), expected \(4, 3, 7, 7\); .*more\)"
    ):
        simfle_jax.load_encoder(foreign)
    save_file(arrays | {"bn1.weight": np.zeros(7, np.float32)}, foreign, metadata)
    with pytest.raises(UserError, match=r"1 arrays of other sizes: bn1.weight is \(7,\), expected \(4,\)$"):
        simfle_jax.load_encoder(foreign)


@pytest.mark.parametrize("kind", ["pickle", "zip"])
def test_a_pickle_that_would_run_code_is_refused_in_one_line_and_does_not_run(tmp_path, kind):
    torch = pytest.importorskip("torch")
    witness, path = tmp_path / "it_ran", tmp_path / "checkpoint.pth.tar"
    content = {
        "state_dict": {"online_network.encoder.0.weight": torch.zeros(2)},
        "epoch": 3,
        "optimizer": Doctored(witness),
    }
    if kind == "zip":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Doctored(witness)}, protocol=2))
    for read in (simfle_jax.load_encoder, read_published, load_classifier, init_from):
        with pytest.raises(UserError, match=r"refused, nothing in it was run; give [^\n]+$"):
            read(path)
    assert not witness.exists()
    torch.load(path, weights_only=False) if kind == "zip" else pickle.loads(path.read_bytes())
    assert witness.exists()  # it would have


class Doctored:
    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return Path.touch, (Path(self.witness),)


def init_from(path):
    return initial_trunk(small.config(trunk={"init_from": str(path)}).trunk)


@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_truncated_torch_files_are_named_wherever_they_end(file, tmp_path, kind):
    torch = pytest.importorskip("torch")
    whole, path = tmp_path / "whole.pth", tmp_path / "cut.pth"
    tensors = {name: torch.from_numpy(x) for name, x in load_file(file).items()}
    torch.save({"epoch": 1, "state_dict": tensors}, whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    for share in (0, 0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"cut.pth (is not a whole PyTorch file|holds more than arrays): [^\n]+$"):
            simfle_jax.load_encoder(path)
