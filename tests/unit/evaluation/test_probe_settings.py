"""What a probe's settings refuse."""

import pytest

from configs import probe as probe_config
from simfle_jax.config import as_dict
from simfle_jax.errors import UserError
from simfle_jax.evaluation.settings import probing, upgraded


@pytest.fixture
def settings(tmp_path):
    config = probe_config.get_config()
    config.encoder = config.data.path = str(tmp_path)
    return config


def test_the_config_holds_the_papers_protocol(settings):
    probe = probing(settings)
    assert (probe.lr, probe.momentum, probe.epochs, probe.batch_size) == (0.5, 0.9, 100, 1024)
    assert (probe.protocol, probe.select_on, probe.balance) == ("linear", "val", "none")


@pytest.mark.parametrize(
    "key, value, message",
    [
        (
            "protocol",
            "fast",
            "protocol = 'fast' must be one of cached, finetune, knn, landmarks, linear, logistic, lowlabel",
        ),
        ("dataset", "rafdb8", "must be one of affectnet8, affectnet7, rafdb, ferplus, sfew"),
        ("select_on", "test", "must be one of val, train-holdout"),
        ("balance", "both", "must be one of none, sampling, loss"),
        ("epochs", 0, "epochs = 0 must be at least 1"),
        ("lr", 0.0, "lr = 0.0 must be positive"),
        ("momentum", 1.0, "momentum = 1.0"),
        ("holdout", 1.0, "holdout = 1.0"),
        ("encoder", "", "encoder is empty: give --config.encoder=RUN"),
        ("encoder", "nowhere", "no encoder at nowhere"),
        ("data.path", "nowhere", "no folder 'nowhere'"),
        ("seed", 2**32, "seed = 4294967296 must lie in 0..4294967295"),
        ("data.canvas", -1, "data.canvas = -1"),
        ("features", "nowhere.npz", "features stand in place of an encoder"),
        ("cached.lrs", (0.1, 0.1), "cached.lrs = .* names one rate twice"),
        ("cached.lrs", (0.1, -1.0), "cached.lrs = .* must all be positive"),
        ("cached.lrs", (0.1, 1.0), "cached.lrs is for protocol = 'cached'"),
        ("knn.k", (), "knn.k = .* must name one or more numbers of at least 1"),
        ("knn.temperature", (0.0,), "knn.temperature = .* positive"),
        ("lowlabel.shares", (0.0, 0.5), "lowlabel.shares = .* above 0 and at most 1"),
        ("lowlabel.draws", 0, "lowlabel.draws = 0 must be at least 1"),
        ("seeds", (0, 1, 0), r"seeds = \(0, 1, 0\) names a seed twice"),
        ("lowlabel.on", "knn", "lowlabel.on = 'knn' must be one of logistic, finetune"),
        ("finetune.layer_decay", 0.0, "finetune.layer_decay = 0.0 must be above 0 and at most 1"),
        ("finetune.warmup_epochs", -1.0, "finetune.warmup_epochs = -1 must not be negative"),
        ("landmarks.head", "heat", "landmarks.head = 'heat' must be one of linear, attention, finetune"),
        ("landmarks.file", "gone.csv", "no landmarks at gone.csv: give --config.landmarks.file"),
    ],
)
def test_what_cannot_work_is_refused(settings, key, value, message):
    with settings.unlocked():
        settings.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        probing(settings)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"protocol": "landmarks", "landmarks.head": "finetune", "finetune.mixup": 0.2},
            "mixes classes, and landmarks",
        ),
        (
            {"protocol": "landmarks", "landmarks.head": "finetune", "finetune.share": 0.5},
            "is for protocol = 'finetune'",
        ),
        ({"protocol": "lowlabel", "lowlabel.on": "finetune", "finetune.share": 0.5}, "is for protocol = 'finetune'"),
        (
            {"protocol": "lowlabel", "lowlabel.on": "finetune", "epochs": 5},
            "warmup_epochs = 5 must be less than epochs",
        ),
    ],
)
def test_what_a_trunk_cannot_be_trained_by_is_refused(settings, changes, message):
    settings.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        probing(settings)
    settings.update_from_flattened_dict({"lowlabel.on": "logistic", "landmarks.head": "attention"})
    probing(settings)  # settings of fine-tuning do not matter to what does not fine-tune


def test_rates_are_compared_on_a_part_of_train(settings):
    settings.protocol = "cached"
    settings.cached.lrs = (0.1, 1.0)
    with pytest.raises(UserError, match="on a part of train, never on val: give --config"):
        probing(settings)


def test_the_old_name_of_the_published_protocol_is_known(settings):
    settings.protocol = "paper"
    assert probing(settings).protocol == "linear"


def test_settings_that_an_earlier_version_recorded_are_brought_up(settings):
    recorded = as_dict(probing(settings))
    for new in ("features", "cached", "knn", "lowlabel", "finetune", "landmarks"):
        del recorded[new]
    del recorded["encoder"]
    tuned = upgraded(recorded | {"protocol": "finetune", "lr": 0.01})
    assert tuned["lr"] == 0.5, "it was recorded and did nothing"
    found = upgraded(recorded | {"protocol": "paper"})
    now = as_dict(probing(settings))
    del now["encoder"], now["features"], now["seeds"]
    assert found == now
