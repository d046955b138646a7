"""Images that lie loose in a bucket: the same source as the folder they came from."""

import collections
import json
from pathlib import Path

import numpy as np
import pytest
import small

from configs import probe as probe_settings
from simfle_jax.data import bucket_images
from simfle_jax.data.image_list import ImageList
from simfle_jax.data.opening import open_source
from simfle_jax.data.photographs.crop import NOT_ALIGNED, crop_of
from simfle_jax.errors import UserError
from simfle_jax.evaluation.landmarks.probe import open_points
from simfle_jax.evaluation.sets import open_sets
from simfle_jax.evaluation.settings import probing

both = pytest.mark.parametrize("kind", ["s3", "gs"])


@pytest.fixture
def faces(tmp_path, server):
    """train/ and val/ with two classes each, on the disk and in the bucket, beside what is no image."""
    for split in ("train", "val"):
        for number, name in enumerate(("angry", "hap py")):
            small.write_images(tmp_path / "faces" / split / name, 5, seed=number)
    (tmp_path / "faces/train/angry/empty.jpg").write_bytes(b"")
    (tmp_path / "faces/train/.hidden").mkdir()
    for name in ("notes.txt", "train/.hidden/a.jpg", "train/angry/.b.jpg"):
        (tmp_path / "faces" / name).write_bytes(b"1")
    server.put_folder("faces", tmp_path / "faces")
    server.put("faces/", b"")  # as consoles leave them
    server.put("faces/train/", b"")
    return tmp_path / "faces"


@both
def test_it_is_the_folder(kind, server, faces):
    where = f"{kind}://bucket/faces"
    for labelled, split in ((True, "train"), (True, "val"), (False, None)):
        there, here = (open_source("folder", place, labelled, split) for place in (where, str(faces)))
        assert there.fingerprint == here.fingerprint and there.classes == here.classes and len(there) == len(here)
        assert [there[i] for i in range(len(there))] == [here[i] for i in range(len(here))]
        np.testing.assert_array_equal(there.labels, here.labels)
    assert ImageList([where]).names == [f"{where}/{there.name(i)}" for i in range(len(there))]
    assert ImageList([where])[7].data == here[7].data
    with pytest.raises(UserError, match=f"^{where}/train/angry must hold at least two class folders"):
        open_source("folder", f"{where}/train/angry", labelled=True)


def test_the_crop_is_that_of_the_prepared_folder(server, faces):
    assert crop_of("gs://bucket/faces", "s3://bucket") == NOT_ALIGNED
    server.put("faces/manifest.json", json.dumps({"rules": {"align": "eyes-1"}}).encode())
    assert crop_of("gs://bucket/faces") == crop_of("s3://bucket/faces/train/") == "eyes-1"


def test_it_is_read_once_and_another_one_when_it_changed(server, faces, monkeypatch):
    monkeypatch.setattr(bucket_images, "SAMPLE", 3)
    before = open_source("folder", "s3://bucket/faces")
    server.calls = collections.Counter()
    assert len(open_source("folder", "s3://bucket/faces")) == len(before)
    assert server.calls["GET"] <= 3 + 3, server.calls
    server.put("faces/val/angry/new.png", before[0].data)
    assert len(open_source("folder", "s3://bucket/faces")) == len(before) + 1
    server.put("faces/val/hap py/004.jpg", b"replaced")  # the last of the list is always among the few
    after = open_source("folder", "s3://bucket/faces")
    assert after[len(after) - 1].data == b"replaced" and before[len(before) - 1].data != b"replaced"


def test_a_copy_that_was_cut_short_goes_on(server, faces, monkeypatch):
    read = bucket_images.Bucket.read

    def fails(self, name):
        if name.endswith("val/angry/003.jpg"):
            raise UserError("away")
        return read(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(bucket_images.Bucket, "read", fails)
        with pytest.raises(UserError, match="away"):
            open_source("folder", "s3://bucket/faces")
    server.calls = collections.Counter()
    found = open_source("folder", "s3://bucket/faces")
    assert found.fingerprint == open_source("folder", str(faces)).fingerprint
    assert server.calls["GET"] < 2 * len(found), "all was copied once more"


def test_a_name_that_is_no_files_is_refused_or_left_out(server, faces, tmp_path):
    server.put("faces/../../../escaped.jpg", b"1")
    assert len(open_source("folder", "gs://bucket/faces")) == 21
    assert not list(Path(tmp_path).rglob("escaped*"))
    server.put("faces/train//a.jpg", b"1")
    with pytest.raises(UserError, match=r"an object is called 'train//a.jpg', which is no name of a file"):
        open_source("folder", "gs://bucket/faces")


def test_lists_votes_and_landmarks_of_a_probe_lie_there_too(server, faces, tmp_path):
    points = np.stack([np.arange(68.0), -np.arange(68.0)], -1)[None]
    np.savez(faces / "landmarks.npz", name=["train/angry/000.jpg"], points=points)
    files = {"train.txt": "train/angry/001.jpg\nhap py/002.jpg\n", "votes.csv": "name,angry,hap py\n" + "".join(
        f"{name}/{number:03d}.jpg,{number},1\n" for name in ("angry", "hap py") for number in range(5))}  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        server.put(name, text.encode())
    server.put("faces/landmarks.npz", (faces / "landmarks.npz").read_bytes())

    def probe(top: str, **changes):
        settings = probe_settings.get_config()
        settings.update_from_flattened_dict({"encoder": "s3://bucket/run", "data.path": f"{top}/faces", **changes})
        return probing(settings)

    found = []
    for top in ("gs://bucket", str(tmp_path)):
        sets = open_sets(probe(top, **{"data.train_list": f"{top}/train.txt", "data.votes": f"{top}/votes.csv"}))
        names = [sets.train.name(number) for number in range(len(sets.train))]
        points = open_points(probe(top), {})
        found.append((names, sets.votes.tolist(), sets.fingerprints, points.fingerprint))
        assert points.table.where == f"{top}/faces/landmarks.npz"
    assert found[0] == found[1] and found[0][0] == ["angry/001.jpg", "hap py/002.jpg"]
    with pytest.raises(UserError, match=r"^nothing lies at gs://bucket/none.txt"):
        open_sets(probe("gs://bucket", **{"data.train_list": "gs://bucket/none.txt"}))
    with pytest.raises(
        UserError, match=r"no landmarks at gs://bucket/points: give .*FILE.npz, .csv or, on a disk, a folder"
    ):
        probe("gs://bucket", **{"landmarks.file": "gs://bucket/points"})
