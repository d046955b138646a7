"""Trunks as other programs save them: under prefixes, nested, numbered, beside heads, with odd company."""

import argparse
from collections import defaultdict

import numpy as np
import pytest
import small
from safetensors.numpy import load_file, save_file
from small_probe import write_encoder

import simfle_jax
from simfle_jax.commands import convert
from simfle_jax.errors import UserError
from simfle_jax.evaluation.classifier import load_classifier
from simfle_jax.weights.init import initial_trunk

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """The arrays of a trunk under torchvision's names, as tensors."""
    path = write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.safetensors", last_stride=2)
    return {name: torch.from_numpy(x) for name, x in load_file(path).items()}


@pytest.fixture(scope="module")
def hash_(trunk, tmp_path_factory):
    """That of an encoder from those arrays alone."""
    path = tmp_path_factory.mktemp("plain") / "plain.pth"
    torch.save(trunk, path)
    return simfle_jax.load_encoder(path).hash


def under(prefix, arrays):
    return {prefix + name: x for name, x in arrays.items()}


def numbered(arrays):
    """Names of a ResNet's children in nn.Sequential, as lightly and others save them."""
    stem = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5"}
    return {stem[name.partition(".")[0]] + "." + name.partition(".")[2]: x for name, x in arrays.items()}


def doubled(arrays):
    """Other numbers under the same names: an average of the network, say."""
    return {name: x + 1 for name, x in arrays.items()}


HEAD = {"fc.weight": torch.zeros(3, 32), "fc.bias": torch.zeros(3)}
LAYOUTS = {
    "classifier": lambda t: t | HEAD,
    "ddp": lambda t: {"epoch": 3, "state_dict": under("module.", t | HEAD)},
    "compiled": lambda t: under("_orig_mod.module.", t | HEAD),
    "lightning": lambda t: {"state_dict": under("backbone.", t) | {"classifier.weight": torch.zeros(3)}},
    "lightly": lambda t: {"state_dict": under("backbone.", numbered(t)) | {"projection_head.0.weight": torch.zeros(4)}},
    "simsiam": lambda t: {"state_dict": under("module.encoder.", t | {"fc.0.weight": torch.zeros(4)})},
    "swav": lambda t: under("module.", t) | {"module.prototypes.weight": torch.zeros(3)},
    "model": lambda t: {"model": t, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}}},
    "teacher": lambda t: {"teacher": under("backbone.", t), "student_head": {"last.weight": torch.zeros(2)}},
    "scalar": lambda t: {"best_acc1": np.float64(61.2), "seen": np.int64(3), "state_dict": t},
    "defaultdict": lambda t: {"state_dict": t, "optimizer": {"state": defaultdict(dict)}},
    "namespace": lambda t: {"model": t, "args": argparse.Namespace(lr=0.1)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_one_trunk_is_found_and_heads_are_left_out(trunk, hash_, tmp_path, layout):
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(LAYOUTS[layout](trunk), path)
    assert simfle_jax.load_encoder(path).hash == hash_
    model = small.config(trunk={"init_from": str(path), "stage_sizes": (1, 1), "width": 4}).trunk
    np.testing.assert_array_equal(initial_trunk(model)["params"]["bn1"]["scale"], trunk["bn1.weight"])


def test_what_was_taken_is_said_in_one_line(trunk, tmp_path, caplog):
    path = tmp_path / "checkpoint.ckpt"
    torch.save(LAYOUTS["lightning"](trunk), path)
    simfle_jax.load_encoder(path)
    assert caplog.messages == [f"{path}: took the trunk under state_dict.backbone, left 1 other arrays out"]


def test_the_layer_of_a_classifier_is_found_beside_its_trunk(trunk, tmp_path):
    torch.save({"state_dict": under("module.", trunk | HEAD)}, tmp_path / "best.pth")
    assert load_classifier(tmp_path / "best.pth", classes=("a", "b", "c")).layer.kernel.shape == (32, 3)


SEVERAL = {
    "moco": (
        lambda t: under("base_encoder.", t) | under("momentum_encoder.", doubled(t)),
        "base_encoder",
        "momentum_encoder",
    ),
    "timm": (lambda t: {"state_dict": t | HEAD, "state_dict_ema": doubled(t | HEAD)}, "state_dict", "state_dict_ema"),
    "root": (lambda t: t | under("ema.", doubled(t)), ".", "ema"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_trunks_one_must_be_chosen(trunk, hash_, tmp_path, name):
    """Refused and listed by whatever reads it; the command in the message makes a file of one of them."""
    make, first, second = SEVERAL[name]
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(make(trunk), path)
    for read in (
        simfle_jax.load_encoder,
        lambda path: initial_trunk(small.config(trunk={"init_from": str(path)}).trunk),
    ):
        with pytest.raises(
            UserError, match=rf"holds 2 trunks, under {first}, {second}: choose one, .*--prefix={first}$"
        ):
            read(path)
    assert (
        simfle_jax.load_encoder(path, prefix=first).hash == hash_ != simfle_jax.load_encoder(path, prefix=second).hash
    )
    convert.main([str(path), str(tmp_path / "one.safetensors"), f"--prefix={first}"])
    assert simfle_jax.load_encoder(tmp_path / "one.safetensors").hash == hash_
    with pytest.raises(UserError, match=rf"no trunk under prefix 'key', only {first}, {second}$"):
        simfle_jax.load_encoder(path, prefix="key")


def test_an_incomplete_second_trunk_does_not_count(trunk, hash_, tmp_path):
    part = {name: x for name, x in trunk.items() if not name.startswith("bn1")}
    torch.save({"model": trunk, "other": part}, tmp_path / "checkpoint.pth")
    assert simfle_jax.load_encoder(tmp_path / "checkpoint.pth").hash == hash_


def test_the_content_counts_and_not_the_ending(trunk, hash_, tmp_path):
    save_file({name: x.numpy() for name, x in trunk.items()}, tmp_path / "named.pth")
    torch.save(trunk, tmp_path / "named.safetensors")
    for name in ("named.pth", "named.safetensors"):
        assert simfle_jax.load_encoder(tmp_path / name).hash == hash_


def quantised(x):
    with pytest.warns(UserWarning, match="deprecated"):
        return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.to_sparse(), "is torch.sparse_coo: save the arrays as plain float32"),
        (quantised, "is torch.qint8: save the arrays as plain float32"),
        (lambda x: x.to(torch.float8_e4m3fn), "is torch.float8_e4m3fn: save the arrays as plain float32"),
    ],
)
def test_odd_tensors_are_named(trunk, tmp_path, change, message):
    torch.save({"state_dict": trunk | {"conv1.weight": change(trunk["conv1.weight"])}}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=f"odd.pth: state_dict.conv1.weight {message}"):
        simfle_jax.load_encoder(tmp_path / "odd.pth")


def test_float8_in_safetensors_is_named(trunk, tmp_path):
    from safetensors.torch import save_file as save_tensors

    save_tensors({"conv1.weight": trunk["conv1.weight"].to(torch.float8_e4m3fn)}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match=r"conv1\.weight is F8_E4M3: save the arrays as plain float32"):
        simfle_jax.load_encoder(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "a pointer of Git LFS .* git lfs pull",
        ),
        (b"<!DOCTYPE html><html><title>Virus scan warning</title></html>", "a web page .* download it again"),
    ],
)
def test_what_a_failed_download_leaves_is_told(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        simfle_jax.load_encoder(tmp_path / name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_told(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "program.pt"))
    with pytest.raises(UserError, match=r"is a TorchScript program: give a file of its state_dict\(\)"):
        simfle_jax.load_encoder(tmp_path / "program.pt")
