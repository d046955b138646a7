import json
import pickle

import numpy as np
import pytest
from images import damaged, write_classes, write_folder

from simfle_jax.data import packing
from simfle_jax.data.opening import open_source
from simfle_jax.data.packing import pack
from simfle_jax.data.pipeline import TrainBatches, eval_batches
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError


@pytest.fixture
def faces(tmp_path):
    """train/ and val/ of three classes, some files damaged, one a link to nowhere."""
    write_classes(tmp_path / "faces" / "train", {"angry": 9, "happy": 12, "sad": 6})
    write_classes(tmp_path / "faces" / "val", {"angry": 2, "happy": 3, "sad": 2})
    for name, data in damaged().items():
        (tmp_path / "faces" / "train" / "happy" / name).write_bytes(data)
    (tmp_path / "faces" / "train" / "sad" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    return tmp_path / "faces"


def assert_same_source(one, other):
    assert len(one) == len(other)
    assert [one.name(i) for i in range(len(one))] == [other.name(i) for i in range(len(other))]
    assert one.classes == other.classes and one.fingerprint == other.fingerprint
    np.testing.assert_array_equal(one.labels, other.labels)
    for index in range(len(one)):
        if not one.name(index).endswith("gone.jpg"):
            assert one[index] == other[index]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_pack_is_the_same_source_as_its_folder(faces, tmp_path, split, labelled):
    assert pack(str(faces), str(tmp_path / "pack"), shard_bytes=9000) == {"train": 40, "val": 7}
    kept = open_source("array_record", str(tmp_path / "pack"), labelled, split)
    assert_same_source(FolderSource(faces, labelled, split), kept)


def test_a_pack_without_a_split_lists_all_of_them_as_the_folder_does(faces, tmp_path):
    pack(str(faces), str(tmp_path / "pack"))
    assert_same_source(FolderSource(faces), open_source("array_record", str(tmp_path / "pack")))


def test_a_folder_without_splits_becomes_one_listing(tmp_path):
    write_folder(tmp_path / "faces" / "deep", 5)
    assert pack(str(tmp_path / "faces"), str(tmp_path / "pack")) == {"": 5}
    kept = open_source("array_record", str(tmp_path / "pack"))
    assert_same_source(FolderSource(tmp_path / "faces"), kept)
    with pytest.raises(UserError, match="has no labels"):
        open_source("array_record", str(tmp_path / "pack"), labelled=True)


def test_batches_from_a_pack_are_those_of_the_folder(faces, tmp_path):
    pack(str(faces), str(tmp_path / "pack"), shard_bytes=9000)
    sources = [open_source(kind, path, True, "train") for kind, path in
               (("folder", str(faces)), ("array_record", str(tmp_path / "pack")))]  # fmt: skip
    settings = {"seed": 3, "batch_size": 8, "canvas": 20, "threads": 2}
    with TrainBatches(sources[0], **settings) as expected, TrainBatches(sources[1], **settings) as got:
        for _ in range(20):
            one, other = next(expected), next(got)
            for key in ("image", "index", "label"):
                np.testing.assert_array_equal(one[key], other[key])
        assert got.bad.keys() == expected.bad.keys() and len(got.bad) == 13
    assert got.bad["sad/gone.jpg"] == "unreadable when it was packed"
    for one, other in zip(*(eval_batches(source, batch_size=10, canvas=20) for source in sources)):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["valid"], other["valid"])


def test_shards_hold_about_as_much_as_asked(tmp_path):
    write_folder(tmp_path / "faces", 30)
    pack(str(tmp_path / "faces"), str(tmp_path / "pack"), shard_bytes=5000)
    index = json.loads((tmp_path / "pack" / "index.json").read_text())
    assert len(index["shards"]) > 3 and sum(shard["count"] for shard in index["shards"]) == 30
    assert index["shards"][1]["name"] == f"00001-of-{len(index['shards']):05d}.array_record"
    kept = open_source("array_record", str(tmp_path / "pack"))
    assert [kept[i].data for i in (29, 0, 15)] == [FolderSource(tmp_path / "faces")[i].data for i in (29, 0, 15)]


def test_packing_again_changes_nothing_and_other_data_are_refused(faces, tmp_path, monkeypatch):
    pack(str(faces), str(tmp_path / "pack"))
    monkeypatch.setattr(packing, "_write_shards", None)
    assert pack(str(faces), str(tmp_path / "pack")) == {"train": 40, "val": 7}
    (faces / "val" / "sad" / "000.jpg").write_bytes(b"another")
    with pytest.raises(UserError, match=r"val exists and is not the pack of"):
        pack(str(faces), str(tmp_path / "pack"))


def test_a_disk_that_is_full_is_told_in_one_line(faces, tmp_path, monkeypatch):
    """The package's writer raises a RuntimeError of its own."""

    def full(*_):
        raise RuntimeError("write() failed: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_write_shards", full)
        with pytest.raises(
            UserError, match=r"train cannot be written \(.*No space left on device\): make room or mend"
        ):
            pack(str(faces), str(tmp_path / "pack"))
    assert not list((tmp_path / "pack").iterdir())
    assert sum(pack(str(faces), str(tmp_path / "pack")).values())


def test_an_interrupted_packing_leaves_nothing_that_looks_whole(faces, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_write_index", stop)
    with pytest.raises(KeyboardInterrupt):
        pack(str(faces), str(tmp_path / "pack"))
    assert not list((tmp_path / "pack").iterdir())


def test_no_pack_there(tmp_path):
    with pytest.raises(UserError, match="no pack in"):
        open_source("array_record", str(tmp_path))
    with pytest.raises(UserError, match=r"data.path is empty"):
        open_source("array_record", "")


def test_missing_and_short_shards_are_named(tmp_path):
    write_folder(tmp_path / "faces", 9)
    pack(str(tmp_path / "faces"), str(tmp_path / "pack"), shard_bytes=5000)
    second, *_ = sorted((tmp_path / "pack").glob("00001*"))
    data = second.read_bytes()
    second.write_bytes(data[:-100])
    with pytest.raises(UserError, match=rf"00001-of.* has {len(data) - 100} bytes in place of {len(data)}"):
        open_source("array_record", str(tmp_path / "pack"))
    second.unlink()
    with pytest.raises(UserError, match=r"00001-of.* is missing"):
        open_source("array_record", str(tmp_path / "pack"))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "simfle pack 0"}'])
def test_an_index_of_another_kind(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(UserError, match=r"index.json .*pack the data again"):
        open_source("array_record", str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"shards": None}, {"classes": 5}, {"fingerprint": 1}, {"shards": [{}]}, {"shards": []},
        {"shards": [{"name": "../index.json", "count": 3, "bytes": 1}]}, {"shards": [{"name": "x", "count": "3", "bytes": 1}]},
    ],
)  # fmt: skip
def test_an_index_that_is_damaged(tmp_path, change):
    write_folder(tmp_path / "faces", 3)
    pack(str(tmp_path / "faces"), str(tmp_path / "pack"))
    index = json.loads((tmp_path / "pack/index.json").read_text())
    (tmp_path / "pack/index.json").write_text(json.dumps(index | change))
    with pytest.raises(UserError, match=r"pack the data again"):
        open_source("array_record", str(tmp_path / "pack"))


def test_arrays_of_an_index_that_do_not_fit(tmp_path):
    write_folder(tmp_path / "faces", 3)
    pack(str(tmp_path / "faces"), str(tmp_path / "pack"))
    with np.load(tmp_path / "pack/index.npz") as file:
        arrays = dict(file)
    changes = {"ends": arrays["ends"][::-1]}, {"labels": arrays["labels"][:2]}, {"names": arrays["names"][1:]}
    for change in (*changes, {"sizes": arrays["sizes"] * 1.0}, {"sizes": arrays["sizes"][:2]}):
        np.savez(tmp_path / "pack/index.npz", **arrays | change)
        with pytest.raises(UserError, match=r"pack the data again"):
            open_source("array_record", str(tmp_path / "pack"))


def test_a_damaged_record_is_a_bad_image_and_no_crash(tmp_path):
    write_folder(tmp_path / "faces", 4, size=64)
    pack(str(tmp_path / "faces"), str(tmp_path / "pack"))
    (shard,) = (tmp_path / "pack").glob("*.array_record")
    data = bytearray(shard.read_bytes())
    at = data.index(FolderSource(tmp_path / "faces")[2].data[-200:])
    data[at : at + 50] = bytes(50)
    shard.write_bytes(data)
    bad: dict[str, str] = {}
    (batch,) = eval_batches(open_source("array_record", str(tmp_path / "pack")), batch_size=4, canvas=16, bad=bad)
    assert batch["valid"].tolist() == [True, True, False, True]
    assert "damaged" in bad["002.jpg"]


def test_a_pack_can_be_pickled_after_reading(tmp_path):
    write_folder(tmp_path / "faces", 3)
    pack(str(tmp_path / "faces"), str(tmp_path / "pack"))
    kept = open_source("array_record", str(tmp_path / "pack"))
    first = kept[0]
    assert pickle.loads(pickle.dumps(kept))[0] == first


def test_files_that_change_while_they_are_packed_are_told(faces, tmp_path, monkeypatch):
    """The pack would hold half of one, and pass for the folder as it is later."""
    write = packing._write_shards

    def written(*arguments):
        found = write(*arguments)
        with (faces / "train" / "angry" / "003.jpg").open("ab") as file:
            file.write(b"the other half")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_write_shards", written)
        with pytest.raises(
            UserError, match=r"1 files in .*train changed while they were packed, such as angry/003.jpg"
        ):
            pack(str(faces), str(tmp_path / "pack"))
    assert not list((tmp_path / "pack").iterdir())
    assert pack(str(faces), str(tmp_path / "pack")) == {"train": 40, "val": 7}


def test_an_index_of_another_pack_is_told(tmp_path):
    """A relabelled set of as many bytes, whose copy over the old one was cut: labels would be those of the old one."""
    places = {}
    for name, counts in (("old", {"a": 3, "b": 2}), ("new", {"a": 2, "b": 3})):
        write_classes(tmp_path / name / "train", counts)
        pack(str(tmp_path / name), str(tmp_path / f"{name} pack"))
        (places[name],) = (tmp_path / f"{name} pack" / "train").glob("*.array_record")
    assert places["old"].stat().st_size == places["new"].stat().st_size
    places["new"].replace(places["old"])
    source = open_source("array_record", str(tmp_path / "old pack"), labelled=True, split="train")
    with pytest.raises(
        UserError, match=r"index and 00000-of-00001\.array_record in .*old pack/train are of different packs"
    ):
        [source[index] for index in range(5)]
