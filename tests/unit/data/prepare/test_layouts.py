"""Every layout, with its irregularities, against hand-written lists of what must come out."""

import functools

import layout_fakes as fakes
import numpy as np
import pytest
from PIL import Image

from simfle_jax.data.prepare import affectnet, ferplus, folder, rafdb, sfew
from simfle_jax.data.prepare.run import prepare
from simfle_jax.errors import UserError


def prepared(make_plan, source, out, **options):
    """(manifest, labelled files) of a preparation."""
    result = prepare(functools.partial(make_plan, **options), source, out)
    return result, fakes.tree(out, "train", "val")


def skipped(result):
    return {reason: entry["count"] for reason, entry in result["skipped"].items()}


def test_rafdb(tmp_path):
    result, files = prepared(rafdb.plan, fakes.rafdb(tmp_path / "in"), tmp_path / "out")
    assert files == fakes.RAFDB
    assert result["counts"] == {
        "train": {"fear": 1, "neutral": 1, "sadness": 1, "surprise": 1},
        "val": {"anger": 1, "disgust": 1, "happiness": 1},
        "unlabelled": 4,
    }
    assert skipped(result) == {"image file missing": 1, "row not readable": 3}
    assert result["skipped"]["image file missing"]["first"] == ["train_00003_aligned.jpg"]
    source = tmp_path / "in/Image/aligned/train_00001_aligned.jpg"
    assert source.samefile(tmp_path / "out/train/sadness/train_00001_aligned.jpg")
    assert source.samefile(tmp_path / "out/unlabelled/train_00001_aligned.jpg")


def test_rafdb_original_images_corrected_label_name_and_a_folder_around(tmp_path):
    fakes.rafdb(tmp_path / "in" / "basic", "list_partition_label.txt")
    result, files = prepared(rafdb.plan, tmp_path / "in", tmp_path / "out", alignment="original")
    assert files == {name.replace("_aligned", "") for name in fakes.RAFDB}
    assert result["rules"]["alignment"] == "original"


def test_affectnet_newer(tmp_path):
    source = fakes.affectnet_newer(tmp_path / "in")
    result, files = prepared(affectnet.plan, source, tmp_path / "out8")
    assert files == fakes.AFFECTNET_NEWER
    assert (result["dataset"], result["rules"]["release"]) == ("affectnet8", "newer")
    assert skipped(result) == {
        "annotation missing": 1,
        "annotation not readable as a number": 1,
        "image file missing": 1,
        "label: no emotion of the eight": 1,
        "label: no face": 1,
        "label: uncertain": 1,
        "not an image file": 1,
    }
    result, files = prepared(affectnet.plan, source, tmp_path / "out7", classes=7)
    assert files == {name for name in fakes.AFFECTNET_NEWER if "contempt" not in name}
    assert skipped(result)["contempt: not among the 7 classes"] == 2


@pytest.mark.parametrize("deeper", [False, True])
def test_affectnet_older(tmp_path, deeper):
    source = fakes.affectnet_older(tmp_path / "in", deeper)
    result, files = prepared(affectnet.plan, source, tmp_path / "out", margin=0.0)
    assert files == fakes.AFFECTNET_OLDER
    assert result["rules"] == {"release": "older", "classes": 8, "margin": 0.0}
    assert skipped(result) == {
        "face box without area": 1,
        "image file missing": 1,
        "image not usable: face box outside of the image": 1,
        "image not usable: not a JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM or JPEG2000 image": 1,
        "label: no face": 1,
        "listed twice": 1,
        "row not readable": 4,
    }


def test_affectnet_older_cuts_the_face(tmp_path):
    prepared(affectnet.plan, fakes.affectnet_older(tmp_path / "in"), tmp_path / "out", margin=0.0)
    cut = fakes.pixels(tmp_path / "out/train/happiness/1_a.jpg").astype(np.float32)
    whole = fakes.pixels(tmp_path / "in/Manually_Annotated_Images/1/a.jpg").astype(np.float32)
    expected = whole[5:45, 10:50]  # box 40 x 30 at (10, 10): the square around its centre (30, 25)
    assert cut.shape == expected.shape
    assert np.abs(cut - expected).mean() < 2  # one more JPEG encoding
    with Image.open(tmp_path / "out/train/contempt/2_d.jpg") as large:
        assert large.size == (256, 256)


def test_ferplus_csv(tmp_path):
    result, files = prepared(ferplus.plan, fakes.ferplus_csv(tmp_path / "in"), tmp_path / "out")
    assert files == fakes.FERPLUS_MAJORITY
    assert skipped(result) == {
        "majority for unknown or not a face": 1,
        "no image name: not a face": 1,
        "no majority": 2,
    }
    assert result["published"] == {"train": 25060, "val": 3153}
    with Image.open(tmp_path / "out/train/happiness/fer0000003.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), fakes.grey(3))
    lines = (tmp_path / "out/votes.csv").read_text().splitlines()
    assert lines[0] == "name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    votes = {name: list(map(int, rest)) for name, *rest in (line.split(",") for line in lines[1:])}
    assert sorted(votes) == sorted(name for name in files if not name.startswith("unlabelled/"))
    assert all(ferplus.emotion(row, "majority")[0] == name.split("/")[1] for name, row in votes.items())


def test_ferplus_folders_argmax_valid(tmp_path):
    source = fakes.ferplus_folders(tmp_path / "in")
    result, files = prepared(ferplus.plan, source, tmp_path / "out", labels="argmax", test_split="valid")
    assert files == fakes.FERPLUS_ARGMAX_VALID
    assert result["rules"] == {"layout": "folders", "labels": "argmax", "val": "valid"}
    assert result["published"] == {"train": 28558, "val": 3579}


@pytest.mark.parametrize("rules", [{}, {"labels": "argmax", "test_split": "valid"}])
def test_both_layouts_of_ferplus_agree(tmp_path, rules):
    _, one = prepared(ferplus.plan, fakes.ferplus_csv(tmp_path / "csv"), tmp_path / "a", **rules)
    _, other = prepared(ferplus.plan, fakes.ferplus_folders(tmp_path / "folders"), tmp_path / "b", **rules)
    assert one == other == (fakes.FERPLUS_ARGMAX_VALID if rules else fakes.FERPLUS_MAJORITY)
    for name in one:
        np.testing.assert_array_equal(fakes.pixels(tmp_path / "a" / name), fakes.pixels(tmp_path / "b" / name))


def test_ferplus_files_that_do_not_belong_together(tmp_path):
    source = fakes.ferplus_csv(tmp_path / "in")
    lines = (source / "fer2013new.csv").read_text().splitlines()
    (source / "fer2013new.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match=r"part at fer2013\.csv line 9"):
        ferplus.plan(source)


@pytest.mark.parametrize(
    ("votes", "majority", "argmax"),
    [
        ((10, 0, 0, 0, 0, 0, 0, 0, 0, 0), "neutral", "neutral"),
        ((0, 5, 0, 0, 5, 0, 0, 0, 0, 0), None, "happiness"),  # half is not more than half; first of a tie
        ((0, 5, 0, 0, 4, 1, 0, 0, 0, 0), "happiness", "happiness"),  # 5 of 9 once the single vote is dropped
        ((0, 5, 0, 0, 4, 0, 0, 0, 0, 0), "happiness", "happiness"),  # nine votes
        ((0, 0, 4, 0, 2, 0, 2, 0, 2, 0), None, "surprise"),  # unknown counts among the votes that are left
        ((0, 0, 4, 0, 2, 1, 1, 0, 1, 1), "surprise", "surprise"),  # singles of unknown and NF are dropped as well
        ((0, 0, 0, 3, 0, 0, 0, 0, 6, 1), None, "sadness"),  # majority for unknown
        ((1, 0, 0, 0, 0, 0, 0, 0, 0, 9), None, "neutral"),  # majority for not a face
        ((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), None, "neutral"),  # only single votes
        ((0, 0, 0, 0, 0, 0, 0, 0, 10, 0), None, None),
    ],
)
def test_vote_rules(votes, majority, argmax):
    assert ferplus.emotion(list(votes), "majority")[0] == majority
    assert ferplus.emotion(list(votes), "argmax")[0] == argmax


@pytest.mark.parametrize("aligned", [False, True])
def test_sfew(tmp_path, aligned):
    result, files = prepared(sfew.plan, fakes.sfew(tmp_path / "in", aligned), tmp_path / "out")
    assert files == fakes.SFEW
    assert result["rules"]["alignment"] == ("aligned" if aligned else "original")
    assert skipped(result) == {"not an image file": 1}
    flat = fakes.tree(tmp_path / "out", "unlabelled")
    assert flat >= {"unlabelled/happiness_same.png", "unlabelled/sadness_same.png", "unlabelled/Train_0.png"}
    assert len(flat) == 9


def test_sfew_takes_the_aligned_faces_where_both_are_there(tmp_path):
    source = fakes.sfew(tmp_path / "in", aligned=True)
    fakes.sfew(source, aligned=False)
    fakes.put(source / "Train/Angry/frame.png", 400)
    result, files = prepared(sfew.plan, source, tmp_path / "aligned")
    assert files == fakes.SFEW and result["published"] == {"train": 891, "val": 431}
    result, files = prepared(sfew.plan, source, tmp_path / "original", alignment="original")
    assert files == fakes.SFEW | {"train/anger/frame.png"} and result["published"] == {"train": 958, "val": 436}


def test_folder_maps_names_and_re_encodes_what_sources_do_not_list(tmp_path):
    fakes.put(tmp_path / "in/Train/Angry/a.bmp", 1)
    fakes.put(tmp_path / "in/Train/calm/person/a.png", 2)
    fakes.put(tmp_path / "in/test/happy/b.jpeg", 3)
    fakes.put(tmp_path / "in/test/loose.png", 4)
    fakes.put(tmp_path / "in/testing/happy/c.jpeg", 5)
    fakes.put(tmp_path / "in/loose.png", 6)
    result, files = prepared(folder.plan, tmp_path / "in", tmp_path / "out")
    assert files == {"train/anger/a.png", "train/calm/person_a.png", "val/happiness/b.jpeg"}
    assert skipped(result) == {"no class folder": 1, "folder beside train and val": 1, "image beside train and val": 1}
    with Image.open(tmp_path / "out/train/anger/a.png") as image:
        assert image.format == "PNG"
    written, original = (
        fakes.pixels(tmp_path / "out/train/anger/a.png"),
        fakes.pixels(tmp_path / "in/Train/Angry/a.bmp"),
    )
    np.testing.assert_array_equal(written, original)


def test_folder_without_classes_is_for_pretraining(tmp_path):
    for seed in range(3):
        fakes.put(tmp_path / f"in/{seed}.png", seed)
    result, files = prepared(folder.plan, tmp_path / "in", tmp_path / "out")
    assert files == set()
    assert fakes.tree(tmp_path / "out", "unlabelled") == {f"unlabelled/{seed}.png" for seed in range(3)}
    assert result["counts"] == {"train": {}, "val": {}, "unlabelled": 3}


@pytest.mark.parametrize(
    ("make_plan", "message"),
    [
        (affectnet.plan, "train_set/annotations.*older release"),
        (rafdb.plan, "list_patition_label.txt.*expected: EmoLabel"),
        (ferplus.plan, "fer2013new.csv.*expected: fer2013.csv"),
        (sfew.plan, "Train/ and Val/.*expected: Train/<Emotion>"),
    ],
)
def test_a_wrong_folder_is_told_the_layout(tmp_path, make_plan, message):
    with pytest.raises(UserError, match=message):
        make_plan(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        make_plan(tmp_path / "nowhere")
