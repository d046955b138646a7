"""Trunks of every kind in files: against torchvision's and timm's modules, both ways, and all that is done with them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from safetensors.numpy import load_file, save_file

import simfle_jax
from simfle_jax.config import SCHEMA, TrunkSettings, as_dict, named_trunk, pretraining
from simfle_jax.encoder import Encoder, untrained_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.classifier import Classifier, load_classifier, save_folder
from simfle_jax.evaluation.classifier import save_file as save_classifier
from simfle_jax.evaluation.linear import Linear
from simfle_jax.models.transformer import positions
from simfle_jax.models.trunks import fresh_trunk
from simfle_jax.models.trunks.vit import resampled
from simfle_jax.training.published import check_published
from simfle_jax.weights.card import model_card
from simfle_jax.weights.encoder_file import describe, export_encoder
from simfle_jax.weights.files import write_safetensors
from simfle_jax.weights.init import initial_trunk
from simfle_jax.weights.onnx_export import export_onnx, run_onnx
from simfle_jax.weights.trunk import architecture, with_known_heads

SIZES = {
    "basic": {"kind": "basic", "stage_sizes": (1, 2), "width": 4},
    "vit": {"kind": "vit", "stage_sizes": (2,), "width": 16, "heads": 2, "patch": 4},
}
IMAGES = np.random.default_rng(5).standard_normal((8, 224, 224, 3), np.float32)


def config(kind: str, **changes):
    settings = small.settings(**{"trunk": SIZES[kind], "views": {"size": 16, "plain_size": 8}} | changes)
    return pretraining(settings)


def test_a_file_of_weights_is_as_open_as_others_and_a_full_disk_is_told(tmp_path):
    resource = pytest.importorskip("resource")
    (tmp_path / "other").touch()
    write_safetensors(tmp_path / "a.safetensors", {"a": np.zeros(3)}, {})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"a.safetensors cannot be written: File too large; give another place"):
            write_safetensors(tmp_path / "a.safetensors", {"a": np.zeros(1000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(load_file(tmp_path / "a.safetensors")["a"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "other"]


def moved_trunk(trunk: TrunkSettings, size: int, seed: int = 0):
    """A fresh trunk with statistics that are not the initial ones."""
    random, trees = np.random.default_rng(seed), jax.device_get(fresh_trunk(trunk, seed, size))
    moved = jax.tree.map(lambda x: (np.abs(x) + 0.1 * random.uniform(size=x.shape)).astype("f4"), trees["stats"])
    return trees | {"stats": moved}


@pytest.fixture(params=SIZES)
def kind(request):
    return request.param


@pytest.fixture
def file(kind, tmp_path):
    made = config(kind)
    export_encoder(tmp_path / "encoder.safetensors", moved_trunk(made.trunk, 16), made, {"step": "3"})
    return tmp_path / "encoder.safetensors"


@pytest.fixture
def pixels():
    return np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), np.uint8)


# -------------------------------------------------------------------- against torchvision and timm


def written_out(name: str, classes: int = 0):
    """torchvision's `resnet18` or timm's `vit_small_patch16_224` as these tests write them out."""
    if name == "resnet18":
        from torch_resnet import BasicBlock, ResNet

        return ResNet((2, 2, 2, 2), 64, classes, block=BasicBlock)
    from torch_vit import ViT

    return ViT(384, 12, 6, 16, 14, classes)


def their_features(network, images):
    import torch

    with torch.no_grad():
        return network.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous()).numpy()


@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch16_224"])
def test_theirs_loads_ours_strictly_and_gives_the_same_features(name, tmp_path):
    torch = pytest.importorskip("torch")
    made = pretraining(small.settings(trunk=named_trunk(name), views={"size": 224, "plain_size": 112}))
    export_encoder(tmp_path / "ours.safetensors", moved_trunk(made.trunk, 224), made, {"step": "0"})
    network = written_out(name)
    arrays = load_file(tmp_path / "ours.safetensors")
    network.load_state_dict({key: torch.from_numpy(x) for key, x in arrays.items()}, strict=True)
    ours = simfle_jax.load_encoder(tmp_path / "ours.safetensors").apply(IMAGES)
    assert ours.shape == (8, {"resnet18": 512}.get(name, 384)) and np.std(ours) > 0.1
    np.testing.assert_allclose(ours, their_features(network, IMAGES), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch16_224"])
def test_ours_loads_theirs_and_gives_the_same_features(name, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = written_out(name, classes=7)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # BatchNorm's statistics become those of the images
        network.train()(torch.from_numpy(IMAGES[:4].transpose(0, 3, 1, 2)).contiguous())
    torch.save({"state_dict": {f"module.{key}": x for key, x in network.state_dict().items()}}, tmp_path / "theirs.pth")
    encoder = simfle_jax.load_encoder(tmp_path / "theirs.pth")
    assert (encoder.trunk.kind, encoder.size) == ({"resnet18": "basic"}.get(name, "vit"), 224)
    if encoder.trunk.kind == "vit":
        network.head = torch.nn.Identity()
        assert encoder.trunk.heads == 6
        np.testing.assert_array_equal(encoder.arrays["stats"]["positions"], network.pos_embed[0].detach())
    else:
        network.fc = None
    expected = their_features(network, IMAGES)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(encoder.apply(IMAGES), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch16_224"])
def test_what_is_written_out_here_is_their_own(name):
    """Runs where torchvision and timm are installed."""
    pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    timm = pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    theirs = torchvision.models.resnet18() if name == "resnet18" else timm.create_model(name, num_classes=1000)
    written = written_out(name, classes=1000)
    assert list(theirs.state_dict()) == list(written.state_dict())
    theirs.load_state_dict(written.state_dict(), strict=True)
    found, expected = (their_features(network, IMAGES[:2]) for network in (written, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)


# -------------------------------------------------------------------- what is done with an encoder


def test_an_encoder_of_every_kind_loads_and_its_untrained_twin_too(kind, file, pixels):
    encoder = simfle_jax.load_encoder(file)
    assert encoder.trunk == config(kind).trunk and encoder.size == 16
    assert encoder(pixels).shape == (5, encoder.dim) and np.isfinite(encoder(pixels)).all()
    assert encoder.feature_map(pixels).shape == (5, *((4, 4) if kind == "vit" else (2, 2)), encoder.dim)
    fresh = untrained_encoder(encoder, 0)
    assert fresh.hash != encoder.hash and fresh(pixels).shape == encoder(pixels).shape
    if kind == "vit":
        np.testing.assert_array_equal(fresh.arrays["stats"]["positions"], positions(16, 4))


def test_the_sizes_are_told_by_a_file_without_metadata(kind, file, tmp_path):
    known = simfle_jax.load_encoder(file)
    save_file(load_file(file), tmp_path / "bare.safetensors")
    bare = simfle_jax.load_encoder(tmp_path / "bare.safetensors")
    jax.tree.map(np.testing.assert_array_equal, bare.arrays, known.arrays)
    assert bare.size == (16 if kind == "vit" else 224)
    heads = {"heads": 1} if kind == "vit" else {}  # 64 channels each, as usual
    told = {name: getattr(bare.trunk, name) for name in ("kind", "stage_sizes", "width", *heads)}
    assert told == {name: SIZES[kind][name] for name in ("kind", "stage_sizes", "width")} | heads


def test_a_vit_is_found_beside_a_decoder_and_what_would_change_its_features_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    made = config("vit")
    export_encoder(tmp_path / "vit.safetensors", moved_trunk(made.trunk, 16), made, {"step": "0"})
    known = simfle_jax.load_encoder(tmp_path / "vit.safetensors")
    arrays = {name: torch.from_numpy(x) for name, x in load_file(tmp_path / "vit.safetensors").items()}
    others = dict.fromkeys(("mask_token", "decoder_blocks.0.norm1.weight", "head.weight"), torch.zeros(2))
    torch.save({"model": arrays | others, "epoch": 3}, tmp_path / "mae.pth")
    found = simfle_jax.load_encoder(tmp_path / "mae.pth")
    np.testing.assert_array_equal(found.arrays["params"]["cls_token"], known.arrays["params"]["cls_token"])
    torch.save(arrays | {"norm_pre.weight": torch.zeros(16)}, tmp_path / "clip.pth")
    with pytest.raises(UserError, match=r"1 surplus \(norm_pre.weight\)"):
        simfle_jax.load_encoder(tmp_path / "clip.pth")


@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors", ""])
def test_a_classifier_goes_out_and_comes_back(kind, file, pixels, tmp_path, suffix):
    pytest.importorskip("torch")
    encoder, random = simfle_jax.load_encoder(file), np.random.default_rng(0)
    layer = Linear(*(jnp.asarray(random.normal(size=size), "f4") for size in ((encoder.dim, 3), 3)))
    classifier, path = Classifier(encoder, layer, ("a", "b", "c")), tmp_path / f"classifier{suffix}"
    save_classifier(path, classifier) if suffix else save_folder(path, classifier)
    again = load_classifier(path)
    assert again.encoder.hash == encoder.hash and again.classes == ("a", "b", "c")
    np.testing.assert_array_equal(again.probabilities(pixels), classifier.probabilities(pixels))
    name = "head" if kind == "vit" else "fc"
    assert classifier.torch_arrays()[f"{name}.weight"].shape == (3, encoder.dim)
    if suffix == ".safetensors":
        assert simfle_jax.load_encoder(path).hash == encoder.hash  # the layer is left out
        save_file(load_file(file), tmp_path / "bare.safetensors")
        with pytest.raises(UserError, match=f"{name}.weight and {name}.bias are not in it"):
            load_classifier(tmp_path / "bare.safetensors")


@pytest.mark.parametrize("classes", [0, 3])
def test_onnx_runtime_agrees(kind, file, tmp_path, classes):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    encoder = simfle_jax.load_encoder(file)
    layer = Linear(jnp.ones((encoder.dim, 3)) * jnp.arange(3.0), jnp.arange(3.0))
    classifier = Classifier(encoder, layer, ("a", "b", "c"))
    arrays, ours = (
        (classifier.torch_arrays(), classifier.logits) if classes else (encoder.torch_arrays(), encoder.apply)
    )
    error = export_onnx(tmp_path / "net.onnx", arrays, encoder.trunk, encoder.metadata, lambda x: np.asarray(ours(x)))
    assert error < 1e-5
    images = IMAGES[:2, :16, :16]
    found = run_onnx(tmp_path / "net.onnx", images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found, ours(images), rtol=1e-4, atol=1e-4)


def test_pre_training_starts_from_a_file_of_the_same_kind_alone(kind, file):
    trunk = config(kind, trunk=SIZES[kind] | {"init_from": str(file)}).trunk
    encoder, found = simfle_jax.load_encoder(file), initial_trunk(trunk, 16)
    jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(encoder.arrays))
    other = "vit" if kind == "basic" else "basic"
    wrong = config(other, trunk=SIZES[other] | {"init_from": str(file)}).trunk
    guess = "a Vision Transformer" if kind == "vit" else "a ResNet of basic blocks"
    with pytest.raises(UserError, match=f"holds another architecture .{guess}[^\n]*missing"):
        initial_trunk(wrong, 16)


def test_a_vits_positions_are_resampled_to_the_grid_of_the_run(tmp_path):
    made = config("vit")
    export_encoder(tmp_path / "encoder.safetensors", moved_trunk(made.trunk, 16), made, {"step": "0"})
    trunk = config("vit", trunk=SIZES["vit"] | {"init_from": str(tmp_path / "encoder.safetensors")}).trunk
    learned = initial_trunk(trunk, 16)["stats"]["positions"]
    np.testing.assert_array_equal(initial_trunk(trunk, 8)["stats"]["positions"], resampled(jnp.asarray(learned), 2, 2))


def test_the_metadata_of_another_trunk_are_refused(kind, file, tmp_path):
    metadata = simfle_jax.load_encoder(file).metadata
    other = json.dumps(json.loads(metadata["architecture"]) | {"kind": "bottleneck", "stage_sizes": [1, 2]})
    save_file(load_file(file), tmp_path / "other.safetensors", metadata | {"architecture": other})
    with pytest.raises(UserError, match=r"holds another architecture .*missing"):
        simfle_jax.load_encoder(tmp_path / "other.safetensors")


def test_a_vit_file_of_another_image_size_than_it_says_is_refused(tmp_path):
    made = config("vit")
    export_encoder(tmp_path / "e.safetensors", moved_trunk(made.trunk, 16), made, {"step": "0", "size": "32"})
    with pytest.raises(UserError, match=r"pos_embed is \(1, 17, 16\), expected \(1, 65, 16\)"):
        simfle_jax.load_encoder(tmp_path / "e.safetensors")


def test_the_model_card_names_the_trunk(kind):
    card = model_card(describe(config(kind)), None, [])
    assert card.startswith({"basic": "# ResNet of basic blocks 1-2, width 4,", "vit": "# ViT 2, width 16,"}[kind])
    named = pretraining(small.settings(trunk=named_trunk("resnet18")))
    cropped = model_card(describe(config(kind)) | {"crop": "eyes-1"}, None, [])
    assert (
        "`eyes-1`, eyes at 35 and 65 % of the side from the left and 40 % from the top" in cropped
        and "eyes" not in card
    )
    assert model_card(describe(named), None, []).startswith("# resnet18, pre-trained by SimFLE")


@pytest.mark.parametrize("tie", ["patch", "published"])
def test_the_model_card_tells_the_tie_also_of_a_run_from_before_there_were_others(tie):
    settings = as_dict(small.config(facemae={"tie": tie})) | {"schema": SCHEMA}
    if tie == "published":
        del settings["facemae"]["tie"]
    assert f"tie: {tie}\n" in model_card(describe(small.config()), settings, [])


@pytest.mark.parametrize(
    ("method", "kind", "message"),
    [("byol", "basic", "not byol on ResNet of basic blocks"), ("simfle", "vit", "not simfle on ViT")],
)
def test_the_published_program_knows_bottlenecks_alone(method, kind, message):
    with pytest.raises(UserError, match=message):
        check_published(config(kind, method=method))


def test_the_published_program_knows_simfle_and_byol_alone():
    check_published(small.config())
    check_published(small.config(method="byol"))
    with pytest.raises(UserError, match="not simsiam on ResNet of bottlenecks"):
        check_published(small.config(method="simsiam"))


def test_positions_count_in_the_hash_of_an_encoder():
    made = config("vit")
    trees = moved_trunk(made.trunk, 16)
    other = trees | {"stats": {"positions": trees["stats"]["positions"] + 1}}
    first, second = (Encoder(each, made.trunk, describe(made)) for each in (trees, other))
    assert first.hash != second.hash


@pytest.mark.parametrize("prefix, width, heads", [("module.base_encoder.", 384, 12), ("momentum_encoder.", 384, 12),
                                                  ("module.base_encoder.", 768, 12), ("module.", 384, 6)])  # fmt: skip
def test_the_heads_of_moco_v3s_own_vits_are_known(prefix, width, heads, caplog):
    """No array tells them, and its ViT-S has 12 where all others of that width have 6."""
    inferred = architecture(
        {"kind": "vit", "stage_sizes": (12,), "width": width, "last_stride": 2, "heads": width // 64}
    )
    found = with_known_heads(inferred, {f"{prefix}patch_embed.proj.weight": np.zeros(1)}, "a.pth")
    assert found.heads == heads and ("has 12 heads" in caplog.text) == (heads != inferred.heads)
