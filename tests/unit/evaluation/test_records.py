"""What a probe's folder holds comes back as it was."""

import errno
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simfle_jax.errors import UserError
from simfle_jax.evaluation import records
from simfle_jax.evaluation.linear import History, Linear, new_layer, start
from simfle_jax.evaluation.nearest import neighbours


def test_a_probe_comes_back_and_lies_as_torch_wants_it(tmp_path):
    layer = Linear(jnp.arange(12.0).reshape(4, 3), jnp.array([1.0, 2.0, 3.0]))
    records.save_probe(tmp_path, records.TrainedProbe(layer, ("a", "b", "c"), "hash"))
    found = records.load_probe(tmp_path)
    assert (found.classes, found.encoder_hash) == (("a", "b", "c"), "hash")
    np.testing.assert_array_equal(found.layer.kernel, layer.kernel)
    arrays = load_file(tmp_path / "probe.safetensors")
    assert arrays["fc.weight"].shape == (3, 4)
    np.testing.assert_array_equal(arrays["fc.weight"][:, 1], layer.kernel[1])
    np.testing.assert_array_equal(arrays["fc.bias"], layer.bias)


@pytest.mark.parametrize("k", [5, 50])  # of 20 images
def test_neighbours_come_back_with_their_votes_and_are_no_layer(k, tmp_path):
    rng = np.random.default_rng(0)
    made = neighbours(rng.standard_normal((20, 4)).astype(np.float32), np.arange(20) % 3, 3, k, 0.1)
    records.save_probe(tmp_path, records.TrainedProbe(made, ("a", "b", "c"), "hash"))
    found = records.load_probe(tmp_path)
    queries = jnp.asarray(rng.standard_normal((9, 4)), jnp.float32)
    np.testing.assert_array_equal(found.predictor.probabilities(queries), made.probabilities(queries))
    assert found.dim == 4
    with pytest.raises(UserError, match="a vote of neighbours, not a linear layer"):
        found.layer  # noqa: B018


def test_predictions_come_back_by_line_and_damage_is_told(tmp_path):
    lines = [("a,b/\udce9\n.jpg", "joy", "fear", 0.51234567), ("c.jpg", "joy", "tr\udce4urig", 1.0)]
    records.write_predictions(tmp_path / "p.csv", lines)
    first, second = records.read_predictions(tmp_path / "p.csv")
    assert first == {"name": r"a,b/\xe9\x0a.jpg", "label": "joy", "predicted": "fear", "probability": "0.512346"}
    assert (second["name"], second["predicted"]) == ("c.jpg", r"tr\xe4urig"), "a folder of another encoding"
    for content in ("name,label\na,b\n", "", "name,label,predicted,probability\na.jpg,joy\n"):
        (tmp_path / "p.csv").write_text(content)
        with pytest.raises(UserError, match=r"p\.csv is damaged: its columns must be name, label"):
            records.read_predictions(tmp_path / "p.csv")


def test_a_missing_or_damaged_probe_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no trained probe"):
        records.load_probe(tmp_path)
    (tmp_path / "probe.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a whole probe"):
        records.load_probe(tmp_path)
    layer = {"fc.weight": np.ones((2, 4), np.float32), "fc.bias": np.zeros(2, np.float32)}
    facts = {"classes": '["a", "b"]', "encoder_hash": "x", "canvas": "40"}
    save_file(layer, tmp_path / "probe.safetensors", metadata=facts)
    assert records.load_probe(tmp_path).classes == ("a", "b")
    for metadata, arrays in (
        (None, layer), (facts | {"classes": "3"}, layer), (facts | {"classes": '["a"]'}, layer), (facts | {"classes": "[1, 2]"}, layer),
        (facts | {"canvas": "x"}, layer), (facts, layer | {"fc.bias": np.zeros(3, np.float32)}),
        (facts | {"predictor": "neighbours", "n_classes": "2", "k": "0", "temperature": "1"}, {"bank": np.ones((3, 4)), "bank_labels": np.ones(3)}),
    ):  # fmt: skip
        save_file(arrays, tmp_path / "probe.safetensors", metadata=metadata)
        with pytest.raises(UserError, match=r"not a whole probe|is damaged"):
            records.load_probe(tmp_path)


def test_progress_comes_back_to_the_bit_and_damage_starts_anew(tmp_path):
    fit = start(new_layer(0, 4, 3))._replace(epoch=jnp.int32(5))
    history = History(np.arange(5, dtype=np.float32), np.ones((5, 2), np.float32))
    fresh = start(new_layer(1, 4, 3)), History(np.zeros(0, np.float32), np.zeros((0, 2), np.float32))
    assert records.load_progress(tmp_path, fresh) is fresh
    records.save_progress(tmp_path, fit, history)
    for a, b in zip(jax.tree.leaves(records.load_progress(tmp_path, fresh)), jax.tree.leaves((fit, history))):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "progress.npz").write_bytes(b"half a fil")
    assert records.load_progress(tmp_path, fresh) is fresh


def test_progress_that_cannot_be_read_just_now_is_not_done_again(tmp_path, monkeypatch):
    like = start(new_layer(1, 4, 3)), History(np.zeros(0, np.float32), np.zeros((0, 2), np.float32))
    records.save_progress(tmp_path, *like)

    def fail(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(UserError, match=r"progress\.npz could not be read .*Stale file handle"):
        records.load_progress(tmp_path, like)


@pytest.mark.parametrize("content", ["", '{"accuracy": ', "[]"])
def test_damaged_results_are_told(content, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json is damaged.*; remove it, and the command"):
        records.read_results(tmp_path)


def test_metrics_are_one_line_an_epoch(tmp_path):
    history = History(np.array([2.0, 1.0]), np.array([[0.25, 0.5], [0.75, 1.0]]))
    records.write_metrics(tmp_path, history, ("val", "test"), 0.5)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[1] == {
        "epoch": 2, "loss/train": 1.0, "learning_rate": 0.5, "accuracy/val": 0.75, "accuracy/test": 1.0,
    }  # fmt: skip
    assert len(lines) == 2


def test_the_picture_is_drawn(tmp_path):
    records.draw_confusion(tmp_path / "c.png", np.array([[3, 1], [0, 0]]), ("a", "tr\udce4urig"), "title")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
