"""Pictures are never dropped for wanting a name that another one has."""

import json

import layout_fakes as fakes
import numpy as np
import variant_fakes as variants
from small import status

from simfle_jax.commands import prepare as command
from simfle_jax.data.prepare import manifest, writer
from simfle_jax.data.prepare.names import distinct
from simfle_jax.data.prepare.plan import Item


def prepared(tmp_path, *arguments):
    out = tmp_path / "out"
    for _ in range(2):  # the second one finds it done, under the same names
        assert status(command, [*arguments, "--source", str(tmp_path / "in"), "--out", str(out)]) == 0
    return json.loads((out / manifest.NAME).read_text()), fakes.tree(out, "train", "val", "unlabelled")


def test_four_pictures_of_one_stem_stay_four(tmp_path):
    for label in "ab":
        for seed, ending in enumerate(("bmp", "gif", "png", "tif", "jpg")):
            fakes.put(tmp_path / f"in/{label}/x.{ending}", seed)
    result, files = prepared(tmp_path, "folder")
    assert result["counts"] == {"train": {"a": 5, "b": 5}, "val": {}, "unlabelled": 10} and not result["skipped"]
    names = {"x.png", "x_bmp.png", "x_gif.png", "x_tif.png", "x.jpg"}
    assert {name for name in files if name.startswith("train/a/")} == {f"train/a/{name}" for name in names}
    kept, source = fakes.pixels(tmp_path / "out/train/a/x.png"), fakes.pixels(tmp_path / "in/a/x.png")
    np.testing.assert_array_equal(kept, source)
    converted, source = fakes.pixels(tmp_path / "out/train/a/x_bmp.png"), fakes.pixels(tmp_path / "in/a/x.bmp")
    np.testing.assert_array_equal(converted, source)


def test_two_folders_of_one_class_keep_all_pictures(tmp_path):
    for seed, name in enumerate(("happy/1.png", "Happiness/1.png", "joy/1.png", "joy/in/1.png", "joy/in_1.png")):
        fakes.put(tmp_path / "in" / name, seed)
    result, files = prepared(tmp_path, "folder")
    assert result["counts"]["train"] == {"happiness": 5} and not result["skipped"]
    assert len({name for name in files if name.startswith("unlabelled/")}) == 5


def test_pictures_of_affectnet_whose_flat_names_are_the_same(tmp_path):
    fakes.affectnet_older(tmp_path / "in")
    for seed, name in enumerate(("0/x.jpg", "0/x.png", "0_x.jpg")):
        fakes.put(tmp_path / "in" / variants.IMAGES / name, 900 + seed)
    path = tmp_path / "in" / variants.LISTS / "validation.csv"
    row = "{},{},0,20,20,,1,0,0\n"
    rows = [("0/x.jpg", 0), ("0/x.png", 0), ("0_x.jpg", 0), ("0/x.jpg", 10), ("0/x.jpg", 0)]  # twice; once another face
    path.write_text("".join(row.format(*cells) for cells in rows))
    result, files = prepared(tmp_path, "affectnet")
    assert {name for name in files if name.startswith("val/")} == {
        f"val/happiness/0_x{end}.jpg" for end in ("", "_2", "_3", "_png")
    }
    assert result["skipped"]["listed twice"]["count"] == 2  # the one here and the one of the fake's training list


def test_the_flat_view_holds_every_train_image():
    labels = [("a", "x.png"), ("b", "x.png"), ("b", "a_x.png"), (None, "b_x.png"), (None, "a_x_2.png")]
    items = [Item("train", label, name, path=f"{label}/{name}") for label, name in labels]
    names = list(writer.flat_names(items).values())
    assert len(set(names)) == len(items), names


def test_no_wanted_name_is_given_to_another():
    wanted = [(0, "x.png"), (0, "x.png"), (0, "x_bmp.png"), (0, "x_2.png"), (1, "x.png")]
    assert distinct(wanted, [".png", ".bmp", ".png", ".png", ".bmp"]) == [
        "x.png", "x_3.png", "x_bmp.png", "x_2.png", "x.png",
    ]  # fmt: skip
