"""Every setting that cannot work is refused with the numbers in the message."""

import pytest
import small

from simfle_jax.config import as_dict, digest, flatten, pretraining, today, upgrade
from simfle_jax.config.schema import MOVED
from simfle_jax.errors import UserError
from simfle_jax.evaluation.settings import upgraded

REFUSED = [
    ({"facemae.n_groups": 5}, "16|32 channels are not divisible into facemae.n_groups = 5"),
    ({"facemae.mask_ratio": 0.0}, "keeps 16 of 16 patches"),
    ({"facemae.mask_ratio": 1.0}, "keeps 0 of 16 patches"),
    ({"facemae.patch": 5}, "16 is not divisible by facemae.patch = 5"),
    ({"facemae.heads": 3}, "facemae.width = 16 is not divisible by facemae.heads = 3"),
    ({"facemae.decoder_width": 6}, "divisible by 4"),
    ({"facemae.masking": "sematic"}, "semantic, random"),
    ({"facemae.grouping_init": "xavier"}, "grouped, he, constant"),
    ({"batch_size": 1}, "at least 2"),
    ({"batch_size": 8, "accumulate": 3}, "not divisible by accumulate = 3"),
    ({"dtype": "float16"}, "float32, bfloat16"),
    ({"seed": -1}, "seed = -1 must lie in 0..4294967295"),
    ({"seed": 2**32}, "seed = 4294967296 must lie in 0..4294967295: larger ones would repeat smaller ones"),
    ({"optimizer.lr": 0.0}, "lr = 0.0 must be positive"),
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
    with pytest.raises(UserError, match=r"no setting trunk.widht; did you mean trunk.width\?"):
        pretraining(changed({"trunk.widht": 3}))


def test_a_missing_key_is_named():
    config = small.settings().to_dict()
    del config["views"]["flip"]
    with pytest.raises(UserError, match=r"views.flip is missing"):
        pretraining(config)


def test_paper_sizes():
    from configs import simfle

    config = pretraining(simfle.get_config())
    assert (config.grid, config.kept_patches, config.feature_grid, config.trunk.features) == (7, 12, 4, 2048)


def test_settings_survive_json_and_name_themselves():
    config = small.config()
    assert pretraining(as_dict(config)) == config
    assert digest(config) != digest(small.config(seed=1))


def test_old_flags_set_what_they_set():
    moved = {
        "--config.lr=0.1": "--config.optimizer.lr=0.1",
        "--config.optimizer=adam": "--config.optimizer.name=adam",
        "--config.model.vit_width=8": "--config.facemae.width=8",
        "-config.mask_ratio=.5": "-config.facemae.mask_ratio=.5",
        "--config.model.facemae=False": "--config.method=byol",
        "--noconfig.model.facemae": "--config.method=byol",
        "--config.model.facemae=True": "--config.method=simfle",
        "--config.data.path=lr": "--config.data.path=lr",
        "--workdir=config.lr=1": "--workdir=config.lr=1",
    }
    assert {flag: today(flag) for flag in moved} == moved


def test_every_old_setting_has_a_place_today():
    known = flatten(as_dict(small.config()))
    assert set(MOVED.values()) <= set(known) and not set(MOVED) & set(known) - {"optimizer"}


def test_a_recorded_config_of_a_newer_schema_or_with_an_unknown_key_is_refused():
    recorded = as_dict(small.config()) | {"schema": 99}
    with pytest.raises(UserError, match="schema is 99, and this version of simfle-jax knows up to 2"):
        upgrade(recorded)
    with pytest.raises(UserError, match="there is no setting gravity"):
        pretraining(upgrade(recorded | {"schema": 2, "gravity": 9.81}))


def test_a_recorded_config_whose_groups_are_none_is_refused():
    with pytest.raises(UserError, match=r"heads must be a group of settings, as heads.out says"):
        upgrade({"heads": 5, "model.head_out": 3})
    with pytest.raises(UserError, match="5 was recorded where a group of settings must be"):
        upgraded({"data": 5})


def test_settings_that_came_later_are_as_before_in_what_was_recorded():
    recorded = as_dict(small.config()) | {"schema": 2}
    del recorded["method"], recorded["views"]["standardise"], recorded["optimizer"]["clip"]
    assert pretraining(upgrade(recorded)) == small.config()


def test_a_method_is_refused_a_masking_or_trunk_that_it_has_no_use_for():
    with pytest.raises(UserError, match="no encoder whose channels could choose patches"):
        small.config(method="mae")
    with pytest.raises(UserError, match="masks patches of a ViT"):
        small.config(method="mae", facemae={"masking": "random"})
