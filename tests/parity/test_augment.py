"""The augmentations against torchvision's on PIL images, which go through uint8 after every operation."""

import jax
import numpy as np
import pytest

from simfle_jax import augment, colour
from simfle_jax.canvases import Canvases


@pytest.fixture(scope="module")
def values(golden):
    with np.load(golden / "augment.npz") as file:
        return dict(file)


@pytest.fixture
def crop(values):
    return augment.to_float(values["crop"])


def mean_levels(images, expected, to_uint8):
    """Mean absolute difference in 8-bit levels, stored as PIL does: resizing and gray round, others cut."""
    levels = to_uint8(np.asarray(images, np.float64) * 255 + 1e-4)
    return np.abs(levels - expected.astype(np.float64)).mean()


def test_crop_and_resize(values):
    images = augment.crop_and_resize(augment.to_float(values["images"]), values["boxes"], 64)
    assert mean_levels(images, values["crop"], np.round) < 1
    # Far closer than the tolerance: nothing but the rounding to uint8 lies between.
    assert np.abs(np.asarray(images) * 255 - values["crop"]).max() < 1.6


def test_crop_of_an_image_in_the_corner_of_a_larger_canvas(values):
    """As the host hands over images that are smaller than the canvas; torchvision crops the stored image."""
    stored = values["images"]
    canvas = np.full((len(stored), 2 * stored.shape[1], 2 * stored.shape[2], 3), 255, np.uint8)
    canvas[:, : stored.shape[1], : stored.shape[2]] = stored
    images = augment.crop_and_resize(augment.to_float(canvas), values["boxes"], 64)
    assert np.abs(np.asarray(images) * 255 - values["crop"]).max() < 1.6


@pytest.mark.parametrize("image, size", [(0, 112), (1, 48)])
def test_plain_view_of_an_image_in_the_corner_of_a_larger_canvas(values, image, size):
    stored = values["images"][image]
    canvas = np.full((1, 2 * len(stored), 2 * len(stored), 3), 255, np.uint8)
    canvas[0, : len(stored), : len(stored)] = stored
    plain = augment.plain_view(Canvases(canvas, np.array([len(stored)], np.int32)), size)
    assert mean_levels(plain, values[f"eval_resize{size}"][None], np.round) < 1


def test_flip(values):
    flip = np.ones(len(values["boxes"]), bool)
    planes = augment._crop_planes(augment.to_float(values["images"]), values["boxes"], 64, flip)
    assert mean_levels(colour.to_images(planes), values["flip"], np.round) < 1


@pytest.mark.parametrize(
    "name, column, levels", [("brightness", 0, 1), ("contrast", 1, 1), ("saturation", 2, 1), ("hue", 3, 2)]
)
def test_colour(values, crop, name, column, levels):
    factors = values["factors"][:, column].astype(np.float32)
    images = getattr(colour, f"adjust_{name}")(crop, factors)
    assert mean_levels(images, values[name], np.floor) < levels


def test_gray(values, crop):
    assert mean_levels(colour.grayscale(crop), values["gray"], np.round) < 1


def test_blur(values, crop):
    images = colour.gaussian_blur(crop, values["sigmas"].astype(np.float32), 7)
    assert mean_levels(images, values["blur"], np.floor) < 1


def test_chain_in_every_images_own_order(values):
    flipped = augment.to_float(values["flip"])
    images = colour.color_jitter(flipped, values["factors"].astype(np.float32), values["orders"])
    images = colour.gaussian_blur(images, values["sigmas"].astype(np.float32), 7)
    assert mean_levels(images, values["chain"], np.floor) < 2


@pytest.mark.parametrize("image, size", [(0, 112), (1, 48)])
def test_plain_view(values, image, size):
    plain = augment.plain_view(values["images"][image : image + 1], size)
    assert mean_levels(plain, values[f"eval_resize{size}"][None], np.round) < 1


def test_random_crop_distribution(values):
    keys = jax.random.split(jax.random.key(0), 50_000)
    draws = augment.Draws.of(keys)
    top, left, height, width = np.asarray(augment.crop_boxes(draws, (96, 96), (0.08, 1.0), (3 / 4, 4 / 3))).T
    assert top.min() == 0 and left.min() == 0
    assert (top + height).max() == 96 and (left + width).max() == 96

    area, log_aspect = height * width / 96**2, np.log(width / height)
    shares = np.linspace(0.05, 0.95, 19)
    # Two samples of 50,000: a quantile's standard error is below .004 for the area, .003 for the aspect.
    np.testing.assert_allclose(np.quantile(area, shares), values["rrc_area_quantiles"], atol=0.015)
    aspect_quantiles = np.quantile(log_aspect, shares)
    np.testing.assert_allclose(aspect_quantiles, values["rrc_log_aspect_quantiles"], atol=0.012)
    np.testing.assert_allclose([area.mean(), area.std()], values["rrc_area_mean_std"], atol=0.006)
