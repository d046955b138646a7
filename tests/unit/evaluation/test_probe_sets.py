"""The sets of a probe: which images they hold, and what is refused."""

import numpy as np
import pytest
from small_probe import write_encoder, write_split

from configs import probe as probe_config
from simfle_jax.errors import UserError
from simfle_jax.evaluation.sets import Subset, open_sets
from simfle_jax.evaluation.settings import probing

COUNTS = {"blue": 10, "green": 20, "red": 5}


@pytest.fixture
def data(tmp_path):
    write_split(tmp_path / "train", COUNTS)
    write_split(tmp_path / "val", dict.fromkeys(COUNTS, 2), seed=1)
    return tmp_path


def opened(folder, **changes):
    config = probe_config.get_config()
    config.update(encoder=str(folder), **changes)
    config.data.path = str(folder)
    return open_sets(probing(config))


def test_val_chooses_as_published(data):
    sets = opened(data)
    assert list(sets.apart) == ["val"]
    assert (len(sets.train), len(sets.apart["val"])) == (35, 6)
    assert sets.classes == ("blue", "green", "red")


def test_holdout_is_taken_out_of_train_and_chooses(data):
    sets = opened(data, select_on="train-holdout", holdout=0.2)
    assert list(sets.apart) == ["train-holdout", "val"]
    kept, apart = ({s.name(i) for i in range(len(s))} for s in (sets.train, sets.apart["train-holdout"]))
    assert not kept & apart and len(kept | apart) == 35
    np.testing.assert_array_equal(np.bincount(sets.apart["train-holdout"].labels), [2, 4, 1])


def test_further_sets_are_folders_or_splits(data, tmp_path_factory):
    other = write_split(tmp_path_factory.mktemp("other") / "faces", dict.fromkeys(COUNTS, 3))
    write_split(data / "test", dict.fromkeys(COUNTS, 4))
    sets = opened(data, data={"val": (str(other), "test")})
    assert {name: len(source) for name, source in sets.apart.items()} == {"val": 6, str(other): 9, "test": 12}


def test_a_further_set_that_is_not_there_is_told_by_its_setting(data):
    with pytest.raises(UserError, match=r"data.val: 'test': no folder .*test"):
        opened(data, data={"val": ("test",)})


def test_a_val_folder_with_other_classes_is_refused(data):
    (data / "val" / "red").rename(data / "val" / "yellow")
    with pytest.raises(UserError, match="val has not the classes of train: it lacks red and has yellow besides"):
        opened(data)


def test_one_class_is_refused(tmp_path):
    write_split(tmp_path / "train", {"blue": 3})
    with pytest.raises(UserError, match="at least two class folders and has only 'blue'"):
        opened(tmp_path)


def test_a_dataset_of_other_classes_is_refused(data):
    with pytest.raises(UserError, match="rafdb has 7 classes, but train holds 3 folders: blue, green, red"):
        opened(data, dataset="rafdb")


def test_a_subset_reads_the_records_of_its_rows(data):
    whole = opened(data).train
    part = Subset(whole, np.array([3, 30]))
    assert part[1] == whole[30] and part.name(0) == whole.name(3)
    np.testing.assert_array_equal(part.labels, whole.labels[[3, 30]])


def test_missing_encoder_file_is_told_by_its_folder(data):
    from simfle_jax.encoder import load_encoder

    with pytest.raises(UserError, match=r"holds no encoder\.safetensors"):
        load_encoder(data)
    assert load_encoder(write_encoder(data / "encoder.safetensors").parent).dim == 32
