"""The exported encoder: a torch ResNet loads it and agrees; damaged and foreign files are named."""

import json

import jax
import numpy as np
import pytest
import small
from safetensors.numpy import load_file, save_file

import simfle_jax
from simfle_jax.errors import UserError
from simfle_jax.training.state import init_state
from simfle_jax.training.step import Method
from simfle_jax.weights import torch_names
from simfle_jax.weights.encoder import export_encoder, untrained_encoder
from simfle_jax.weights.init import initial_trunk

CONFIG = small.config()


@pytest.fixture(scope="module")
def state():
    """A state whose statistics are not the initial ones."""
    fresh = jax.jit(lambda: init_state(CONFIG, Method(CONFIG, 1).tx))()
    random = np.random.default_rng(0)
    return fresh.replace(stats=jax.tree.map(lambda x: np.abs(x + 0.1 * random.normal(size=x.shape)).astype("f4"), fresh.stats))


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    export_encoder(path, state, CONFIG, {"step": "3"})
    return path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), np.uint8)


def test_a_torch_resnet_loads_it_strictly_and_gives_the_same_features(file, images):
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet

    network = ResNet(CONFIG.model.stage_sizes, CONFIG.model.width)
    network.load_state_dict({name: torch.from_numpy(x) for name, x in load_file(file).items()}, strict=True)
    x = (images / 255 - np.array(CONFIG.data.mean)) / np.array(CONFIG.data.std)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).numpy()
    found = simfle_jax.load_encoder(file)(images)
    assert found.dtype == np.float32 and found.shape == (5, CONFIG.model.features)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_features_are_the_mean_of_the_feature_map_whatever_the_batch(file, images):
    encoder = simfle_jax.load_encoder(file)
    together = encoder(images)
    np.testing.assert_allclose(encoder.feature_map(images).mean((1, 2)), together, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([encoder(image[None]) for image in images]), together, rtol=1e-4, atol=1e-6)


def test_any_size_of_image_is_taken(file):
    encoder = simfle_jax.load_encoder(file)
    assert encoder(np.zeros((2, 20, 33, 3), np.uint8)).shape == (2, encoder.dim)
    assert encoder(np.zeros((0, 16, 16, 3), np.uint8)).shape == (0, encoder.dim)
    with pytest.raises(UserError, match="must be uint8"):
        encoder(np.zeros((2, 16, 16, 3), np.float32))


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
    trunk = initial_trunk(small.config(model={"init_from": str(file)}).model)
    for ours, theirs in ((trunk["params"], state.params), (trunk["stats"], state.stats)):
        jax.tree.map(np.testing.assert_array_equal, ours, jax.device_get(theirs["online"]["encoder"]))


def test_the_published_layout_round_trips_to_the_bit(state):
    trees = jax.device_get({name: getattr(state, name) for name in ("params", "stats", "target_params", "target_stats")})
    entries = torch_names.published(CONFIG)
    back = torch_names.to_ours(entries, torch_names.to_torch(entries, trees))
    jax.tree.map(np.testing.assert_array_equal, back, trees)


def test_files_that_cannot_serve_are_named(file, tmp_path):
    with pytest.raises(UserError, match="no file"):
        simfle_jax.load_encoder(tmp_path / "nothing.safetensors")
    with pytest.raises(UserError, match=r"holds no encoder.safetensors"):
        simfle_jax.load_encoder(tmp_path)
    short = tmp_path / "short.safetensors"
    short.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        simfle_jax.load_encoder(short)


def test_missing_surplus_and_misshapen_arrays_are_named(file, tmp_path):
    arrays, metadata = load_file(file), simfle_jax.load_encoder(file).metadata
    foreign = tmp_path / "foreign.safetensors"
    save_file({**{k: v for k, v in arrays.items() if k != "bn1.weight"}, "head.weight": np.zeros(2)}, foreign, metadata)
    with pytest.raises(UserError, match=r"1 missing \(bn1.weight\) and 1 surplus \(head.weight\)"):
        simfle_jax.load_encoder(foreign)
    save_file(arrays | {"bn1.weight": np.zeros(7, np.float32)}, foreign, metadata)
    with pytest.raises(UserError, match=r"1 arrays of other sizes: bn1.weight is \(7,\), expected \(4,\)$"):
        simfle_jax.load_encoder(foreign)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    pytest.importorskip("torch")
    import pickle

    witness = tmp_path / "it_ran"

    class Doctored:
        def __reduce__(self):
            return open, (str(witness), "w")

    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(pickle.dumps({"state_dict": Doctored()}, protocol=2))
    with pytest.raises(UserError, match=r"refused, nothing in it was run|not a whole PyTorch file"):
        simfle_jax.load_encoder(path)
    assert not witness.exists()
