"""Landmarks: errors by a second way, flips, planted maps, the forms of files, and what is wrong with them."""

import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_probe import write_encoder

from configs import probe as probe_config
from simfle_jax import augment
from simfle_jax.data.decode import decode, fitted
from simfle_jax.data.synthetic_faces import DEMO, draw_face
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.landmarks import errors, heads, tuning
from simfle_jax.evaluation.landmarks.data import check_inside, in_shares
from simfle_jax.evaluation.landmarks.frozen import chosen_ridge
from simfle_jax.evaluation.landmarks.heads import fit_ridge
from simfle_jax.evaluation.landmarks.reading import check_apart, read_table, rows_of
from simfle_jax.evaluation.landmarks.schemes import flipped, scheme_of
from simfle_jax.evaluation.settings import probing
from simfle_jax.views import image_keys

FACES = np.stack([draw_face(0, "train", i, 40, DEMO).landmarks for i in range(6)])
S68 = scheme_of(68, "here")


def test_errors_are_those_of_a_second_way_of_computing():
    rng = np.random.default_rng(0)
    predicted = FACES + rng.normal(0, 1.5, FACES.shape)
    found = errors.image_errors(predicted, FACES, S68)
    for i, (guess, true) in enumerate(zip(predicted, FACES)):
        mean = sum(math.hypot(*(guess[p] - true[p])) for p in range(68)) / 68
        width, height = (max(true[:, axis]) - min(true[:, axis]) for axis in (0, 1))
        assert found["outer_eyes"][i] == pytest.approx(mean / math.hypot(*(true[36] - true[45])), rel=1e-5)
        assert found["box"][i] == pytest.approx(mean / math.sqrt(width * height), rel=1e-5)
    values = np.abs(rng.normal(0.06, 0.04, 200))
    for limit in (0.08, 0.1):
        x = np.linspace(0, limit, 20001)
        curve = (values[None] <= x[:, None]).mean(1)  # share of images at most x off
        assert errors.area_under_curve(values, limit) == pytest.approx(np.trapezoid(curve, x) / limit, abs=1e-3)
        assert errors.failure_rate(values, limit) == pytest.approx(1 - curve[-1])
    told = errors.scores({"outer_eyes": values}, 0)["outer_eyes"]
    low, high = told["nme_interval_95"]
    assert low < told["nme"] < high and high - low == pytest.approx(4 * values.std() / 200**0.5, rel=0.15)


@pytest.mark.parametrize("count", [68, 98])
def test_a_flip_exchanges_left_and_right_and_twice_is_none(count):
    scheme = scheme_of(count, "here")
    points = np.random.default_rng(0).random((3, count, 2))
    np.testing.assert_allclose(flipped(flipped(points, scheme), scheme), points)
    np.testing.assert_array_equal(np.sort(scheme.mirrored), np.arange(count))
    assert (
        tuple(scheme.mirrored[list(scheme.eyes)]) == scheme.eyes[::-1] and scheme.mirrored[scheme.chin] == scheme.chin
    )
    parts = np.concatenate(list(scheme.parts.values()))
    np.testing.assert_array_equal(np.sort(parts), np.arange(count))
    for rows in scheme.parts.values():  # a part's mirror is the part
        assert set(scheme.mirrored[rows]) == set(rows)


def test_a_mirrored_symmetric_face_is_itself():
    """Each pair of the table lies at one height on both sides of the middle: known from the drawn faces' mean."""
    shape = np.stack([draw_face(1, "train", i, 40, DEMO).landmarks for i in range(96)]).mean(0) / 40
    mirrored = flipped(shape, S68)
    shift = (mirrored - shape).mean(0)
    assert np.abs(mirrored - shape - shift).max() < 0.04 < np.abs(shape * [-1, 1] + [1, 0] - shape).max()


@pytest.mark.parametrize("count", [30, 400])  # fewer and more images than features
def test_a_planted_map_gives_the_points_and_an_empty_one_the_mean_shape(count):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(count, 3, 3, 6)).astype(np.float32)
    way = rng.normal(size=(54, 136)).astype(np.float32) * 0.02
    if count < 54:
        maps[..., 2:] = 0
    points = (0.5 + maps.reshape(count, -1) @ way).reshape(count, 68, 2)
    head = next(heads.fit_ridge(maps.copy(), points, heads.STRENGTHS[:1]))
    assert np.abs(head.points(maps) - points).max() < 2e-3
    nothing = next(heads.fit_ridge(np.ones_like(maps), points, (1.0,)))
    np.testing.assert_allclose(nothing.points(np.ones_like(maps))[0], points.mean(0), atol=1e-5)
    again = heads.from_arrays(heads.to_arrays(head))
    np.testing.assert_array_equal(again.points(maps), head.points(maps))


def test_attention_finds_a_spot_wherever_it_is():
    """One cell differs from the others; every point lies in it: no linear layer on a pooled map could tell where."""
    rng = np.random.default_rng(0)
    maps, cells = rng.normal(0, 0.1, (300, 4, 4, 3)).astype(np.float32), rng.integers(0, 16, 300)
    maps.reshape(300, 16, 3)[np.arange(300), cells, 0] = 3
    where = np.stack([cells % 4 + 0.5, cells // 4 + 0.5], 1).astype(np.float32) / 4
    points = np.repeat(where[:, None], 2, axis=1)
    head = heads.fit_attention(maps[:200], points[:200], epochs=30, batch_size=50, lr=0.1, seed=0)
    wrong = errors.distances(head.points(maps[200:]), points[200:]).mean()
    assert wrong < 0.05 < errors.distances(np.broadcast_to(points.mean(0), points.shape), points).mean()


def test_points_follow_their_pixels_into_crops_and_mirrors(tmp_path):
    """Each image has a spot where all its points are: in every view it is where the points say."""
    encoder = load_encoder(write_encoder(tmp_path / "encoder.safetensors"))
    config = probe_config.get_config()
    config.update(encoder=str(tmp_path), protocol="landmarks", data={"path": str(tmp_path)})
    step = tuning.PointStep(encoder, np.zeros((68, 2), np.float32), S68, probing(config), 8, 1)
    images, where = np.zeros((8, 48, 48, 3), np.uint8), np.arange(16).reshape(8, 2) + 16  # within every crop
    for image, (x, y) in zip(images, where):
        image[y - 2 : y + 2, x - 2 : x + 2] = 255
    points = np.repeat(where[:, None] / np.float32(48), 68, axis=1).astype(np.float32)
    views, found = (
        np.asarray(part) for part in jax.jit(step.batch)(jnp.int32(3), jnp.asarray(images), jnp.asarray(points))
    )
    light = views.mean(-1) - views.min()
    grid = (np.arange(24) + 0.5) / 24
    for image, point in zip(light, found):
        across, down = (image.sum(axis) @ grid / image.sum() for axis in (0, 1))
        np.testing.assert_allclose(point, np.broadcast_to([across, down], (68, 2)), atol=0.02)
    mirrored = augment.Draws.of(image_keys(0, 3, 8)).flip < 0.5
    assert mirrored.any() and not mirrored.all()


# ---------------------------------------------------------------- files

NAMES = [f"train/a/{i}.jpg" for i in range(6)]


def as_npz(folder, points=FACES, names=NAMES, **more):
    np.savez(folder / "landmarks.npz", name=np.array(names), points=points, **more)
    return folder / "landmarks.npz"


def as_csv(folder, header, order=None, rows=FACES):
    flat = rows.reshape(len(rows), -1)[:, order if order is not None else slice(None)]
    lines = ([header] if header else []) + [f"{n}," + ",".join(map(str, row)) for n, row in zip(NAMES, flat)]
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    return folder / "points.csv"


def as_pts(folder, points=FACES, told=68):
    for name, face in zip(NAMES, points):
        path = (folder / name).with_suffix(".pts")
        path.parent.mkdir(parents=True, exist_ok=True)
        body = "\n".join(f"{x + 0.5:.6f} {y + 0.5:.6f}" for x, y in face)
        path.write_text(f"version: 1\nn_points:  {told}\n{{\n{body}\n}}\n")
    return folder


BY_AXIS = [*range(0, 136, 2), *range(1, 136, 2)]
FORMS = {
    "npz": as_npz,
    "csv, numbered": lambda folder: as_csv(folder, "," + ",".join(map(str, range(136)))),
    "csv, bare": lambda folder: as_csv(folder, ""),
    "csv, named": lambda folder: as_csv(
        folder, "name," + ",".join(f"{axis}_{n}" for axis in "xy" for n in range(68)), BY_AXIS
    ),
    "pts": as_pts,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_points(tmp_path, form):
    table = read_table(FORMS[form](tmp_path))
    np.testing.assert_allclose(table.points, FACES, atol=1e-4)
    assert rows_of(table, ["a/3.jpg", "b/3.jpg", "3.jpg", "nobody.jpg"], "train").tolist() == [3, -1, -1, -1]
    assert rows_of(table, ["a/3.jpg"], "val").tolist() == [-1]  # an image of another split of the same name
    bare = table._replace(names=[name.rpartition("/")[2] for name in table.names])
    assert rows_of(bare, ["x/3.jpg", "5.jpg"], "val")[0] == 3
    with pytest.raises(UserError, match=r"may be val/x/3\.jpg or val/y/3\.jpg: write its folders too"):
        rows_of(bare, ["x/3.jpg", "y/3.jpg"], "val")


def test_images_of_train_and_val_that_go_by_one_row_are_refused(tmp_path):
    """Else val is judged by the points of train."""
    table = read_table(as_npz(tmp_path))
    sets = {"train": ["a/3.jpg", "nobody.jpg"], "val": ["b/3.jpg", "nobody.jpg"]}
    check_apart(table, sets)
    bare = table._replace(names=[name.rpartition("/")[2] for name in table.names])
    with pytest.raises(UserError, match=r"3\.jpg may be train/a/3\.jpg or val/b/3\.jpg: write its folders too"):
        check_apart(bare, sets)


def nan(points):
    points = points.copy()
    points[2, 5, 1] = np.nan
    return points


def shortened(file):
    """The last line of a csv without its last point."""
    file.write_text(file.read_text().strip().rpartition(",")[0].rpartition(",")[0])
    return file


def rewritten(file, old, new):
    file.write_text(file.read_text().replace(old, new))
    return file


MISTAKES = {
    "nan": (lambda d: as_npz(d, nan(FACES)), r"point 5 of train/a/2\.jpg is not a number"),
    "count": (lambda d: as_npz(d, FACES[:, :67]), r"has 67 points of an image; known are 68 .* and 98 .*: give one of these"),
    "twice": (lambda d: as_npz(d, names=[NAMES[0], *NAMES[:5]]), r"points of train/a/0\.jpg twice: remove one of them$"),
    "twice, without folders": (lambda d: as_npz(d, names=["0.jpg"] * 6), r"0\.jpg twice: .*, or write the folders too"),
    "one line short": (lambda d: shortened(as_csv(d, "")), r"line 6: 135 columns, expected 137: mend or remove this line"),
    "swapped axes": (lambda d: as_npz(d, FACES[..., ::-1]), r"are the columns x, y of each point in turn"),
    "all x, then all y": (lambda d: as_csv(d, "", BY_AXIS), r"the chin is not below the eyes, or the left eye not left"),
    "one column less": (lambda d: as_csv(d, "", list(range(135))), r"line 1: 136 columns between commas; expected the image's name"),
    "semicolons": (lambda d: rewritten(as_csv(d, ""), ",", ";"), r"line 1: 1 column between commas; expected the image's name"),
    "no x": (lambda d: as_csv(d, "name,y_0,z"), r"line 1: each column x_0, x_1 \.\.\. needs its y_0, y_1"),
    "no names": (lambda d: as_csv(d, ",".join(["x_0", "y_0"] * 1 + ["z"])), r"no column of the images' names"),
    "one file short": (lambda d: as_pts(d, told=70), r"0\.pts: no whole \.pts file: 70 points told, 136 numbers"),
    "nothing": (lambda d: d, r"holds no landmarks\.npz and no \.pts files"),
    "no file": (lambda d: d / "x.txt", r"give a \.npz, a \.csv or a folder"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_file_is_one_line(tmp_path, mistake):
    make, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as told:
        read_table(make(tmp_path))
    assert "\n" not in str(told.value)


def test_what_the_messages_ask_for_mends_it(tmp_path):
    twice = [NAMES[0], *NAMES[:5]]
    assert len(read_table(as_npz(tmp_path, nan(FACES)[[0, 1, 3, 4, 5]], NAMES[:5])).names) == 5  # the row is removed
    assert len(read_table(as_npz(tmp_path, FACES[1:], twice[1:])).names) == 5
    rows = FACES.reshape(6, -1)
    (tmp_path / "p.csv").write_text("\n".join(
        ["name," + ",".join(f"{axis}_{n}" for axis in "xy" for n in range(68))]
        + [f"{name}," + ",".join(map(str, row)) for name, row in zip(NAMES, rows[:, BY_AXIS])]
    ))  # fmt: skip
    np.testing.assert_allclose(read_table(tmp_path / "p.csv").points, FACES, atol=1e-4)  # columns named, in their order


def test_points_beside_their_image_are_told(caplog):
    names = [f"{i}.jpg" for i in range(6)]
    check_inside(FACES / 40, names, "here")
    assert "lie outside of their images" in caplog.text  # jaws of tightly cut faces
    with pytest.raises(UserError, match=r"here: the points of 0\.jpg lie outside of the image \(6 such images\)"):
        check_inside(FACES / 16, names, "here")


@pytest.mark.parametrize("size", [(301, 250), (1024, 683), (640, 480), (250, 301), (100, 100), (41, 40), (300, 6000)])
def test_points_lie_where_the_network_sees_them(size):
    """A spot of one colour is decoded, and found where its place in the image says."""
    canvas, (width, height) = 56, size
    short = min(size)
    for share in (0.2, 0.5, 0.8):
        spot = np.array([(width - short) / 2 + share * short, (height - short) / 2 + (1 - share) * short])
        pixels = np.zeros((height, width, 3), np.uint8)
        grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
        weight = np.exp(-(((grid - spot) / (short / 25)) ** 2).sum(-1))
        pixels[...] = (255 * weight)[..., None].astype(np.uint8)
        seen = decode(encode(pixels), canvas).astype(float)[..., 0]
        cells = np.arange(canvas) + 0.5
        found = np.array([(seen.sum(0) * cells).sum(), (seen.sum(1) * cells).sum()]) / seen.sum() / canvas
        (left, across), (top, down) = (fitted(side, short, canvas) for side in size)
        square = np.array([[left, top, across, down]])
        np.testing.assert_allclose(found, in_shares(spot[None, None], square)[0, 0], atol=0.1 / canvas)


def encode(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def test_few_images_with_maps_of_many_numbers_have_a_ridge():
    """Their centred products have an eigenvalue of 0, which float32 may make a negative one."""
    random = np.random.default_rng(0)
    for trial in range(6):
        maps = np.float32(random.normal(size=(60, 7, 7, 512)) ** 2 + 3)
        heads = fit_ridge(maps, random.uniform(size=(60, 68, 2)), (1e-6, 1.0))
        assert all(head and np.isfinite(head.kernel).all() for head in heads), trial


@pytest.mark.parametrize("count", [900, 200])  # more and fewer images than features
def test_a_collapsed_encoder_has_a_ridge(count):
    """Nearly all of its maps is one direction: for the weakest strengths float32 holds too little of the rest."""
    random = np.random.default_rng(0)
    along = 2.4 * random.normal(size=(count, 1)) * random.normal(size=576)
    maps = np.float32(along + 1e-4 * random.normal(size=along.shape)).reshape(count, 3, 3, 64)
    points = random.uniform(size=(count, 68, 2))
    assert None in fit_ridge(maps.copy(), points, heads.STRENGTHS)
    plain = maps, points
    head, strength = chosen_ridge(plain, plain, 0)
    assert np.isfinite(head.kernel).all() and strength > heads.STRENGTHS[0]
