"""Every setting that cannot work is refused with the numbers in the message."""

import pytest
import small

from simfle_jax.config import as_dict, digest, pretraining
from simfle_jax.errors import UserError

REFUSED = [
    ({"n_groups": 5}, "16|32 channels are not divisible into n_groups = 5"),
    ({"mask_ratio": 0.0}, "keeps 16 of 16 patches"),
    ({"mask_ratio": 1.0}, "keeps 0 of 16 patches"),
    ({"model.patch": 5}, "16 is not divisible by model.patch = 5"),
    ({"model.vit_heads": 3}, "model.vit_width = 16 is not divisible by model.vit_heads = 3"),
    ({"model.decoder_width": 6}, "divisible by 4"),
    ({"model.masking": "sematic"}, "semantic, random"),
    ({"model.grouping_init": "xavier"}, "grouped, he, constant"),
    ({"batch_size": 1}, "at least 2"),
    ({"batch_size": 8, "accumulate": 3}, "not divisible by accumulate = 3"),
    ({"dtype": "float16"}, "float32, bfloat16"),
    ({"seed": -1}, "seed = -1 must lie in 0..4294967295"),
    ({"seed": 2**32}, "seed = 4294967296 must lie in 0..4294967295: larger ones would repeat smaller ones"),
    ({"lr": 0.0}, "lr = 0.0 must be positive"),
    ({"epochs": 1.5}, "must be of type int"),
    ({"views.scale": (0.5, 0.2)}, "must rise"),
    ({"views.hue": 0.7}, "0..0.5"),
    ({"data.mean": (0.5, 0.5)}, "3 numbers"),
]


def changed(changes):
    config = small.settings().to_dict()
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = config
        for parent in parents:
            place = place[parent]
        place[last] = value
    return config


@pytest.mark.parametrize("changes,message", REFUSED, ids=[str(changes) for changes, _ in REFUSED])
def test_refused(changes, message):
    with pytest.raises(UserError, match=message):
        pretraining(changed(changes))


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(UserError, match=r"no setting model.widht; did you mean model.width\?"):
        pretraining(changed({"model.widht": 3}))


def test_a_missing_key_is_named():
    config = small.settings().to_dict()
    del config["views"]["flip"]
    with pytest.raises(UserError, match=r"views.flip is missing"):
        pretraining(config)


def test_paper_sizes():
    from configs import simfle

    config = pretraining(simfle.get_config())
    assert (config.grid, config.kept_patches, config.feature_grid, config.model.features) == (7, 12, 4, 2048)


def test_settings_survive_json_and_name_themselves():
    config = small.config()
    assert pretraining(as_dict(config)) == config
    assert digest(config) != digest(small.config(seed=1))
