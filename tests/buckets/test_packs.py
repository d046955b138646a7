"""Packs in buckets: read once to this machine, checked, bounded."""

import collections
import json
import shutil

import numpy as np
import pytest
import small
from bucket_server import Stored

from simfle_jax.data import packs
from simfle_jax.data.image_list import ImageList
from simfle_jax.data.mixing import open_mixed
from simfle_jax.data.opening import open_source
from simfle_jax.data.packing import pack
from simfle_jax.data.photographs.crop import crop_of
from simfle_jax.errors import UserError

both = pytest.mark.parametrize("kind", ["s3", "gs"])


@pytest.fixture
def faces(tmp_path):
    for split in ("train", "val"):
        for number, name in enumerate(("angry", "happy")):
            small.write_images(tmp_path / "faces" / split / name, 6, seed=number)
    return tmp_path / "faces"


@both
def test_a_pack_in_a_bucket_is_the_same_source(kind, server, faces, monkeypatch):
    monkeypatch.setattr("simfle_jax.storage.PIECE", 700)
    where = f"{kind}://bucket/faces/"
    (faces / "manifest.json").write_text('{"rules": {"align": "eyes-1"}}')
    assert pack(str(faces), where, shard_bytes=2000) == {"train": 12, "val": 12}
    for labelled, split in ((True, "train"), (True, "val"), (False, None)):
        there, here = (open_source("folder", place, labelled, split) for place in (where, str(faces)))
        assert there.fingerprint == here.fingerprint and there.classes == here.classes and len(there) == len(here)
        assert [there[i] for i in range(len(there))] == [here[i] for i in range(len(here))]
        np.testing.assert_array_equal(there.labels, here.labels)
    assert crop_of(where) == crop_of(f"{where}train") == "eyes-1"
    mixed = open_mixed((f"array_record@{where}=1", f"folder@{faces}=1"))
    assert len(mixed) == 48
    assert ImageList([where])[13].data == open_source("folder", where)[13].data


def test_it_is_read_once(server, faces):
    pack(str(faces), "s3://bucket/faces", shard_bytes=2000)
    size, server.sent = server.received, 0
    open_source("array_record", "s3://bucket/faces", True, "train")
    assert size <= server.sent <= 1.1 * size
    server.calls, server.sent = collections.Counter(), 0
    open_source("array_record", "s3://bucket/faces", True, "val")
    assert server.sent < 0.2 * size and server.calls["GET"] <= 3, server.calls


def test_packing_goes_on_and_replaces_nothing_else(server, faces, tmp_path):
    where = "s3://bucket/faces"
    pack(str(faces), where)
    before, held = server.calls["PUT"], server.buckets["bucket"]
    pack(str(faces), where)
    assert server.calls["PUT"] == before
    del held["faces/train/index.json"], held["faces/val/index.json"]  # it was stopped before its end
    pack(str(faces), where)
    small.write_images(faces / "train" / "happy", 9)
    with pytest.raises(UserError, match="is not the pack of"):
        pack(str(faces), where)
    held["other/notes.txt"] = held["faces/train/index.json"]
    with pytest.raises(UserError, match=r"holds something else than a pack, such as notes.txt"):
        pack(str(faces), "s3://bucket/other")


def test_what_is_no_pack_is_told(server, tmp_path):
    for source, said in (("folder", "no pack and no image in"), ("array_record", "no pack in")):
        with pytest.raises(UserError, match=rf"^{said} s3://bucket/none: .*--pack FOLDER --out s3://bucket/none"):
            open_source(source, "s3://bucket/none")
    index = json.dumps({"shards": [{"name": "../../escaped", "bytes": 1}]}).encode()
    server.buckets["bucket"] |= {"bad/index.json": Stored(index, 1), "bad/../../escaped": Stored(b"x", 2)}
    with pytest.raises(UserError, match=r"s3://bucket/bad/index.json is damaged"):
        open_source("array_record", "s3://bucket/bad")
    assert not list(tmp_path.rglob("*escaped*")), "an index wrote where it liked"
    with pytest.raises(UserError, match=r"data.path s3://bucket/a: it must be on a disk"):
        open_source("tfds:x", "s3://bucket/a")


def test_a_damaged_or_changing_shard_is_not_used(server, faces, tmp_path, monkeypatch):
    pack(str(faces / "train"), "s3://bucket/faces")
    held = server.buckets["bucket"]
    (name,) = (name for name in held if name.endswith("array_record"))
    whole = held[name]
    held[name] = whole._replace(data=whole.data[:-9] + b"x" + whole.data[-8:])
    for _ in range(2):
        with pytest.raises(UserError, match=r"00000-of-00001.array_record is not what its index tells"):
            open_source("folder", "s3://bucket/faces")
    held[name] = whole
    assert len(open_source("folder", "s3://bucket/faces")) == 12


def test_a_pack_that_is_replaced_is_another_one(server, faces):
    where, held = "gs://bucket/faces", server.buckets["bucket"]
    pack(str(faces / "train"), where)
    old = open_source("folder", where)
    held.clear()
    small.write_images(faces / "train" / "happy", 9)
    pack(str(faces / "train"), where)
    new = open_source("folder", where)
    assert (len(old), len(new)) == (12, 15) and old.fingerprint != new.fingerprint
    assert old[11].data  # a run that reads it goes on with it


def test_packs_that_nobody_reads_make_room(server, faces, tmp_path, monkeypatch):
    free = {"now": 2**40}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(packs.shutil, "disk_usage", lambda _: usage._replace(free=free["now"]))
    pack(str(faces / "train"), "s3://bucket/one")
    pack(str(faces / "val"), "s3://bucket/two")
    with packs.contextlib.ExitStack() as reading:
        monkeypatch.setattr(packs, "_held", reading)
        open_source("folder", "s3://bucket/one")
        free["now"] = 0
        with pytest.raises(UserError, match=r"s3://bucket/two needs 0.0 GiB .*SIMFLE_CACHE_DIR=DIR"):
            open_source("folder", "s3://bucket/two")
        assert len(copies(tmp_path)) == 1, "a pack that is read was removed"
    monkeypatch.setattr(packs, "_held", packs.contextlib.ExitStack())
    (one,) = copies(tmp_path)
    with pytest.raises(UserError, match="needs"):
        open_source("folder", "s3://bucket/two")
    assert one not in copies(tmp_path)


def copies(folder):
    return [path for path in (folder / "host" / "buckets" / "packs").iterdir() if path.is_dir()]
