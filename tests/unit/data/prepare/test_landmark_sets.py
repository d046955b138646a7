"""300-W, 300-VW and WFLW: who goes where, the owners' subsets, and points that lie on the faces that were cut out."""

import shutil

import landmark_fakes as fakes
import layout_fakes
import numpy as np
import pytest
from PIL import Image

from simfle_jax.data.prepare import w300, w300vw, wflw
from simfle_jax.data.prepare.encode import LONGEST
from simfle_jax.data.prepare.run import prepare
from simfle_jax.errors import UserError
from simfle_jax.evaluation.landmarks.reading import read_table


def check_chins(out, table):
    """The disc that the fakes draw around a chin is where the prepared points have it."""
    chin = fakes.CHIN[table.points.shape[1]]
    for name, points in zip(table.names, table.points):
        with Image.open(out / name) as image:
            pixels = np.asarray(image.convert("L"), np.float64)
        y, x = np.nonzero(pixels > 160)
        np.testing.assert_allclose((x.mean() + 0.5, y.mean() + 0.5), points[chin], atol=1.0, err_msg=name)


def test_300w(tmp_path):
    out = tmp_path / "out"
    found = prepare(w300.plan, fakes.w300(tmp_path / "in" / "300W"), out)
    assert layout_fakes.tree(out, "train", "val") == fakes.W300
    assert found["subsets"] == {"challenging": 1, "common": 4} and not found["agrees"]["val"]
    assert {reason: entry["count"] for reason, entry in found["skipped"].items()} == {
        "mirrored copy": 1, "points missing or not readable": 2,
    }  # fmt: skip
    table = read_table(out / "landmarks.npz")
    assert set(table.names) == fakes.W300
    assert {table.names[i] for i in np.flatnonzero(table.subsets["challenging"])} == {"val/ibug/a_1.jpg"}
    check_chins(out, table)
    assert prepare(w300.plan, tmp_path / "in", out) == found  # again: nothing to do


def test_300vw(tmp_path):
    out = tmp_path / "out"
    found = prepare(w300vw.plan, fakes.w300vw(tmp_path / "in" / "300VW_Dataset_2015_12_14"), out)
    assert layout_fakes.tree(out, "train", "val") == fakes.W300VW
    assert found["subsets"] == {"category1": 2, "category2": 3, "category3": 3}
    assert found["skipped"] == {"frame missing": {"count": 1, "first": ["114/000003.pts"]}}
    table = read_table(out / "landmarks.npz")
    assert set(table.names) == fakes.W300VW
    check_chins(out, table)
    video = next((tmp_path / "in").rglob("203/vid.avi"))
    fakes.write_pts(video.parent / "annot" / "000004.pts", fakes.face(68, 100, 40, 100))
    found = prepare(w300vw.plan, tmp_path / "in", tmp_path / "longer")
    assert found["skipped"]["image not usable: the video ends before frame 4"]["first"] == ["000004.jpg"]
    video.unlink()
    with pytest.raises(UserError, match=r"203 holds neither vid\.avi nor frames: put one of them there"):
        w300vw.plan(tmp_path / "in")


def test_frames_that_are_not_those_of_the_points_are_refused(tmp_path):
    source = fakes.w300vw(tmp_path / "in")
    frames = source / "001" / "frames"
    shutil.copytree(frames, source / "001" / "crops")
    with pytest.raises(UserError, match=r"crops/000001\.png and .*frames/000001\.png are one frame: move one of their"):
        w300vw.plan(source)
    shutil.rmtree(source / "001" / "crops")
    (frames / "000003.png").rename(frames / "000000.png")
    with pytest.raises(UserError, match=r"000000\.png is a frame 0, and the points count from 1"):
        w300vw.plan(source)


def test_wflw(tmp_path):
    out = tmp_path / "out"
    found = prepare(wflw.plan, fakes.wflw(tmp_path / "in"), out)
    assert layout_fakes.tree(out, "train", "val") == {
        "train/faces/0--Parade_x.jpg", "train/faces/0--Parade_x_2.jpg", "val/faces/0--Parade_y.jpg",
    }  # fmt: skip
    assert found["subsets"] == {"blur": 1, "pose": 1}
    assert {reason: entry["count"] for reason, entry in found["skipped"].items()} == {
        "image file missing": 1, "row not readable": 1,
    }  # fmt: skip
    table = read_table(out / "landmarks.npz")
    assert table.points.shape == (3, 98, 2)
    val = table.names.index("val/faces/0--Parade_y.jpg")
    assert table.subsets["pose"].nonzero()[0].tolist() == [val]
    with Image.open(out / table.names[val]) as image:
        assert image.width == 140  # the box of 100 pixels and a fifth of it on each side
    check_chins(out, table._replace(names=[table.names[val]], points=table.points[[val]]))


def test_large_faces_are_reduced_with_their_points(tmp_path):
    root = fakes.wflw(tmp_path / "in")
    points = fakes.face(98, 100, 50, 600)
    fakes.photograph(root / "WFLW_images" / "0--Parade" / "y.jpg", points, (900, 800))
    path = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / "list_98pt_rect_attr_test.txt"
    numbers = " ".join(map(str, [*(points - 0.5).ravel(), *points.min(0), *points.max(0)]))
    path.write_text(f"{numbers} 0 0 0 0 0 0 0--Parade/y.jpg\n")
    prepare(wflw.plan, root, tmp_path / "out")
    table = read_table(tmp_path / "out" / "landmarks.npz")
    val = table.names.index("val/faces/0--Parade_y.jpg")
    with Image.open(tmp_path / "out" / table.names[val]) as image:
        assert image.width == LONGEST
    check_chins(tmp_path / "out", table._replace(names=[table.names[val]], points=table.points[[val]]))


@pytest.mark.parametrize("plan, message", [(w300.plan, "300w: looked for helen/testset/ and ibug/"),
                                           (w300vw.plan, "300vw: looked for folders such as 001/annot/"),
                                           (wflw.plan, "wflw: looked for WFLW_annotations/")])  # fmt: skip
def test_another_layout_is_told(tmp_path, plan, message):
    with pytest.raises(UserError, match=message):
        plan(layout_fakes.rafdb(tmp_path))
