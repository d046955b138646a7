import dataclasses

import numpy as np
import pytest

from simfle_jax.data.synthetic_faces import (
    DEMO,
    EXPRESSIONS,
    IMAGES_PER_IDENTITY,
    PRESETS,
    SPLITS,
    UNITS,
    WILD,
    Strengths,
    contact_sheet,
    draw_face,
    mark_landmarks,
)
from simfle_jax.errors import UserError

SIZE = 32
STILL = Strengths(**{field.name: 0.0 for field in dataclasses.fields(Strengths)})


def draw(split, identities, strengths=DEMO, seed=3, size=SIZE):
    return [draw_face(seed, split, index, size, strengths) for index in range(identities * IMAGES_PER_IDENTITY)]


@pytest.fixture(scope="module")
def train():
    return draw("train", 20)


@pytest.fixture(scope="module")
def val():
    return draw("val", 10)


@pytest.fixture(scope="module")
def mean_face(train):
    """{expression: [68, 2]}: landmarks averaged over forty faces of twenty people, the centre of the face at 0."""
    points = np.stack([face.landmarks for face in train])
    points = points - points[:, 27:31].mean(1, keepdims=True)
    names = np.array([face.expression for face in train])
    return {name: points[names == name].mean(0) for name in EXPRESSIONS}


def same(a, b):
    return np.array_equal(a.image, b.image) and np.array_equal(a.landmarks, b.landmarks)


def changed(factor):
    """Eight faces without any variation, and the same with one factor at full strength."""
    on = dataclasses.replace(STILL, **{factor: 1.0})
    faces = [[draw_face(0, "train", index, SIZE, strengths) for index in range(8)] for strengths in (STILL, on)]
    return [(np.stack([f.image for f in eight]), np.stack([f.landmarks for f in eight])) for eight in faces]


@pytest.mark.parametrize("strengths", PRESETS.values(), ids=PRESETS)
def test_a_face_is_a_function_of_its_arguments(strengths):
    first = [draw_face(3, "train", index, SIZE, strengths) for index in range(20)]
    # Other faces drawn in between, and another order, change nothing.
    draw_face(4, "val", 7, 48, WILD)
    again = [draw_face(3, "train", index, SIZE, strengths) for index in reversed(range(20))]
    assert all(same(a, b) for a, b in zip(first, reversed(again), strict=True))


def test_another_seed_split_or_index_is_another_face(train, val):
    other = draw("train", 1, seed=4)
    for index in range(IMAGES_PER_IDENTITY):
        assert not np.array_equal(train[index].landmarks, other[index].landmarks)
        assert not np.array_equal(train[index].landmarks, val[index].landmarks)
    images = {face.image.tobytes() for face in train + val + other}
    assert len(images) == len(train) + len(val) + len(other)


def test_no_person_is_in_both_splits():
    """Without any other variation a face is its identity: none of one split returns in the other."""
    who = dataclasses.replace(STILL, identity=1.0)
    shapes = {
        split: np.stack([draw_face(0, split, 16 * i + 5, 16, who).landmarks.ravel() for i in range(40)])
        for split in ("train", "val")
    }
    between = np.abs(shapes["train"][:, None] - shapes["val"][None]).max(-1)
    within = np.abs(shapes["train"][:, None] - shapes["train"][None]).max(-1)[~np.eye(40, dtype=bool)]
    assert between.min() > 0.02 and within.min() > 0.02


def test_an_identity_keeps_its_shape_in_all_its_images():
    who = dataclasses.replace(STILL, identity=1.0, skin=1.0, hair=1.0)
    faces = draw("train", 2, who)
    for person in (faces[:16], faces[16:]):
        assert len({face.identity for face in person}) == 1
        assert len({face.image.tobytes() for face in person}) == 1
    assert not np.array_equal(faces[0].image, faces[16].image)


def test_every_person_shows_every_expression_equally_often(train):
    for start in range(0, len(train), IMAGES_PER_IDENTITY):
        shown = [face.expression for face in train[start : start + IMAGES_PER_IDENTITY]]
        assert sorted(shown) == sorted(EXPRESSIONS * 2)


@pytest.mark.parametrize("size", [16, 40, 112])
def test_images_are_bytes_of_the_wanted_size(size):
    face = draw_face(0, "train", 0, size, WILD)
    assert face.image.shape == (size, size, 3) and face.image.dtype == np.uint8
    assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == np.float32
    assert face.image.std() > 10


def test_landmarks_scale_with_the_image():
    small, large = (draw_face(0, "train", 9, size, DEMO).landmarks for size in (40, 120))
    np.testing.assert_allclose(large, 3 * small, rtol=1e-5)


@pytest.mark.parametrize("strengths", PRESETS.values(), ids=PRESETS)
def test_all_landmarks_lie_in_the_image(strengths):
    for face in draw("train", 4, dataclasses.replace(strengths, closeup=0.0)):
        assert (face.landmarks >= 0).all() and (face.landmarks <= SIZE).all()


def test_a_close_up_shows_eyes_and_nose_and_brings_them_nearer():
    near, far = (draw("train", 4, dataclasses.replace(DEMO, closeup=value)) for value in (1.0, 0.0))
    shown = range(27, 48)
    for close, whole in zip(near, far, strict=True):
        assert (close.landmarks[shown] >= 0).all() and (close.landmarks[shown] <= SIZE).all()
        between_eyes = [np.ptp(face.landmarks[36:48, 0]) for face in (close, whole)]
        assert between_eyes[0] > 1.3 * between_eyes[1]


@pytest.mark.parametrize(
    "order",
    [
        dict(axis=0, low=range(0, 9), high=range(16, 8, -1)),  # jaw: left half beside right half
        dict(axis=0, low=range(0, 8), high=range(1, 9)),  # jaw from left to right
        dict(axis=0, low=range(17, 26), high=range(18, 27)),  # brows from left to right
        dict(axis=0, low=range(36, 42), high=range(42, 48)),  # left eye beside right eye
        dict(axis=0, low=[36, 42], high=[39, 45]),  # eye corners
        dict(axis=0, low=[48, 60, 31], high=[54, 64, 35]),  # corners of the mouth, wings of the nose
        dict(axis=0, low=[0], high=[17]),
        dict(axis=0, low=[26], high=[16]),
        dict(axis=1, low=[19, 24], high=[37, 44]),  # brows above eyes
        dict(axis=1, low=[37, 38, 43, 44], high=[41, 40, 47, 46]),  # upper lids above lower lids
        dict(axis=1, low=[27, 28, 29, 30], high=[28, 29, 30, 33]),  # down the nose
        dict(axis=1, low=[33, 51, 57], high=[51, 57, 8]),  # nose, upper lip, lower lip, chin
    ],
)
def test_landmarks_follow_the_68_point_order(train, order):
    points = np.stack([face.landmarks for face in train])[..., order["axis"]]
    low, high = list(order["low"]), list(order["high"])
    # To the right of the chin the jaw's points mirror those on its left; a line of pixels may be shared.
    assert (points[:, low[: len(high)]] < points[:, high] + 1e-3).all()
    assert (points[:, low].mean(1) < points[:, high].mean(1)).all()


def test_landmarks_lie_on_what_is_painted():
    """The iris is darker than the cheek, and the lips are redder than the chin, where the landmarks say so."""
    face = draw_face(0, "train", 5, 112, STILL)
    image, points = face.image.astype(float), face.landmarks

    def colour(at, reach=2):
        x, y = np.round(at).astype(int)
        return image[y - reach : y + reach + 1, x - reach : x + reach + 1].mean((0, 1))

    cheeks = [(points[36] + points[48]) / 2, (points[45] + points[54]) / 2]
    for eye, cheek in zip((points[36:42], points[42:48]), cheeks, strict=True):
        assert colour(eye.mean(0)).sum() < 0.6 * colour(cheek).sum()
    lip, chin = colour(points[[57, 66]].mean(0), 1), colour(points[[8, 57]].mean(0), 1)
    assert lip[0] / lip[1] > 1.1 * chin[0] / chin[1]


def corner_rise(points):
    return (points[[51, 57]].mean(0) - points[[48, 54]].mean(0))[1]


def eye_opening(points):
    return (points[[40, 41, 46, 47]] - points[[38, 37, 44, 43]])[:, 1].mean()


def mouth_opening(points):
    return (points[66] - points[62])[1]


def inner_brows(points):
    """How low the inner ends of the brows lie."""
    return points[[21, 22], 1].mean()


def test_mouth_corners_rise_in_happiness_and_fall_in_sadness(mean_face):
    rise = {name: corner_rise(points) for name, points in mean_face.items()}
    # In disgust it is the middle of the upper lip that rises.
    assert rise["happiness"] == max(rise.values())
    assert rise["sadness"] == min(v for name, v in rise.items() if name != "disgust")
    assert rise["happiness"] > rise["neutral"] + 0.5 and rise["sadness"] < rise["neutral"] - 0.5  # pixels


def test_inner_brows_fall_in_anger_and_rise_in_sadness_fear_and_surprise(mean_face):
    low = {name: inner_brows(points) for name, points in mean_face.items()}
    assert low["anger"] == max(low.values())
    assert max(low["sadness"], low["fear"], low["surprise"]) < low["neutral"] < low["anger"]


def test_surprise_opens_the_mouth_most(mean_face):
    opening = {name: mouth_opening(points) for name, points in mean_face.items()}
    assert opening["surprise"] > 1.5 * max(v for name, v in opening.items() if name != "surprise")


def test_eyes_are_wide_in_fear_and_narrow_in_disgust(mean_face):
    opening = {name: eye_opening(points) for name, points in mean_face.items()}
    assert min(opening["fear"], opening["surprise"]) > 1.15 * opening["neutral"]
    assert opening["disgust"] < 0.9 * opening["neutral"]


def test_disgust_lifts_the_wings_of_the_nose(mean_face):
    height = {name: points[[31, 35], 1].mean() for name, points in mean_face.items()}
    assert height["disgust"] == min(height.values())


def test_fear_stretches_the_mouth_sideways(mean_face):
    width = {name: (points[54] - points[48])[0] for name, points in mean_face.items()}
    assert width["fear"] > width["neutral"] > width["anger"]


def test_contempt_is_one_sided(train):
    def lopsided(face):
        return np.abs(face.landmarks[48, 1] - face.landmarks[54, 1])

    mean = {name: np.mean([lopsided(f) for f in train if f.expression == name]) for name in EXPRESSIONS}
    assert mean["contempt"] > 2 * max(v for name, v in mean.items() if name != "contempt")


def test_the_chin_drops_with_the_jaw():
    faces = draw("train", 6, dataclasses.replace(STILL, expression=1.0))
    drop = [face.units["AU26"].mean() * 0.13 + face.units["AU27"].mean() * 0.30 for face in faces]
    # A long face is framed from further away: measure in distances between the eyes.
    chin = [(f.landmarks[8] - f.landmarks[27])[1] / (f.landmarks[45] - f.landmarks[36])[0] for f in faces]
    assert np.corrcoef(drop, chin)[0, 1] > 0.99


def test_units_are_intensities_of_both_sides(train):
    for face in train:
        assert tuple(face.units) == UNITS
        values = np.stack(list(face.units.values()))
        assert values.shape == (len(UNITS), 2) and values.min() >= 0 and values.max() <= 1


def test_landmarks_tell_the_expression_of_people_never_seen(train, val):
    def shapes(faces):
        points = np.stack([face.landmarks for face in faces])
        return (points - points.mean(1, keepdims=True)).reshape(len(faces), -1)

    names, truth = np.array([f.expression for f in train]), np.array([f.expression for f in val])
    means = np.stack([shapes(train)[names == name].mean(0) for name in EXPRESSIONS])
    nearest = ((shapes(val)[:, None] - means[None]) ** 2).sum(-1).argmin(1)
    assert (np.array(EXPRESSIONS)[nearest] == truth).mean() > 0.5  # chance: .125


def test_expression_0_makes_every_class_neutral():
    faces = draw("train", 1, STILL)
    assert all(same(faces[0], face) for face in faces)
    assert not any(value.any() for value in faces[4].units.values())


@pytest.mark.parametrize("factor", ["skin", "hair", "gaze", "light", "tint", "gamma", "background", "blur", "noise"])
def test_a_factor_of_appearance_changes_the_image_and_no_landmark(factor):
    (still, still_points), (moved, moved_points) = changed(factor)
    assert (still != moved).any(axis=(1, 2, 3)).sum() >= 2
    np.testing.assert_array_equal(still_points, moved_points)


@pytest.mark.parametrize("factor", ["expression", "identity", "pose", "crop", "translation", "closeup"])
def test_a_factor_of_geometry_moves_the_landmarks(factor):
    (_, still), (_, moved) = changed(factor)
    assert np.abs(still - moved).max() > 0.2


def test_with_all_strengths_0_everybody_is_the_same_picture():
    assert len({draw_face(1, split, 16 * i, 40, STILL).image.tobytes() for i in range(30) for split in SPLITS}) == 1


@pytest.mark.parametrize("factor", [field.name for field in dataclasses.fields(Strengths) if field.name != "closeup"])
def test_every_strength_alone_makes_faces_differ(factor):
    on = dataclasses.replace(STILL, **{factor: 1.0})
    assert len({draw_face(1, "train", 17 * i, 16, on).image.tobytes() for i in range(24)}) > 1


def test_a_third_wears_glasses_and_half_is_occluded():
    def share(factor, step, count):
        on = dataclasses.replace(STILL, **{factor: 1.0})
        plain = draw_face(2, "train", 0, 16, STILL).image
        return np.mean([not np.array_equal(draw_face(2, "train", step * i, 16, on).image, plain) for i in range(count)])

    assert 0.2 < share("glasses", 16, 150) < 0.47
    assert 0.37 < share("occlusion", 1, 150) < 0.63


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan")])
def test_a_strength_out_of_range_is_named(value):
    with pytest.raises(UserError, match=r"strength pose=.*0 \(off\) to 1"):
        dataclasses.replace(DEMO, pose=value)


def test_the_contact_sheet_shows_validation_faces_row_by_row():
    sheet = np.asarray(contact_sheet(5, 96, DEMO, identities=2))
    assert sheet.shape == (96 * len(EXPRESSIONS), 76 + 2 * 96, 3)
    for row in (0, 7):
        for column in range(2):
            face = draw_face(5, "val", IMAGES_PER_IDENTITY * column + row, 96, DEMO)
            cell = sheet[96 * row : 96 * (row + 1), 76 + 96 * column : 76 + 96 * (column + 1)]
            np.testing.assert_array_equal(cell, face.image)


def test_marked_landmarks_are_dots_at_their_places():
    points = draw_face(0, "val", 0, 64, STILL).landmarks
    marked = np.asarray(mark_landmarks(np.zeros((64, 64, 3), np.uint8), points))
    assert marked.shape == (256, 256, 3)
    x, y = np.round(4 * points[8]).astype(int)  # the chin: no other number is written over it
    assert (marked[y, x] == (0, 255, 60)).all()
