"""The sets of a probe: which images they hold, and what is refused."""

import numpy as np
import pytest
from small_probe import write_encoder, write_split

from configs import probe as probe_config
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError
from simfle_jax.evaluation.sets import SharedClasses, Subset, crop_of_sets, open_sets
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


def test_a_name_means_the_split_beside_train_and_val_is_one_already(data, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("another")
    write_split(elsewhere / "test", dict.fromkeys(COUNTS, 1))
    write_split(data / "test", dict.fromkeys(COUNTS, 4))
    monkeypatch.chdir(elsewhere)
    assert len(opened(data, data={"val": ("test",)}).apart["test"]) == 12, "of the working directory"
    with pytest.raises(UserError, match=r"data.val: 'val' is reported in any case: leave it out"):
        opened(data, data={"val": ("val",)})


def test_the_crop_is_that_of_all_sets(data, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "faces").mkdir()
    config = probe_config.get_config()
    config.update(encoder=str(data), data={"path": str(data), "val": ("test",)})
    assert crop_of_sets(probing(config)) == "as given"
    for folder in (data, other):
        (folder / "manifest.json").write_text(f'{{"rules": {{"align": "{folder.name}"}}}}')
    assert crop_of_sets(probing(config)) == data.name
    config.data.val = ("test", str(other / "faces"))
    assert crop_of_sets(probing(config)) == ", ".join(sorted([data.name, other.name]))


def test_a_further_set_that_is_not_there_is_told_by_its_setting(data):
    with pytest.raises(UserError, match=r"data.val: 'test': no folder .*test"):
        opened(data, data={"val": ("test",)})


def test_a_val_folder_with_other_classes_is_refused(data):
    (data / "val" / "red").rename(data / "val" / "yellow")
    with pytest.raises(
        UserError, match=r"it lacks red and has yellow besides; .* or give --config\.data\.classes=shared"
    ):
        opened(data)


def test_shared_classes_meet_by_name_and_the_others_are_named(data, caplog):
    (data / "val" / "red").rename(data / "val" / "yellow")
    found = opened(data, data={"classes": "shared"}).apart["val"]
    assert found.mapping == {"missing": ["red"], "left_out": {"yellow": 2}}
    assert found.classes == ("blue", "green", "red")
    assert [(found.name(i), found[i].label) for i in range(len(found))] == [
        ("blue/000.jpg", 0), ("blue/001.jpg", 0), ("green/000.jpg", 1), ("green/001.jpg", 1)
    ]  # fmt: skip
    assert "val lacks the classes red and has besides, left out: yellow (2 images)" in caplog.text


def test_emotions_meet_by_what_they_mean(tmp_path):
    source = FolderSource(write_split(tmp_path / "own", dict.fromkeys(COUNTS, 2)), labelled=True)
    source.classes = ("Happy", "fear", "sad")
    found = SharedClasses(source, ("anger", "happiness", "sadness"), "other")
    assert found.labels.tolist() == [1, 1, 2, 2] and found.mapping == {"missing": ["anger"], "left_out": {"fear": 2}}
    with pytest.raises(
        UserError, match="other shares 1 of the classes anger, happiness with train: it has Happy, fear"
    ):
        SharedClasses(source, ("anger", "happiness"), "other")


def listed(data, train, val=(), **changes):
    for name, lines in (("train", train), ("val", val)):
        (data / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    lists = {"train_list": str(data / "train.txt")} | ({"val_list": str(data / "val.txt")} if val else {})
    return opened(data, data=lists | changes)


def test_a_list_names_the_images_of_a_split(data):
    sets = listed(data, ["train/red/001.jpg", "blue/007.jpg", "", "green/000.jpg"])
    assert [sets.train.name(i) for i in range(3)] == ["blue/007.jpg", "green/000.jpg", "red/001.jpg"]
    assert sets.train.labels.tolist() == [0, 1, 2] and len(sets.apart["val"]) == 6
    assert (
        sets.fingerprints["train"]
        != listed(data, ["red/002.jpg", "blue/007.jpg", "green/000.jpg"]).fingerprints["train"]
    )
    for lines, message in (
        (["red/001.jpg", "red/099.jpg"], "train.txt, line 2: no image red/099.jpg; names are as blue/000.jpg"),
        (["red/001.jpg", "red/001.jpg"], "train.txt, line 2: red/001.jpg is there twice"),
        (["red/001.jpg", "train/red/001.jpg"], "train.txt, line 2: train/red/001.jpg is there twice"),
        (["red/001.jpg", "blue/001.jpg"], "names no image of the class green"),
    ):
        with pytest.raises(UserError, match=message):
            listed(data, lines)


def test_two_lists_part_one_folder(tmp_path):
    write_split(tmp_path, dict.fromkeys(COUNTS, 3))
    train = [f"{name}/00{number}.jpg" for name in COUNTS for number in (0, 1)]
    sets = listed(tmp_path, train, [f"{name}/002.jpg" for name in COUNTS])
    assert (len(sets.train), sets.apart["val"].labels.tolist()) == (6, [0, 1, 2])
    with pytest.raises(UserError, match=r"red/001.jpg is in .*train.txt and in .*val.txt"):
        listed(tmp_path, train, ["red/001.jpg"])
    with pytest.raises(UserError, match=r"red/001.jpg is in .*train.txt and in .*val.txt"):
        listed(tmp_path, [f"train/{name}" for name in train], ["val/red/001.jpg"])


def votes_file(folder, changes=None, columns="name,red,green,blue,unknown"):
    names = [f"train/{name}/{number:03d}.jpg" for name, count in COUNTS.items() for number in range(count)]
    lines = {name: f"{name},1,2,5,2" for name in names} | (changes or {})
    (folder / "votes.csv").write_text("\n".join([columns, *filter(None, lines.values())]) + "\n")
    return {"votes": str(folder / "votes.csv")}


def test_votes_are_shares_of_the_classes_in_the_order_of_the_images(data):
    changes = {"train/green/003.jpg": "train/green/003.jpg,0,4,0,6"}
    sets = opened(data, data=votes_file(data, changes), select_on="train-holdout", holdout=0.2)
    place = next(i for i in range(len(sets.train)) if sets.train.name(i) == "green/003.jpg")
    assert len(sets.votes) == len(sets.train) == 28 and sets.votes[place].tolist() == [0, 1, 0]
    np.testing.assert_allclose(np.delete(sets.votes, place, 0), np.tile([5 / 8, 2 / 8, 1 / 8], (27, 1)))
    assert "votes" in sets.fingerprints


@pytest.mark.parametrize(
    "line, columns, message",
    [
        ("", "name,red,green,blue,unknown", "has no line for train/red/001.jpg"),
        ("train/red/001.jpg,0,0,0,9", "name,red,green,blue,unknown", "train/red/001.jpg needs votes of 0 or more"),
        ("train/red/001.jpg,1,nan,0,9", "name,red,green,blue,unknown", "train/red/001.jpg needs votes of 0 or more"),
        ("train/red/001.jpg,1,x,0,9", "name,red,green,blue,unknown", "train/red/001.jpg are not all numbers"),
        ("train/red/000.jpg,1,1,1,1", "name,red,green,blue,unknown", "line 33: train/red/000.jpg is there twice"),
        (None, "name,red,green,yellow,unknown", "has no column blue, only red, green, yellow, unknown"),
        (None, "image,red,green,blue,unknown", "must begin with a line of columns, `name` and others"),
    ],
)
def test_votes_that_do_not_fit_are_told(data, line, columns, message):
    changes = None if line is None else {"train/red/001.jpg": line}
    with pytest.raises(UserError, match=message):
        opened(data, data=votes_file(data, changes, columns))


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
