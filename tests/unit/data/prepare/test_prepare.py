"""What every preparation promises: nothing lost, nothing done twice, nothing of the user's touched."""

import errno
import json
import os

import layout_fakes as fakes
import pytest
from PIL import Image
from small import status

from simfle_jax.commands import prepare as command
from simfle_jax.data.array_record import ArrayRecordSource
from simfle_jax.data.prepare import affectnet, encode, folder, manifest, rafdb, writer
from simfle_jax.data.prepare.plan import Item
from simfle_jax.data.prepare.run import prepare
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError


def state(folder):
    """Path, size and time of change of every file: equal when nothing was written."""
    return {p: (p.stat().st_size, p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_a_second_run_writes_no_image_and_the_source_stays(tmp_path):
    source, out = fakes.rafdb(tmp_path / "in"), tmp_path / "out"
    before = state(source)
    first = prepare(rafdb.plan, source, out, "copy")
    written = state(out)
    assert prepare(rafdb.plan, source, out, "copy") == first
    after = state(out)
    after.pop(out / manifest.NAME), written.pop(out / manifest.NAME)
    assert after == written
    assert state(source) == before
    assert not (out / "train/sadness/train_00001_aligned.jpg").samefile(
        source / "Image/aligned/train_00001_aligned.jpg"
    )


def test_what_is_not_the_sources_any_more_is_written_anew(tmp_path):
    """Another release under the same names, a file that was mended, a copy where there was a link."""
    one, other = fakes.rafdb(tmp_path / "one"), fakes.rafdb(tmp_path / "other")
    for path in (other / "Image" / "aligned").iterdir():
        path.write_bytes(path.read_bytes() + b"other")
    out, name, view = tmp_path / "out", "train/sadness/train_00001_aligned.jpg", "unlabelled/train_00001_aligned.jpg"
    place = "Image/aligned/train_00001_aligned.jpg"
    prepare(rafdb.plan, one, out)
    prepare(rafdb.plan, other, out)
    for each in (out / name, out / view):
        assert each.samefile(other / place), "of the first release"
    assert prepare(rafdb.plan, other, out, "copy")["link"] == "copy"
    for each in (out / name, out / view):
        assert not each.samefile(other / place) and each.read_bytes() == (other / place).read_bytes()
    (other / place).write_bytes(b"mended")
    prepare(rafdb.plan, other, out, "copy")
    assert (out / name).read_bytes() == (out / view).read_bytes() == b"mended"


def test_images_that_are_decoded_are_written_anew_from_another_folder_or_a_newer_file(tmp_path):
    def source(name: str, seed: int):
        for number in range(2):
            fakes.put(tmp_path / name / "train" / "anger" / f"{number}.jpg", seed + number, (40, 40))
            place = tmp_path / name / "train" / "anger" / f"{number}.jpg"
            with Image.open(place) as image:
                image.save(place.with_suffix(".bmp"))
            place.unlink()
            os.utime(place.with_suffix(".bmp"), (1, 1))
        return tmp_path / name

    one, other, out = source("one", 0), source("other", 7), tmp_path / "out"
    prepare(folder.plan, one, out)
    first = state(out)
    prepare(folder.plan, one, out)
    assert {p: v for p, v in state(out).items() if p.name != manifest.NAME} == {
        p: v for p, v in first.items() if p.name != manifest.NAME
    }
    prepare(folder.plan, other, out)
    written = {p.name: p.read_bytes() for p in (out / "train/anger").iterdir()}
    assert len(written) == 2 and all(first[out / "train/anger" / name][2] != data for name, data in written.items())
    with pytest.MonkeyPatch.context() as patch:  # stopped before its end, and gone back to the first
        patch.setattr(manifest, "finish", lambda *_: pytest.fail("stopped"))
        with pytest.raises(BaseException, match="stopped"):
            prepare(folder.plan, one, out)
    prepare(folder.plan, other, out)
    assert {p.name: p.read_bytes() for p in (out / "train/anger").iterdir()} == written


def test_a_place_that_cannot_be_written_is_not_blamed_on_the_images(tmp_path, monkeypatch):
    source, out = fakes.rafdb(tmp_path / "in"), tmp_path / "out"

    def refuse(path, target):
        if str(target).endswith(".jpg"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path), None, str(target))
        os.rename(path, target)

    monkeypatch.setattr(writer.os, "replace", refuse)
    with pytest.raises(
        UserError, match=r"out/.*jpg cannot be written: Permission denied; mend that, and the same command"
    ):
        prepare(rafdb.plan, source, out, "copy")
    monkeypatch.undo()
    assert prepare(rafdb.plan, source, out, "copy")["skipped"] == prepare(rafdb.plan, source, tmp_path / "w")["skipped"]


@pytest.mark.parametrize("below", ["", "images", "archive/images"])
def test_splits_are_found_where_archives_have_them(tmp_path, below):
    top = tmp_path / "in"
    for split in ("train", "validation"):
        for label in ("angry", "fear"):
            fakes.put(top / below / split / label / f"{split}.jpg", 0, (40, 40))
    made = folder.plan(top)
    assert {(item.split, item.label) for item in made.items} == {
        (split, label) for split in ("train", "val") for label in ("anger", "fear")
    }
    assert made.rules.get("root", "") == below


def test_several_folders_of_train_are_refused(tmp_path):
    """Which is meant only the user knows; taken as classes, val would be among what is trained on."""
    for place in ("first", "second"):
        for split in ("train", "val"):
            fakes.put(tmp_path / place / split / "angry" / "a.jpg", 0, (40, 40))
    with pytest.raises(UserError, match=r"a folder of train is in several folders .*give the one you mean"):
        folder.plan(tmp_path)


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    name = "\u00e4" * 124 + "x.jpg"  # 253 bytes
    fakes.put(tmp_path / "in" / "train" / "anger" / name, 0, (40, 40))
    prepare(folder.plan, tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "train" / "anger" / name).samefile(tmp_path / "in" / "train" / "anger" / name)


def test_linked_folders_are_followed_once_as_in_training(tmp_path):
    for name in ("a", "b"):
        fakes.put(tmp_path / "elsewhere" / f"{name}.jpg", 0, (40, 40))
    fakes.put(tmp_path / "in" / "train" / "anger" / "own.jpg", 0, (40, 40))
    (tmp_path / "in/train/anger/session2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/train/anger/self").symlink_to(tmp_path / "in/train/anger")
    found = sorted(item.name for item in folder.plan(tmp_path / "in").items)
    assert found == ["own.jpg", "session2_a.jpg", "session2_b.jpg"]
    assert len(found) == len(FolderSource(tmp_path / "in", split="train"))


def test_an_interrupted_run_is_completed(tmp_path):
    source, out, whole = fakes.rafdb(tmp_path / "in"), tmp_path / "out", tmp_path / "whole"
    expected = prepare(rafdb.plan, source, whole)
    prepare(rafdb.plan, source, out)
    lost = out / "train/surprise/train_00002_aligned.jpg"
    lost.unlink()
    (out / "unlabelled/train_00002_aligned.jpg").unlink()
    lost.with_name(f".{lost.name}.part").write_bytes(b"half")
    manifest._save(out / manifest.NAME, {"dataset": "rafdb", "rules": expected["rules"], "complete": False})
    assert prepare(rafdb.plan, source, out) == expected
    assert fakes.tree(out, "train", "val", "unlabelled") - {
        "train/surprise/.train_00002_aligned.jpg.part"
    } == fakes.tree(whole, "train", "val", "unlabelled")


def test_other_rules_another_tree_or_overlap_are_refused(tmp_path):
    source, out = fakes.rafdb(tmp_path / "in"), tmp_path / "out"
    prepare(rafdb.plan, source, out)
    with pytest.raises(UserError, match="alignment aligned -> original"):
        prepare(lambda path: rafdb.plan(path, "original"), source, out)
    fakes.put(out / "train/anger/mine.png", 1)
    with pytest.raises(UserError, match=r"train/anger/mine\.png"):
        prepare(rafdb.plan, source, out)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("x")
    with pytest.raises(UserError, match="something else"):
        prepare(rafdb.plan, source, tmp_path / "home")
    for overlapping in (source, source / "out", tmp_path):
        with pytest.raises(UserError, match="overlap"):
            prepare(rafdb.plan, source, overlapping)


def test_a_link_that_the_system_refuses_is_explained(tmp_path, monkeypatch):
    source = fakes.rafdb(tmp_path / "in")

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UserError, match="--link copy"):
        prepare(rafdb.plan, source, tmp_path / "hard")
    prepare(rafdb.plan, source, tmp_path / "copy", "copy")
    assert fakes.tree(tmp_path / "copy", "train", "val") == fakes.RAFDB


def test_a_full_disk_is_explained_and_leaves_no_half_file(tmp_path, monkeypatch):
    source, out = fakes.rafdb(tmp_path / "in"), tmp_path / "out"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="disk is full"):
        prepare(rafdb.plan, source, out, "copy")
    assert fakes.tree(out, "train", "val", "unlabelled") == set()
    assert json.loads((out / manifest.NAME).read_text())["complete"] is False


def test_names_of_another_encoding(tmp_path, capsys):
    for seed, name in enumerate([b"caf\xe9.png", b"\xff.jpg"]):
        fakes.put(tmp_path / f"in/train/ab/{seed}.png", seed)
        os.rename(tmp_path / f"in/train/ab/{seed}.png", os.fsencode(tmp_path / "in/train/ab") + b"/" + name)
    fakes.put(tmp_path / "in/train/cd/1.png", 3)
    os.link(tmp_path / "in/train/cd/1.png", os.fsencode(tmp_path / "in/train/ab") + b"/\xfe.png")
    (tmp_path / "in/train/ab" / os.fsdecode(b"\xfd.txt")).write_text("x")
    out = tmp_path / "out"
    assert status(command, ["folder", "--source", str(tmp_path / "in"), "--out", str(out)]) == 0
    assert status(command, ["--check", str(out), "--json", str(tmp_path / "check.json")]) == 0
    assert "\\xfd.txt" in capsys.readouterr().out
    duplicates = json.loads((tmp_path / "check.json").read_text())["exact_duplicates"]
    assert duplicates == [["train/ab/" + os.fsdecode(b"\xfe.png"), "train/cd/1.png"]]


def test_manifest_hash_is_the_fingerprint_of_the_source(tmp_path):
    out = tmp_path / "out"
    result = prepare(rafdb.plan, fakes.rafdb(tmp_path / "in"), out)
    for split in ("train", "val", "unlabelled"):
        assert result["listing_sha256"][split] == FolderSource(out, split=split).fingerprint
    assert json.loads((out / manifest.NAME).read_text()) == result


def test_counts_are_held_against_the_published_ones():
    published = {"anger": 2, "fear": 1}
    assert manifest.agrees({"anger": 2, "fear": 1}, published)
    assert not manifest.agrees({"anger": 2}, published)
    assert manifest.agrees({"anger": 2, "fear": 1}, 3)
    found = {"train": {"anger": 2, "joy": 4}, "val": {"anger": 7}}
    assert manifest.differences(found, {"train": published, "val": 7}) == {"train": {"fear": [0, 1], "joy": [4, 0]}}


def test_published_totals():
    assert sum(rafdb.PUBLISHED["train"].values()) == 12271
    assert sum(rafdb.PUBLISHED["val"].values()) == 3068
    assert sum(affectnet.TRAIN_COUNTS) == 287651
    assert sum(affectnet.VAL_COUNTS["newer"]) == 3999
    assert rafdb.PUBLISHED["train"]["fear"] == 281 and rafdb.PUBLISHED["val"]["neutral"] == 680
    train = dict(zip(affectnet.CLASSES, affectnet.TRAIN_COUNTS))
    assert (train["neutral"], train["happiness"], train["disgust"], train["contempt"]) == (74874, 134415, 3803, 3750)


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((10, 10, 20, 20), (100, 100), (20, 20)),
        ((-5, -5, 30, 30), (100, 100), (30, 30)),  # moved inside
        ((0, 0, 90, 90), (100, 50), (50, 50)),  # no larger than the image
    ],
)
def test_cut_is_square_and_unpadded(box, size, expected):
    image = fakes.picture(1, size)
    assert encode.cut(image, encode.with_margin(box, 0.0)).size == expected


def test_margin_widens_both_edges():
    assert encode.with_margin((10, 20, 40, 20), 0.25) == (0, 0, 60, 60)


def test_flat_names_do_not_collide():
    items = [Item("train", label, name, path="x") for label, name in [("a", "1.png"), ("b", "1.png"), (None, "2.png")]]
    assert list(writer.flat_names(items).values()) == ["a_1.png", "b_1.png", "2.png"]


def test_command(tmp_path, capsys):
    source = fakes.rafdb(tmp_path / "in")
    assert status(command, ["rafdb", "--source", str(source), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "published 1,290" in output and "skipped 3: row not readable" in output
    assert status(command, ["rafdb", "--source", str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == 2
    assert status(command, ["rafdb", "--source", str(source), "--out", "x", "--labels", "argmax"]) == 2
    assert status(command, []) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3


def test_command_packs_what_it_prepared(tmp_path, capsys):
    out, packed = tmp_path / "out", tmp_path / "packed"
    prepare(rafdb.plan, fakes.rafdb(tmp_path / "in"), out)
    assert status(command, ["--pack", str(out), "--out", str(packed)]) == 0
    assert "packed 4 images" in capsys.readouterr().out
    for split in ("train", "val"):
        folder, pack = FolderSource(out, True, split), ArrayRecordSource(packed, True, split)
        assert [pack[i] for i in range(len(pack))] == [folder[i] for i in range(len(folder))]
        assert pack.classes == folder.classes and pack.fingerprint == folder.fingerprint
    assert status(command, ["--pack", str(out)]) == 2
    assert status(command, ["--pack", str(out), "--out", str(out / "packed")]) == 2
    assert "needs --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check", "in", "--json", "nowhere/report.json"], "no folder nowhere for the report"),
        (["--check", "in", "--json", "notes.txt"], "notes.txt exists and is no report of a check"),
        (["--check", "in", "--json", "in"], "in exists and is no report of a check"),
        (["--check", "notes.txt"], "no folder notes.txt: give --check"),
        (["--check", "in", "--out", "out"], "--out is not an option of --check"),
        (["--pack", "nowhere", "--out", "out"], "no folder nowhere: give --pack"),
        (["--pack", "in", "--out", "out", "--test-split", "valid"], "--test-split is not an option of --pack"),
        (["rafdb", "--source", "in", "--out", "out", "--json", "x.json"], "--json is not an option of a data set"),
        (["rafdb", "--source", "in", "--out", "notes.txt/out"], "notes.txt/out"),
    ],
)
def test_mistakes_are_one_line_and_cost_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    fakes.rafdb(tmp_path / "in")
    (tmp_path / "notes.txt").write_text("mine")
    assert status(command, arguments) == 2
    output = capsys.readouterr()
    assert message in output.err and output.err.count("\n") == 1 and not output.out
    assert (tmp_path / "notes.txt").read_text() == "mine" and {p.name for p in tmp_path.iterdir()} == {
        "in",
        "notes.txt",
    }


LAYOUTS = {
    "rafdb": (fakes.rafdb, ["rafdb"], fakes.RAFDB),
    "affectnet, newer": (fakes.affectnet_newer, ["affectnet"], fakes.AFFECTNET_NEWER),
    "affectnet, older": (fakes.affectnet_older, ["affectnet", "--margin", "0.2"], fakes.AFFECTNET_OLDER),
    "ferplus, csv": (fakes.ferplus_csv, ["ferplus", "--labels", "majority"], fakes.FERPLUS_MAJORITY),
    "ferplus, folders": (
        fakes.ferplus_folders,
        ["ferplus", "--labels", "argmax", "--test-split", "valid"],
        fakes.FERPLUS_ARGMAX_VALID,
    ),
    "sfew": (lambda root: fakes.sfew(root, True), ["sfew", "--alignment", "aligned"], fakes.SFEW),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_command_prepares_every_layout_as_the_list_says(tmp_path, capsys, layout):
    make, arguments, expected = LAYOUTS[layout]
    source, out = make(tmp_path / "in"), tmp_path / "out"
    given = state(source)
    for _ in range(2):  # the second one finds it done
        assert status(command, [*arguments, "--source", str(source), "--out", str(out)]) == 0
        assert fakes.tree(out, "train", "val") == expected
    counts = json.loads((out / manifest.NAME).read_text())["counts"]
    assert sum(sum(counts[split].values()) for split in ("train", "val")) == len(expected)
    assert counts["unlabelled"] == len(fakes.tree(out, "unlabelled"))
    assert state(source) == given
    assert "published" in capsys.readouterr().out
