"""What a probe's settings refuse."""

import pytest

from configs import probe as probe_config
from simfle_jax.errors import UserError
from simfle_jax.evaluation.settings import probing


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
        ("protocol", "fast", "protocol = 'fast' must be one of cached, knn, linear, logistic, lowlabel"),
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
    ],
)
def test_what_cannot_work_is_refused(settings, key, value, message):
    with settings.unlocked():
        settings.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        probing(settings)
