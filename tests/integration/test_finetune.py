"""Fine-tuning through probe.py's own way: it learns, goes on to the bit, and what it made works everywhere."""

import json
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from small_probe import write_encoder, write_tuning

from configs import probe as probe_config
from simfle_jax.commands import convert
from simfle_jax.config import as_dict, named_trunk
from simfle_jax.data.decode import decode
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import finetune, tuning
from simfle_jax.evaluation.classifier import load_classifier
from simfle_jax.evaluation.finetune import block_rates
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.records import read_predictions
from simfle_jax.evaluation.settings import probing
from simfle_jax.models.trunks import fresh_trunk
from simfle_jax.weights.trunk import architecture

FILES = ("probe.safetensors", "encoder.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tuning(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.safetensors", last_stride=2)


@pytest.fixture(scope="module")
def settings(start, data):
    def make(**changes):
        config = probe_config.get_config()
        config.update(encoder=str(start), protocol="finetune", epochs=8, batch_size=12, data={"path": str(data)})
        config.finetune.update(lr=0.1, warmup_epochs=1, mixup=0.2, weight_decay=0.01)
        config.update(changes)
        return probing(config)

    return make


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """An uninterrupted one, and its results."""
    folder = tmp_path_factory.mktemp("whole") / "p"
    return folder, run_probe(settings(), str(folder))


def test_it_learns_with_its_trunk_and_the_start_stays_as_it_was(whole, start, data, settings):
    folder, results = whole
    assert results["accuracy"] > 0.6 and results["train_count"] == 38 and results["skipped"] == 1
    assert "train/blue/000.jpg" in (folder / "bad_images.txt").read_text()
    encoder, tuned = load_encoder(start), load_encoder(folder)
    assert (results["encoder_hash"], results["tuned_encoder_hash"]) == (encoder.hash, tuned.hash)
    before, after = encoder.torch_arrays(), tuned.torch_arrays()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if "num_batches" not in name}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(3, 25, 3)) and lines[-1]["loss/train"] < lines[0][
        "loss/train"
    ]
    again = run_probe(settings(eval_only=True), str(folder))  # as a user calls it: with the encoder it started from
    assert again["confusion"] == results["confusion"] and again["protocol"] == "finetune"
    classifier, rows = load_classifier(folder), read_predictions(folder / "predictions.csv")
    images = np.stack([decode((data / "val" / row["name"]).read_bytes(), 24) for row in rows])
    found = classifier.probabilities(images)
    assert [classifier.classes[number] for number in found.argmax(1)] == [row["predicted"] for row in rows]


def test_an_interrupted_one_goes_on_to_the_same_bits(whole, settings, tmp_path, monkeypatch):
    class Stopped(tuning.Stop):
        def asked(self, step):
            return step == 13  # within an epoch

    begun = []
    batches = tuning.TrainBatches
    monkeypatch.setattr(tuning, "TrainBatches", lambda *a, **k: begun.append(k["start_step"]) or batches(*a, **k))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(tuning, "Stop", Stopped)
        run_probe(settings(), str(tmp_path / "p"))
    assert not (tmp_path / "p" / "probe.safetensors").exists()
    with pytest.raises(UserError, match=r"is a run with finetune\.lr = 0\.1, now 0\.2"):
        run_probe(
            settings(finetune={"lr": 0.2, "warmup_epochs": 1.0, "mixup": 0.2, "weight_decay": 0.01}),
            str(tmp_path / "p"),
        )
    results = run_probe(settings(), str(tmp_path / "p"))
    assert begun == [0, 13] and results["confusion"] == whole[1]["confusion"]
    for name in FILES:
        ours, theirs = load_file(tmp_path / "p" / name), load_file(whole[0] / name)
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())


CHILD = """
import json, sys, time
from simfle_jax.evaluation import tuning
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing

class Slow(tuning.Stop):
    def asked(self, step):
        time.sleep(0.1)
        return super().asked(step)

tuning.Stop, tuning.SAVE_SECONDS = Slow, 0
run_probe(probing(json.loads(sys.argv[1])), sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_one_goes_on_to_the_same_bits(whole, settings, tmp_path, monkeypatch):
    """By SIGKILL, once a checkpoint is there."""
    folder = tmp_path / "p"
    asked = json.dumps(as_dict(settings()))
    child = subprocess.Popen([sys.executable, "-c", CHILD, asked, str(folder)], stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not any(path.name.isdigit() for path in folder.glob("checkpoints/*")):
        time.sleep(0.005)
    child.kill()
    assert child.communicate() and child.returncode == -signal.SIGKILL and not (folder / "results.json").exists()
    begun, batches = [], tuning.TrainBatches
    monkeypatch.setattr(tuning, "TrainBatches", lambda *a, **k: begun.append(k["start_step"]) or batches(*a, **k))
    results = run_probe(settings(), str(folder))
    assert 0 < begun[0] < 24 and results["confusion"] == whole[1]["confusion"]
    for name in FILES:
        ours, theirs = load_file(folder / name), load_file(whole[0] / name)
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(3, 25, 3))


def test_from_scratch_on_few_labels(settings, tmp_path):
    tune = {"share": 0.5, "optimizer": "sgd", "warmup_epochs": 0.0, "layer_decay": 1.0}
    results = run_probe(settings(untrained=True, epochs=1, finetune=tune), str(tmp_path / "p"))
    assert results["train_count"] == 7 + 6 + 6 and results["untrained"]
    classifier = load_classifier(tmp_path / "p")  # the trunk beside the probe, not a fresh one
    assert classifier.encoder.hash == results["tuned_encoder_hash"]


def test_few_labels_are_fine_tuned_on_draw_by_draw_and_a_finished_draw_is_not_done_again(
    settings, tmp_path, monkeypatch
):
    tune = {"warmup_epochs": 0.0, "lr": 0.1}
    alone = run_probe(settings(epochs=2, finetune=tune | {"share": 0.5}), str(tmp_path / "alone"))
    changes = {"epochs": 2, "finetune": tune, "lowlabel": {"on": "finetune", "shares": (0.5,), "draws": 3}}
    begun, batches = [], tuning.TrainBatches

    def failing(*a, **k):
        begun.append(k["start_step"])
        if len(begun) == 3:
            raise KeyboardInterrupt
        return batches(*a, **k)

    monkeypatch.setattr(tuning, "TrainBatches", failing)
    with pytest.raises(KeyboardInterrupt):
        run_probe(settings(protocol="lowlabel", **changes), str(tmp_path / "p"))
    kept = json.loads((tmp_path / "p" / "draws" / "0.5-1" / "results.json").read_text())
    results = run_probe(settings(protocol="lowlabel", **changes), str(tmp_path / "p"))
    assert begun == [0, 0, 0, 2, 0]  # the kept one from its last checkpoint, the second not at all, the third anew
    draws, scores = results["draws"], results["shares"][0]["accuracy"]
    assert [(row["share"], row["draw"], row["train_count"]) for row in draws] == [(0.5, i, 19) for i in range(3)]
    assert draws[1]["accuracy"] == kept["accuracy"] and scores["mean"] == np.mean([row["accuracy"] for row in draws])
    assert results["confusion"] == alone["confusion"] and draws[0]["accuracy"] == alone["accuracy"]
    assert results["tuned_encoder_hash"] == alone["tuned_encoder_hash"] == load_encoder(tmp_path / "p").hash
    assert results["train_count"] == 38 and not list((tmp_path / "p" / "draws").rglob("checkpoints"))


def normalised(data):
    images = np.stack([decode(path.read_bytes(), 24) for path in sorted((data / "val").rglob("*.jpg"))])
    return images, ((images.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25).astype(np.float32)


def written(folder, target):
    convert.convert(convert.make_parser().parse_args([str(folder), str(target)]))
    return target


def test_the_classifier_is_the_same_in_torch(whole, data, tmp_path):
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet

    network, (images, x) = ResNet((1, 1), 4, classes=3), normalised(data)
    content = torch.load(written(whole[0], tmp_path / "model_best.pth.tar"), weights_only=True)
    network.load_state_dict(content["state_dict"], strict=True)
    with torch.no_grad():
        found = network.eval()(torch.from_numpy(x)).softmax(1).numpy()
    np.testing.assert_allclose(found, load_classifier(whole[0]).probabilities(images), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_classifier_is_the_same_in_onnx(whole, data, tmp_path):
    for package in ("torch", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from simfle_jax.weights.onnx_export import run_onnx

    images, x = normalised(data)
    logits = run_onnx(written(whole[0], tmp_path / "classifier.onnx"), x)
    np.testing.assert_array_equal(logits.argmax(1), load_classifier(whole[0]).probabilities(images).argmax(1))


def test_rates_fall_block_by_block_towards_the_images():
    trunk = jax.eval_shape(lambda: fresh_trunk(architecture(named_trunk("resnet18")), 0, 32)["params"])
    rates = block_rates(trunk, 0.5)
    assert rates["conv1"]["kernel"] == rates["bn1"]["scale"] == 0.5**9
    assert rates["stages"][0][0]["conv1"]["kernel"] == 0.5**8
    assert rates["stages"][3][1]["bn2"]["bias"] == 0.5
    vit = block_rates(
        jax.eval_shape(lambda: fresh_trunk(architecture(named_trunk("vit_small_patch16_224")), 0, 32)["params"]), 0.5
    )
    assert vit["cls_token"] == vit["patch_embed"]["kernel"] == 0.5**13
    assert vit["transformer"]["blocks"][11]["fc1"]["kernel"] == 0.5
    assert vit["transformer"]["norm"]["scale"] == 1.0


def test_smoothing_and_mixup_are_those_counted_by_hand(start, settings):
    step = finetune.TuneStep(load_encoder(start), 3, settings(), 4, 1)
    plain = finetune.TuneStep(load_encoder(start), 3, settings(finetune={"mixup": 0.0, "warmup_epochs": 1.0}), 4, 1)
    images, labels = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3)).astype(np.uint8), np.array([0, 1, 2, 2])
    mixed, targets = step.batch(jnp.int32(5), images, labels)
    views, smooth = plain.batch(jnp.int32(5), images, labels)
    np.testing.assert_allclose(smooth, 0.9 * np.eye(3)[labels] + 0.1 / 3, atol=1e-6)
    share = float((targets[0, 0] - smooth[3, 0]) / (smooth[0, 0] - smooth[3, 0]))
    assert 0 < share < 1
    np.testing.assert_allclose(targets, share * smooth + (1 - share) * smooth[::-1], atol=1e-5)
    np.testing.assert_allclose(mixed, share * views + (1 - share) * views[::-1], atol=1e-4)
    assert not np.allclose(step.batch(jnp.int32(6), images, labels)[1], targets)
