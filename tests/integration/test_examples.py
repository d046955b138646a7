"""The programs below examples/ run as their first lines say, with a tiny encoder."""

import importlib
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import small_probe
from PIL import Image
from safetensors.numpy import load_file, save_file
from small_probe import COLOURS, write_encoder, write_probe, write_split

import simfle_jax
from simfle_jax.commands import convert, embed
from simfle_jax.data.decode import decode
from simfle_jax.evaluation.classifier import load_classifier

EXIF_ORIENTATION = 274
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    write_split(folder / "train", dict.fromkeys(COLOURS, 6), size=30)
    write_split(folder / "val", dict.fromkeys(COLOURS, 4), seed=1, size=30)
    return folder


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """An encoder that tells the metadata of a run, and a probe of it."""
    folder = tmp_path_factory.mktemp("probe")
    write_encoder(folder / "bare.safetensors", last_stride=2)
    save_file(load_file(folder / "bare.safetensors"), folder / "encoder.safetensors", small_probe.METADATA
              | simfle_jax.load_encoder(folder / "bare.safetensors").metadata)  # fmt: skip
    return write_probe(folder, simfle_jax.load_encoder(folder), canvas=28)


def example(name: str):
    """The `main` of an example."""
    return runpy.run_path(str(EXAMPLES / name))["main"]


def decoded(paths, canvas):
    return np.stack([decode(Path(path).read_bytes(), canvas) for path in paths])


def test_features_in_pytorch_are_ours(probe, faces, tmp_path):
    pytest.importorskip("torch")
    folder = Path(shutil.copytree(faces / "val", tmp_path / "val"))
    turned, (photograph, *_) = Image.Exif(), sorted(folder.rglob("*.jpg"))
    turned[EXIF_ORIENTATION] = 6
    Image.open(photograph).crop((0, 0, 30, 20)).save(folder / "turned.jpg", exif=turned, quality=95)
    found = example("features_in_pytorch.py")(probe / "encoder.safetensors", folder)
    ours = simfle_jax.load_encoder(probe)(decoded(found, 24))
    assert len(found) == 13
    np.testing.assert_allclose(np.stack([x.numpy() for x in found.values()]), ours, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["classifier.safetensors", "model_best.pth.tar"])
def test_both_forms_of_a_classifier_are_read_by_pytorch(probe, faces, tmp_path, name):
    torch = pytest.importorskip("torch")
    convert.main([str(probe), str(tmp_path / name)])
    network, preprocessing = importlib.import_module("simfle_jax.weights.torch_network").load_torch(tmp_path / name)
    images = decoded(sorted((faces / "val").rglob("*.jpg")), 28)
    with torch.inference_mode():
        found = network(preprocessing(torch.from_numpy(images))).softmax(-1)
    np.testing.assert_allclose(found.numpy(), load_classifier(probe).probabilities(images), atol=1e-4)


def test_fine_tuning_in_pytorch_learns_colours(probe, faces, capsys, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    folder = Path(shutil.copytree(faces, tmp_path / "faces"))
    shutil.rmtree(folder / "val" / min(COLOURS))  # the others keep their numbers
    right = example("finetune_in_pytorch.py")(probe / "encoder.safetensors", folder, epochs=12, batch=6)
    assert right > 0.6 and "epoch 12: loss" in capsys.readouterr().out


def test_the_classifier_in_onnx_runtime_predicts_as_ours(probe, faces, tmp_path, capsys, monkeypatch):
    for package in ("torch", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    convert.main([str(probe), str(tmp_path / "classifier.onnx"), "--with-preprocessing"])
    capsys.readouterr()
    found = example("classifier_in_onnxruntime.py")(tmp_path / "classifier.onnx", faces / "val")
    ours = load_classifier(probe).probabilities(decoded(found, 28))
    np.testing.assert_allclose([list(each.values()) for each in found.values()], ours, atol=1e-3)
    monkeypatch.setattr(sys, "argv", ["example", str(tmp_path / "classifier.onnx"), str(faces / "val")])
    runpy.run_path(str(EXAMPLES / "classifier_in_onnxruntime.py"), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) == 12


def test_a_probe_in_scikit_learn(probe, faces, tmp_path, capsys):
    pytest.importorskip("sklearn")
    for name in ("train", "val"):
        embed.main([str(faces / name), "--encoder", str(probe), "--out", str(tmp_path / f"{name}.npz")])
    score = example("probe_in_scikit_learn.py")(tmp_path / "train.npz", tmp_path / "val.npz")
    assert score > 0.8 and "green" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_it_is_run(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 60 and f"python examples/{path.name} " in text
