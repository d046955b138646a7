"""Images in the corner of a larger square give the views that they give alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from simfle_jax import augment
from simfle_jax.canvases import Canvases, largest_canvas, of_batch
from simfle_jax.config import ViewSettings

CANVAS, SIDES = 40, (40, 9, 23, 32, 1)
VIEWS = ViewSettings(
    size=24, plain_size=16, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, jitter=0.8,
    brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, gray=0.2, blur=(0.1, 2.0),
)  # fmt: skip
KEYS = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(len(SIDES)))


@pytest.fixture(scope="module")
def alone():
    random = np.random.RandomState(0)
    return [random.randint(0, 256, (side, side, 3)).astype(np.uint8) for side in SIDES]


@pytest.fixture(scope="module")
def together(alone):
    """With noise beside the images, which nothing may look at."""
    pixels = np.random.RandomState(1).randint(0, 256, (len(SIDES), CANVAS, CANVAS, 3)).astype(np.uint8)
    for place, image in zip(pixels, alone):
        place[: len(image), : len(image)] = image
    return Canvases(pixels, np.array(SIDES, np.int32))


def test_two_views_are_those_of_the_images_alone(alone, together):
    views = augment.two_views(KEYS, together, VIEWS)
    for row, image in enumerate(alone):
        expected = augment.two_views(KEYS[row : row + 1], image[None], VIEWS)
        for view, other in zip(views, expected):
            np.testing.assert_allclose(view[row], other[0], atol=2e-5, err_msg=f"side {len(image)}")


def test_the_plain_view_and_the_probes_are_those_of_the_images_alone(alone, together):
    plain = augment.plain_view(together, 16)
    probes = augment.random_crop_and_flip(KEYS, together, 24, (0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    for row, image in enumerate(alone):
        one = KEYS[row : row + 1], image[None]
        np.testing.assert_allclose(plain[row], augment.plain_view(one[1], 16)[0], atol=5e-6)
        expected = augment.random_crop_and_flip(*one, 24, (0.08, 1.0), (3 / 4, 4 / 3), 0.5)
        np.testing.assert_allclose(probes[row], expected[0], atol=5e-6)


def test_a_crop_is_torchvisions_of_the_original_image(alone, together):
    """Box in whole pixels of the stored image, cut out of it, resized by Pillow: a view of 24 pixels of one of 9."""
    crops_only = dataclasses.replace(VIEWS, flip=0.0, jitter=0.0, gray=0.0, blur=(0.0, 0.0))
    views, _ = augment.two_views(KEYS, together, crops_only)
    draws = jax.tree.map(lambda x: x[::2], augment.Draws.of(KEYS, 2))
    sides = together.sides[:, None]
    boxes = np.asarray(augment.crop_boxes(draws, (sides, sides), VIEWS.scale, VIEWS.ratio), int)
    for row, (image, (top, left, height, width)) in enumerate(zip(alone, boxes)):
        assert top + height <= len(image) and left + width <= len(image) and min(height, width) >= 1
        cut = image[top : top + height, left : left + width].astype(np.float32) / 255
        bands = [Image.fromarray(cut[..., c]).resize((24, 24), Image.Resampling.BILINEAR) for c in range(3)]
        np.testing.assert_allclose(views[row], np.stack(bands, -1), atol=1e-5, err_msg=f"side {len(image)}")


def test_the_largest_canvas_holds_every_view_twice():
    assert [largest_canvas(size) for size in (224, 96, 48, 40, 50)] == [448, 192, 96, 80, 112]


def test_a_batch_without_sides_fills_its_squares():
    pixels, sides = np.zeros((2, 8, 8, 3), np.uint8), np.array([8, 3], np.int32)
    assert of_batch({"image": pixels}) is pixels
    found = of_batch({"image": pixels, "side": sides})
    assert isinstance(found, Canvases) and found.sides is sides and len(found) == 2
