"""Laws of the augmentations: what a view depends on, what neutral settings do, PIL's resize again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from simfle_jax import augment, colour
from simfle_jax.config import ViewSettings

SIZE, BATCH = 24, 6
STRONG = ViewSettings(
    size=SIZE, plain_size=16, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, jitter=0.8,
    brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, gray=0.2, blur=(0.1, 2.0),
)  # fmt: skip
NEUTRAL = dataclasses.replace(STRONG, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, gray=0.0, blur=(0, 0))

two_views = jax.jit(augment.two_views, static_argnums=2)
crop_and_resize = jax.jit(augment.crop_and_resize, static_argnums=2)
adjust = {name: jax.jit(getattr(colour, f"adjust_{name}")) for name in ("brightness", "contrast", "saturation", "hue")}


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).randint(0, 256, (BATCH, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def floats(images):
    return augment.to_float(jnp.asarray(images))


@pytest.fixture(scope="module")
def keys():
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(BATCH))


@pytest.fixture(scope="module")
def views(keys, images):
    return np.stack(two_views(keys, images, STRONG))


def test_views_differ_and_stay_in_range(views):
    assert views.shape == (2, BATCH, SIZE, SIZE, 3) and views.dtype == np.float32
    assert views.min() >= 0 and views.max() <= 1
    assert np.all(np.abs(views[0] - views[1]).mean(axis=(1, 2, 3)) > 0.01)


@pytest.mark.parametrize("light", [0.0, 0.5])
def test_a_view_depends_on_its_own_key_and_image_only(light, keys, images):
    order, settings = np.array([4, 2, 0, 5, 1, 3]), dataclasses.replace(STRONG, light=light)
    views = np.stack(two_views(keys, images, settings))
    permuted = np.stack(two_views(keys[order], images[order], settings))
    np.testing.assert_allclose(permuted, views[:, order], atol=1e-6)


def test_half_a_batch_gives_the_same_views(views, keys, images):
    half = np.stack(two_views(keys[3:], images[3:], STRONG))
    np.testing.assert_allclose(half, views[:, 3:], atol=1e-6)


def test_other_keys_give_other_views_without_compiling_again(views, images):
    compiled = two_views._cache_size()
    others = np.stack(two_views(jax.random.split(jax.random.key(9), BATCH), images, STRONG))
    assert np.all(np.abs(others - views).mean(axis=(2, 3, 4)) > 0.01)
    assert two_views._cache_size() == compiled


def test_neutral_settings_give_the_plain_resize(keys, images):
    plain = augment.plain_view(images, SIZE)
    for view in two_views(keys, images, NEUTRAL):
        np.testing.assert_allclose(view, plain, atol=1e-6)


@pytest.mark.parametrize(
    "part",
    [{"flip": 1.0}, {"jitter": 1.0}, {"gray": 1.0}, {"blur": (2.0, 2.0)}, {"light": 1.0}],
    ids=lambda part: next(iter(part)),
)
def test_every_part_of_the_augmentation_changes_the_views(part, keys, images):
    without, with_it = (
        np.stack(augment.two_views(keys, images, dataclasses.replace(NEUTRAL, **changes))) for changes in ({}, part)
    )
    assert np.all(np.abs(without - with_it).mean(axis=(2, 3, 4)) > 0.02), "every view of every image"


def test_a_blur_that_begins_at_0_begins_with_no_blur(keys, images):
    plain = augment.two_views(keys, images, NEUTRAL)
    blurred = augment.two_views(keys, images, dataclasses.replace(NEUTRAL, blur=(0.0, 1e-60)))  # 0 in float32
    np.testing.assert_allclose(blurred, plain, atol=1e-6)


def test_light_from_a_side_is_a_slope_of_the_logarithm_and_keeps_the_middle():
    grey = jnp.full((400, 9, 9, 3), 0.02)
    keys = jax.random.split(jax.random.key(0), 400)
    field = np.log(np.asarray(augment.lit(keys, grey, 0.5)) / 0.02)
    np.testing.assert_allclose(field[:, 4, 4], 0, atol=1e-5)
    across, down = field[:, 4, 8, 0], field[:, 8, 4, 0]
    np.testing.assert_allclose(field[:, 2, 6, 1], across / 2 - down / 2, atol=1e-4)
    np.testing.assert_allclose([across.std(), down.std()], 0.5, rtol=0.1)
    assert abs(np.corrcoef(across, down)[0, 1]) < 0.15
    assert augment.lit(keys, grey + 0.9, 1.0).max() <= 1


def test_the_two_views_of_a_grey_face_are_lit_apart(keys):
    grey = np.full((BATCH, 32, 32, 3), 90, np.uint8)
    first, second = augment.two_views(keys, grey, dataclasses.replace(NEUTRAL, light=0.5))
    assert np.all(np.abs(first - second).max(axis=(1, 2, 3)) > 0.01)


def test_probe_view_flips_with_its_probability(keys, images):
    @jax.jit
    def view(flip):
        return augment.random_crop_and_flip(keys, images, SIZE, (0.2, 0.5), (0.75, 1.33), flip)

    straight, flipped = view(0.0), view(1.0)
    np.testing.assert_allclose(flipped, straight[:, :, ::-1], atol=1e-6)


@pytest.mark.parametrize("top, left, height, width", [(0, 0, 32, 32), (3, 5, 20, 9), (30, 30, 2, 2), (1, 0, 31, 7)])
@pytest.mark.parametrize("size", [7, 16, 40])
def test_crop_and_resize_is_pils(floats, top, left, height, width, size):
    boxes = np.tile([top, left, height, width], (BATCH, 1))
    resized = crop_and_resize(floats, boxes, size)
    crop = np.asarray(floats)[0, top : top + height, left : left + width]
    bands = [Image.fromarray(crop[..., c]).resize((size, size), Image.Resampling.BILINEAR) for c in range(3)]
    np.testing.assert_allclose(resized[0], np.stack(bands, -1), atol=5e-6)


@pytest.mark.parametrize("length, size", [(32, 24), (9, 24), (24, 24), (31, 7)])
def test_resize_weights_computed_one_by_one(length, size):
    start, step = 1, length / size
    reach = max(step, 1.0)
    expected = np.zeros((size, 33))
    for i in range(size):
        for x in range(length):
            expected[i, start + x] = max(0.0, 1 - abs(x + 0.5 - (i + 0.5) * step) / reach)
    expected /= expected.sum(axis=1, keepdims=True)
    weights = augment._resize_weights(jnp.full(1, start), jnp.full(1, float(length)), 33, size)
    # Positions near 32 are 2e-6 apart in float32.
    np.testing.assert_allclose(weights[0], expected, atol=5e-6)


def test_resize_of_an_oblong_image_keeps_the_centre(floats):
    oblong = floats[:, :16]
    whole = augment.resize(oblong, 16)
    np.testing.assert_allclose(whole, oblong[:, :, 8:24], atol=1e-6)


def test_crop_boxes_fall_back_to_the_largest_centred_box(keys):
    # A crop larger than the image never fits.
    draws = augment.Draws.of(keys)
    boxes = augment.crop_boxes(draws, (20, 60), (1.5, 2.0), (3 / 4, 4 / 3))
    np.testing.assert_array_equal(boxes, np.tile([0, 16, 20, 27], (BATCH, 1)))


def test_factor_one_changes_nothing(floats):
    ones = jnp.ones(BATCH)
    for name in ("brightness", "contrast", "saturation"):
        np.testing.assert_array_equal(adjust[name](floats, ones), floats)
    np.testing.assert_allclose(adjust["hue"](floats, 0 * ones), floats, atol=1e-6)


def test_hue_turns_primaries_and_closes_the_circle(floats):
    red = jnp.zeros((1, 1, 1, 3)).at[..., 0].set(0.7)
    np.testing.assert_allclose(adjust["hue"](red, jnp.array([1 / 3]))[0, 0, 0], [0, 0.7, 0], atol=1e-6)
    shifts = jnp.linspace(-0.5, 0.5, BATCH)
    there_and_back = adjust["hue"](adjust["hue"](floats, shifts), -shifts)
    np.testing.assert_allclose(there_and_back, floats, atol=1e-5)


def test_saturation_zero_is_gray(floats):
    gray = colour.grayscale(floats)
    np.testing.assert_allclose(adjust["saturation"](floats, jnp.zeros(BATCH)), gray, atol=1e-6)
    np.testing.assert_allclose(gray[..., 1], np.asarray(floats) @ np.array([0.299, 0.587, 0.114]), atol=1e-6)


def test_jitter_is_the_single_operations_in_order(floats):
    operations = list(adjust.values())
    factors = np.random.RandomState(1).uniform(0.2, 1.8, (24, 4)).astype(np.float32)
    factors[:, 3] = (factors[:, 3] - 1) / 4
    image = floats[:1]
    together = jax.jit(colour.color_jitter)(jnp.repeat(image, 24, axis=0), factors, colour.ORDERS)
    for order, factor, result in zip(colour.ORDERS, factors, together):
        expected = image
        for operation in order:
            expected = operations[operation](expected, factor[operation : operation + 1])
        np.testing.assert_allclose(result, expected[0], atol=1e-5)


def test_every_order_is_drawn_equally_often():
    draws = augment.Draws.of(jax.random.split(jax.random.key(0), 24_000))
    _, orders = augment._jitter_settings(draws, STRONG)
    _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(counts) == 24 and counts.min() > 850 and counts.max() < 1150  # 1000 +- 31


def test_blur_keeps_constants_and_is_a_gaussian(floats):
    blur = jax.jit(colour.gaussian_blur, static_argnums=2)
    sigmas = jnp.linspace(0.1, 2, BATCH)
    np.testing.assert_allclose(blur(jnp.full_like(floats, 0.3), sigmas, 9), 0.3, atol=1e-6)
    impulse = jnp.zeros((1, 21, 21, 3)).at[0, 10, 10].set(1)
    taps = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
    expected = np.zeros(21)
    expected[6:15] = taps / taps.sum()
    blurred = blur(impulse, jnp.array([1.5]), 9)
    np.testing.assert_allclose(blurred[0, :, :, 0], np.outer(expected, expected), atol=1e-7)


def test_blur_kernel_of_the_paper():
    assert [augment.blur_kernel(size) for size in (224, 96, 40)] == [23, 9, 5]


def test_normalise(floats):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    normalised = augment.normalise(floats, mean, std)
    np.testing.assert_allclose(np.asarray(normalised) * std + mean, floats, atol=1e-6)
