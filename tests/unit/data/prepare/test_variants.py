"""The owners' data as people really have them: accepted to the same result, or refused in one line that says why."""

import json

import layout_fakes as fakes
import numpy as np
import pytest
import variant_fakes as variants
from small import status

from simfle_jax.commands import prepare as command
from simfle_jax.data.prepare import manifest


def run(source, out, *arguments):
    return status(command, [*arguments, "--source", str(source), "--out", str(out)])


@pytest.mark.parametrize("littered", [False, True])
@pytest.mark.parametrize("name", variants.VARIANTS)
def test_a_variant_is_prepared_as_the_owners_layout(tmp_path, capsys, name, littered):
    make, arguments, expected = variants.VARIANTS[name]
    source, out = make(tmp_path / "in"), tmp_path / "out"
    if littered:
        variants.litter(source)
    assert run(source, out, *arguments) == 0, capsys.readouterr().err
    assert fakes.tree(out, "train", "val") == expected
    counts = json.loads((out / manifest.NAME).read_text())["counts"]
    assert sum(sum(counts[split].values()) for split in ("train", "val")) == len(expected)


def test_votes_of_the_list_and_of_the_folders_have_their_own_published_counts(tmp_path):
    for with_labels, layout, train in [(True, "folders", 25045), (False, "folders with fer2013new.csv", 25060)]:
        out = tmp_path / f"out {layout}"
        assert run(variants.ferplus_repository(tmp_path / layout, with_labels), out, "ferplus") == 0
        result = json.loads((out / manifest.NAME).read_text())
        assert (result["rules"]["layout"], result["published"]["train"]) == (layout, train)


def both_releases(root):
    fakes.affectnet_newer(root)
    fakes.affectnet_older(root)


def two_copies(root):
    fakes.rafdb(root / "RAF-DB")
    fakes.rafdb(root / "RAF-DB (1)")


def packed(root):
    fakes.rafdb(root)
    (root / "Image/aligned").rename(root / "elsewhere")
    (root / "Image/aligned.zip").write_bytes(b"PK")


def without_val(root):
    fakes.rafdb(root)
    for path in (root / "Image/aligned").glob("test_*"):
        path.unlink()


def foreign_class(root):
    fakes.sfew(root, aligned=True)
    fakes.put(root / "Val/Val_Aligned_Faces/Contempt/1.png", 1)


def npy(value):
    def make(root):
        fakes.affectnet_newer(root)
        for path in root.rglob("*_exp.npy"):
            np.save(path, value)

    return make


def listed(make, names, change):
    return lambda root: variants.rewritten(make, names, change)(root)


REFUSED = {
    "both releases": (both_releases, ["affectnet"], "holds both releases"),
    "two copies": (two_copies, ["rafdb"], "in several folders ("),
    "an archive still packed": (packed, ["rafdb"], "Image/aligned.zip, which lies there"),
    "a part without images": (without_val, ["rafdb"], "no usable image for val"),
    "rafdb from 0": (
        listed(fakes.rafdb, "list*", lambda t: t.replace("jpg 1", "jpg 0")), ["rafdb"], "line 2 has the label 0;"
    ),
    "rafdb compound": (
        lambda root: fakes.text(root / "compound/EmoLabel/list_patition_label.txt", "train_0001.jpg 8")
        or fakes.put(root / "compound/Image/aligned/train_0001_aligned.jpg", 1),
        ["rafdb"],
        "did not find it",
    ),
    "rafdb of three columns": (
        listed(fakes.rafdb, "list*", lambda t: t.replace(".jpg ", ".jpg 0 ")),
        ["rafdb"],
        "line 1: expected the columns image, label, found 'train_00001.jpg 0 5'",
    ),
    "affectnet newer, label 11": (npy(11), ["affectnet"], "0_exp.npy has the expression 11"),
    "affectnet newer, halves": (npy(2.5), ["affectnet"], "annotation not a whole number, first 0.jpg"),
    "affectnet older, label 11": (
        listed(fakes.affectnet_older, "training.csv", lambda t: t.replace(",6,0.1", ",11,0.1")),
        ["affectnet"],
        "training.csv line 3 has the expression 11",
    ),
    "affectnet older, no label": (
        listed(fakes.affectnet_older, "training.csv", lambda t: t.replace("expression", "emotion")),
        ["affectnet"],
        "training.csv line 1: expected the columns",
    ),
    "affectnet older, no box": (
        listed(fakes.affectnet_older, "validation.csv", lambda t: t.replace(",0,0,64,64,", ",NULL,NULL,NULL,NULL,")),
        ["affectnet"],
        "validation.csv line 1: expected a number as 'face_x', found 'NULL'",
    ),
    "affectnet older, no row": (
        listed(fakes.affectnet_older, "validation.csv", lambda t: "\n"), ["affectnet"], "validation.csv is empty"
    ),
    "ferplus, shares instead of votes": (
        listed(fakes.ferplus_csv, "fer2013new.csv", lambda t: t.replace(",10", ",1.5").replace(",1,", ",.1,").replace(
            "5", ".5").replace("4", ".4").replace("8", ".8").replace("7", ".7")),
        ["ferplus"],
        "expected a whole number as",
    ),
    "ferplus, eleven votes": (
        listed(fakes.ferplus_folders, "label.csv", lambda t: t.replace(",6,", ",11,")), ["ferplus"], "label.csv line 1 has the votes"
    ),
    "ferplus, another usage": (
        listed(fakes.ferplus_csv, "*.csv", lambda t: t.replace("PublicTest", "Public")), ["ferplus"], "line 7 has the Usage 'Public'"
    ),
    "sfew, a class more": (foreign_class, ["sfew"], "Contempt is none of the owners' classes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_clear_is_refused_in_one_line(tmp_path, capsys, name):
    make, arguments, message = REFUSED[name]
    make(tmp_path / "in")
    assert run(tmp_path / "in", tmp_path / "out", *arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if line.startswith("error: ") and message in line] == errors[-1:], errors
    assert not (tmp_path / "out").exists()


def thumbnails(folder):
    """What a file server and Windows keep beside the images of every folder: more images, and files."""
    for place in sorted({path.parent for path in folder.rglob("*.png")}):
        for service in ("@eaDir/1.png", "#recycle", "$RECYCLE.BIN", "lost+found", ".ipynb_checkpoints"):
            fakes.put(place / service / "SYNOPHOTO_THUMB_M.jpg", 1, (24, 24))
        fakes.put(place.parent / "@eaDir/all/SYNOPHOTO_THUMB_M.jpg", 1, (24, 24))
        (place / "Thumbs.db").write_bytes(b"x")


@pytest.mark.parametrize("dataset", ["folder", "sfew"])
def test_service_folders_are_no_data_in_source_and_target(tmp_path, capsys, dataset):
    source, out = fakes.sfew(tmp_path / "in", aligned=False), tmp_path / "out"
    thumbnails(source)
    for _ in range(2):  # a file server looks through the target, too; the second run must not take that for a stranger
        assert run(source, out, dataset) == 0, capsys.readouterr().err
        assert {n for n in fakes.tree(out, "train", "val") if "@" not in n and "MB_M" not in n and "db" not in n} == (
            fakes.SFEW
        )
        counts = json.loads((out / manifest.NAME).read_text())["counts"]
        assert sum(counts["train"].values()) == 9 and sum(counts["val"].values()) == 7 and counts["unlabelled"] == 9
        thumbnails(out)


def test_a_shadow_of_macos_beside_the_data_is_not_taken_for_them(tmp_path):
    fakes.sfew(tmp_path / "in/SFEW_2.0", aligned=False)
    for path in sorted((tmp_path / "in/SFEW_2.0").rglob("*.png")):
        shadow = tmp_path / "in/__MACOSX" / path.relative_to(tmp_path / "in/SFEW_2.0")
        shadow.parent.mkdir(parents=True, exist_ok=True)
        shadow.with_name(f"._{shadow.name}").write_bytes(b"\0\5\26\7")
    assert run(tmp_path / "in", tmp_path / "out", "sfew") == 0
    assert fakes.tree(tmp_path / "out", "train", "val") == fakes.SFEW
