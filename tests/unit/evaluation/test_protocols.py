"""The laws of every protocol: planted features give all, noise gives chance, and nothing is chosen on val."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from small_probe import write_encoder

from configs import probe as probe_config
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import linear
from simfle_jax.evaluation.linear import HOLDOUT, Labelled, Sgd, holdout_rows
from simfle_jax.evaluation.probe import own_model
from simfle_jax.evaluation.protocols import find_protocol, trained_protocol
from simfle_jax.evaluation.protocols.base import ProbeProtocol, Protocol, TargetProtocol, TrainingSet, TrunkProtocol
from simfle_jax.evaluation.protocols.lowlabel import few_rows
from simfle_jax.evaluation.settings import PROTOCOLS, probing
from simfle_jax.weights.card import protocol_title

CLASSES = 4
ON_FEATURES = sorted(set(PROTOCOLS) - {"finetune", "landmarks"})  # those two take images


@pytest.fixture
def settings(tmp_path):
    def make(protocol, **changes):
        config = probe_config.get_config()
        config.update(encoder=str(tmp_path), protocol=protocol, epochs=30, batch_size=64, lr=1.0)
        config.data.path = str(tmp_path)
        config.update(changes)
        return probing(config)

    return make


def labelled(count, seed, signal):
    """Features of noise; `signal` times the class's own direction is added."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % CLASSES).astype(np.int32)
    features = rng.standard_normal((count, 12)) + signal * np.eye(CLASSES, 12)[labels]
    return Labelled(jnp.asarray(features, jnp.float32), jnp.asarray(labels))


def training_set(train, folder):
    return TrainingSet(lambda: train, lambda epoch, tell: train, len(train.labels), 12, CLASSES, folder)


def fitted(probe, train, held, folder):
    return find_protocol(probe).fit(training_set(train, folder), held)


def accuracy(fit, held):
    return float((fit.predictor.predict(held.features) == held.labels).mean())


@pytest.mark.parametrize("protocol", ON_FEATURES)
def test_a_planted_feature_gives_all_and_noise_gives_chance(settings, tmp_path, protocol):
    for signal, low, high in ((20.0, 1.0, 1.0), (0.0, 0.15, 0.35)):
        train, val = labelled(400, 1, signal), labelled(400, 2, signal)
        fit = fitted(settings(protocol), train, {"val": val}, tmp_path)
        (tmp_path / "progress.npz").unlink(missing_ok=True)
        assert low <= accuracy(fit, val) <= high, f"{protocol} at signal {signal}"
        shares = np.asarray(fit.predictor.probabilities(val.features))
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
        np.testing.assert_array_equal(shares.argmax(1), fit.predictor.predict(val.features))


@pytest.mark.parametrize("protocol", ON_FEATURES)
def test_wrong_labels_cost_their_share_and_no_more(settings, tmp_path, protocol):
    """A fifth of all labels is wrong: the predictor still finds the true classes, so a fifth of val is missed."""
    sets = {}
    for name, seed in (("train", 1), ("val", 2)):
        clean = labelled(800, seed, 20.0)
        wrong = np.arange(800) % 5 == 0
        sets[name] = clean._replace(labels=jnp.where(wrong, (clean.labels + 1) % CLASSES, clean.labels))
    fit = fitted(settings(protocol, lr=0.01), sets["train"], {"val": sets["val"]}, tmp_path)
    assert accuracy(fit, sets["val"]) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("protocol", ["cached", "logistic", "knn", "lowlabel"])
def test_nothing_is_chosen_on_val(settings, tmp_path, protocol):
    """Another val set changes no predictor; the sweep, k, temperature and strength are chosen on train."""
    changes = {"knn": {"k": (1, 5, 20), "temperature": (0.05, 1.0)}}
    if protocol == "cached":
        changes |= {"cached": {"lrs": (0.01, 1.0)}, "select_on": "train-holdout"}
    train, holdout, found = labelled(120, 1, 1.0), labelled(40, 5, 1.0), []
    for seed in (2, 3):
        held = {"val": labelled(60, seed, 0.2)}
        if protocol == "cached":
            held = {"train-holdout": holdout, **held}
        fit = fitted(settings(protocol, **changes), train, held, tmp_path)
        (tmp_path / "progress.npz").unlink(missing_ok=True)
        found.append(np.asarray(fit.predictor.logits(holdout.features)))
    np.testing.assert_array_equal(*found)


def test_the_best_rate_of_a_sweep_gives_the_weights_of_that_rate_alone(settings, tmp_path):
    train, held = labelled(200, 1, 1.0), {"train-holdout": labelled(60, 2, 1.0), "val": labelled(60, 3, 1.0)}
    rates = (0.003, 0.1, 1.0)
    sweep = fitted(settings("cached", cached={"lrs": rates}, select_on="train-holdout"), train, held, tmp_path)
    assert [row["lr"] for row in sweep.facts["sweep"]] == list(rates)
    for row in sweep.facts["sweep"]:
        (tmp_path / "progress.npz").unlink()
        alone = fitted(settings("cached", lr=row["lr"], select_on="train-holdout"), train, held, tmp_path)
        assert row["best_epoch"] == alone.facts["best_epoch"]
        right = accuracy(alone, held["train-holdout"])
        assert row["holdout_accuracy"] == pytest.approx(right)
        if row["lr"] == sweep.facts["lr"]:
            np.testing.assert_allclose(sweep.predictor.kernel, alone.predictor.kernel, atol=1e-5)
            np.testing.assert_allclose(sweep.predictor.bias, alone.predictor.bias, atol=1e-5)
            assert sweep.facts["last_epoch_accuracy"] == pytest.approx(alone.facts["last_epoch_accuracy"])
    best = max(row["holdout_accuracy"] for row in sweep.facts["sweep"])
    assert accuracy(sweep, held["train-holdout"]) == pytest.approx(best)


def test_a_sweep_goes_on_to_the_same_bits():
    train, apart, sgd = labelled(50, 1, 1.0), (labelled(20, 2, 1.0),), Sgd(16, 1.0, 0.9, "none", 0)
    rates = (0.1, 1.0)
    begun = linear.start(linear.new_layer(0, 12, CLASSES), len(rates))
    whole, history = linear.fit_epochs(begun, train, apart, sgd, 5, rates)
    part, first = linear.fit_epochs(begun, train, apart, sgd, 2, rates)
    part, second = linear.fit_epochs(part, train, apart, sgd, 3, rates)
    np.testing.assert_array_equal(whole.layer.kernel, part.layer.kernel)
    np.testing.assert_array_equal(whole.best_epoch, part.best_epoch)
    np.testing.assert_array_equal(history.loss, first.followed_by(second).loss)
    assert history.accuracy.shape == (5, 2, 1)


def test_neighbours_are_chosen_as_a_loop_over_single_settings_chooses(settings, tmp_path):
    """A second way of computing: for each k and temperature every cosine is sorted and every vote counted alone."""
    train = labelled(150, 4, 1.5)
    ks, temperatures = (1, 3, 15, 60), (0.02, 0.3)
    fit = fitted(settings("knn", knn={"k": ks, "temperature": temperatures}), train, {"val": train}, tmp_path)
    features, labels = (np.asarray(part, np.float64 if i == 0 else np.int32) for i, part in enumerate(train))
    apart, unit = holdout_rows(labels, HOLDOUT, 0), features / np.linalg.norm(features, axis=1, keepdims=True)
    recalls = {}
    for temperature in temperatures:
        for k in ks:
            hits = np.zeros((CLASSES, 2))
            for row in np.flatnonzero(apart):
                cosines = unit[~apart] @ unit[row]
                votes = np.zeros(CLASSES)
                for near in np.argsort(-cosines)[:k]:
                    votes[labels[~apart][near]] += math.exp(cosines[near] / temperature)
                hits[labels[row]] += (votes.argmax() == labels[row], 1)
            recalls[k, temperature] = (hits[:, 0] / hits[:, 1]).mean()
    assert recalls[fit.facts["k"], fit.facts["temperature"]] == max(recalls.values())
    assert len(set(recalls.values())) > 2


def test_few_labels_are_a_share_of_every_class_and_nest():
    labels = np.repeat([0, 1, 2], [200, 40, 1])
    draws = {share: few_rows(labels, share, (0, 1)) for share in (0.01, 0.1, 0.25)}
    assert [np.bincount(labels[rows], minlength=3).tolist() for rows in draws.values()] == [
        [2, 1, 1], [20, 4, 1], [50, 10, 1],
    ]  # fmt: skip
    assert set(draws[0.01]) <= set(draws[0.1]) <= set(draws[0.25])
    assert set(few_rows(labels, 0.1, (0, 2))) != set(draws[0.1])


def test_every_draw_is_told_and_summed_up(settings, tmp_path):
    train, val = labelled(200, 1, 1.5), labelled(80, 2, 1.5)
    few = {"shares": (0.02, 0.5), "draws": 3}
    facts = fitted(settings("lowlabel", lowlabel=few), train, {"val": val}, tmp_path).facts
    assert [(draw["share"], draw["draw"]) for draw in facts["draws"]] == [(0.5, i) for i in range(3)] + [
        (0.02, i) for i in range(3)
    ]
    for row in facts["shares"]:
        values = [draw["macro_f1"] for draw in facts["draws"] if draw["share"] == row["share"]]
        assert row["macro_f1"] == {"mean": pytest.approx(np.mean(values)), "range": [min(values), max(values)]}
    small, large = facts["shares"]
    assert (small["train_count"], large["train_count"]) == (4, 100)
    assert small["accuracy"]["mean"] < large["accuracy"]["mean"]


def test_one_image_of_every_class_is_enough(settings, tmp_path):
    """1 % of few images: nothing can be kept apart to choose the strength, so the strongest is taken."""
    train, val = labelled(60, 1, 20.0), labelled(80, 2, 20.0)
    facts = fitted(settings("lowlabel", lowlabel={"shares": (0.01,), "draws": 2}), train, {"val": val}, tmp_path).facts
    assert [(row["train_count"], row["l2"]) for row in facts["draws"]] == [(CLASSES, 1.0)] * 2
    assert facts["shares"][0]["accuracy"]["mean"] > 0.5  # of four classes


@pytest.mark.parametrize(
    "protocol, changes, message",
    [
        ("linear", {"features": True}, "protocol = 'linear' needs the images, and features hold none"),
        (
            "knn",
            {"select_on": "train-holdout"},
            "select_on is for protocol = 'linear' and 'cached', not 'knn': leave it out",
        ),
        ("logistic", {"balance": "loss"}, "balance is for protocol = 'linear' and 'cached'"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, protocol, changes, message):
    features = changes.pop("features", "")
    probe = dataclasses.replace(settings(protocol, **changes), features="x.npz" if features else "")
    with pytest.raises(UserError, match=message):
        find_protocol(probe)


def test_what_is_evaluated_is_what_the_folder_recorded(settings):
    asked = settings("knn")
    kinds = {"landmarks": TargetProtocol, "finetune": TrunkProtocol, "": ProbeProtocol}
    for recorded, kind in kinds.items():
        assert isinstance(trained_protocol(asked, recorded), kind), recorded
    assert type(trained_protocol(asked, "of somebody else")) is Protocol
    with pytest.raises(UserError, match="a probe of protocol 'landmarks' needs the images"):
        trained_protocol(dataclasses.replace(asked, features="x.npz"), "landmarks")


def test_few_labels_are_learned_by_what_is_asked_for(settings):
    for on, kind in (("logistic", ProbeProtocol), ("finetune", TrunkProtocol)):
        assert isinstance(find_protocol(settings("lowlabel", lr=0.5, lowlabel={"on": on})), kind)


def test_a_probe_that_tuned_its_trunk_is_evaluated_with_it(tmp_path):
    encoder = load_encoder(write_encoder(tmp_path / "encoder.safetensors"))
    assert own_model(tmp_path) is None
    (tmp_path / "results.json").write_text('{"encoder_hash": "v2-0"}')
    assert own_model(tmp_path) is None
    (tmp_path / "results.json").write_text('{"encoder_hash": "v2-0", "tuned_encoder_hash": "v2-1"}')
    found = own_model(tmp_path)
    assert found is not None and found.hash == encoder.hash


@pytest.mark.parametrize("protocol, changes", [("finetune", {}), ("lowlabel", {"lowlabel": {"on": "finetune"}})])
def test_the_rate_of_a_layer_is_none_of_a_trunk(settings, protocol, changes):
    with pytest.raises(UserError, match=r"lr = 0\.001 is of a layer on frozen features; .* --config\.finetune\.lr"):
        settings(protocol, lr=0.001, **changes)
    settings(protocol, lr=0.5, **changes)


def test_scores_of_few_labels_say_so():
    assert protocol_title({"protocol": "logistic"}) == "logistic"
    assert protocol_title({"protocol": "finetune", "share": 0.05}) == "finetune, 5 % of the labels"
    assert (
        protocol_title({"protocol": "lowlabel", "shares": [{"share": 0.01}, {"share": 0.25}]})
        == "lowlabel, 25 % of the labels"
    )
