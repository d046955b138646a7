"""A kept listing is the folder's; what changes in the folder is noticed, and nothing but a listing is overwritten."""

import logging
import os

import numpy as np
import pytest
import small

from simfle_jax.data import kept_listing, listing
from simfle_jax.data.opening import open_source
from simfle_jax.errors import UserError


@pytest.fixture
def faces(tmp_path):
    small.write_images(tmp_path / "faces" / "one" / "deep", 4)
    small.write_images(tmp_path / "elsewhere", 3)
    (tmp_path / "faces" / "two").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "faces" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    return tmp_path / "faces"


def opened(faces, tmp_path):
    return open_source("folder", str(faces), listing=str(tmp_path / "kept" / "listing.npz"))


def facts(source):
    return [source.name(i) for i in range(len(source))], source.fingerprint, source.quick_fingerprint, source.nowhere


def test_the_second_start_walks_nothing_and_lists_the_same(faces, tmp_path, monkeypatch):
    plain = open_source("folder", str(faces))
    assert plain.fingerprint
    first = opened(faces, tmp_path)
    monkeypatch.setattr(listing, "_walk", lambda *_: pytest.fail("it walked the folder"))
    monkeypatch.setattr("simfle_jax.data.sources.file_sizes", lambda *_: pytest.fail("it asked for every size"))
    second = opened(faces, tmp_path)
    assert facts(first) == facts(second)
    assert facts(second)[:2] == facts(plain)[:2] and second.nowhere == plain.nowhere == {b"gone.jpg"}
    assert second[1].data == plain[1].data
    moved = faces.rename(tmp_path / "moved")  # as another host calls it
    assert facts(opened(moved, tmp_path)) == facts(first)


@pytest.mark.parametrize("change", ["add", "remove", "rename", "behind a link", "size", "folder"])
def test_a_change_is_noticed(change, faces, tmp_path, caplog):
    opened(faces, tmp_path)
    image = faces / "one" / "deep" / "001.jpg"
    match change:
        case "add":
            small.write_images(faces / "one" / "new", 1)
        case "remove":
            image.unlink()
        case "rename":
            image.rename(image.with_name("x.jpg"))
        case "behind a link":
            small.write_images(tmp_path / "elsewhere", 5)
        case "size":
            before = os.stat(image.parent)
            image.write_bytes(b"x")
            os.utime(image.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "folder":
            (faces / "two").unlink()
    with caplog.at_level(logging.WARNING):
        again = opened(faces, tmp_path)
    assert "is not the listing of" in caplog.text and "listing anew" in caplog.text
    assert facts(again)[:2] == facts(open_source("folder", str(faces)))[:2]
    caplog.clear()
    opened(faces, tmp_path)
    assert not caplog.text


def test_a_file_that_comes_while_the_others_are_read_is_found_by_the_next_start(faces, tmp_path, monkeypatch):
    read = listing.entries

    def entries(folder):
        found = read(folder)
        if folder.endswith(b"deep"):
            small.write_images(faces / "one" / "deep", 6)  # two more
        return found

    with monkeypatch.context() as patch:
        patch.setattr(listing, "entries", entries)
        assert len(opened(faces, tmp_path)) == 8
    assert len(opened(faces, tmp_path)) == len(open_source("folder", str(faces))) == 10


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_another_file_is_told_in_one_line(content, faces, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "listing.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"listing\.npz is no listing: .*; give another --config\.data\.listing=FILE"):
        opened(faces, tmp_path)
    np.save(tmp_path / "one.npy", np.arange(3))
    (tmp_path / "one.npy").rename(tmp_path / "kept" / "listing.npz")
    with pytest.raises(UserError, match="is no listing"):
        opened(faces, tmp_path)


def test_what_is_no_listing_stays_and_a_place_in_the_folder_is_refused(faces, tmp_path, monkeypatch, caplog):
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    with pytest.raises(UserError, match=r"notes.txt is no listing: .*--config.data.listing=FILE"):
        open_source("folder", str(faces), listing=str(other))
    assert other.read_text() == "mine"
    with pytest.raises(UserError, match=r"lies in .*faces, which it would change"):
        open_source("folder", str(faces), listing=str(faces / "one" / "listing"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_listing.np, "savez", full)
    assert len(opened(faces, tmp_path)) == 8
    assert "could not be written (No space left on device)" in caplog.text and not list((tmp_path / "kept").iterdir())


def test_a_folder_behind_a_link_that_is_mounted_later_is_noticed(faces, tmp_path, caplog):
    (faces / "three").symlink_to(tmp_path / "not mounted")
    (faces / "itself").symlink_to(faces / "itself")
    first = opened(faces, tmp_path)
    assert "2 links below" in caplog.text and "folders behind them are left out" in caplog.text
    assert len(opened(faces, tmp_path)) == len(first)
    small.write_images(tmp_path / "not mounted", 5)
    assert len(opened(faces, tmp_path)) == len(first) + 5
