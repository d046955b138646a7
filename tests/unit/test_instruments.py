"""Instruments against numpy, and that they change nothing of what they watch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from simfle_jax import augment, compilation, instruments
from simfle_jax.training.step import TrainStep
from simfle_jax.views import Facts, image_keys, make_views

RANDOM = np.random.default_rng(0)
KNOWN, OTHER = RANDOM.normal(size=(2, 40, 3)).astype("f4")
NOISE = RANDOM.normal(size=(40, 6)).astype("f4")


def by_least_squares(known: np.ndarray, features: np.ndarray) -> float:
    """The adjusted R^2 of textbooks."""
    design = np.c_[np.ones(len(known)), known]
    left = features - design @ np.linalg.lstsq(design, features, rcond=None)[0]
    share = 1 - np.square(left).sum() / np.square(features - features.mean(0)).sum()
    n, k = known.shape
    return 1 - (1 - share) * (n - 1) / (n - 1 - k)


@pytest.mark.parametrize("weight", [0, 0.3, 1, 30])
def test_the_explained_share_is_that_of_least_squares(weight):
    features = 5 + weight * KNOWN @ RANDOM.normal(size=(3, 6)).astype("f4") + NOISE
    found = instruments.explained(jnp.asarray(KNOWN), jnp.asarray(features))
    np.testing.assert_allclose(found, by_least_squares(KNOWN, features), atol=1e-5)


def test_all_of_a_linear_function_is_explained_and_nothing_of_chance():
    assert instruments.explained(jnp.asarray(KNOWN), jnp.asarray(KNOWN @ KNOWN[:3] + 7)) > 0.9999
    chance = [
        instruments.explained(jnp.asarray(known), jnp.asarray(NOISE)) for known in RANDOM.normal(size=(200, 40, 3))
    ]
    assert abs(np.mean(chance)) < 0.02, "many images or few, unrelated numbers explain nothing on average"


@pytest.mark.parametrize(
    "known", [np.zeros((40, 2)), np.full((40, 1), 0.37), np.c_[KNOWN[:, :1], KNOWN[:, :1] * 2 + 1]]
)
def test_columns_that_say_nothing_new_add_nothing(known):
    """Grey photographs have no colour; a column twice is one."""
    known, features = known.astype("f4"), NOISE + KNOWN[:, :1]
    columns, images = known.shape[1], len(known)
    alone = (
        by_least_squares(KNOWN[:, :1], features)
        if columns == 2 and known.any()
        else by_least_squares(np.zeros((40, 1)), features)
    )
    share = 1 - (1 - alone) * (images - 2) / (images - 1)
    expected = 1 - (1 - share) * (images - 1) / (images - 1 - columns)
    np.testing.assert_allclose(instruments.explained(jnp.asarray(known), jnp.asarray(features)), expected, atol=1e-4)


@pytest.mark.parametrize("images", [2, 3, 4])
def test_too_few_images_and_features_without_variance_give_numbers(images):
    assert instruments.explained(jnp.asarray(KNOWN[:images]), jnp.asarray(NOISE[:images])) == 0
    assert np.isfinite(instruments.explained(jnp.asarray(KNOWN), jnp.zeros((40, 6))))


def test_a_planted_shortcut_is_seen_by_its_instrument_and_by_no_other():
    facts = Facts(*(jnp.asarray(x) for x in (KNOWN[:, :1], KNOWN[:, 1:], RANDOM.normal(size=(40, 4)).astype("f4"))))
    for name, known in (("brightness", facts.brightness), ("colour", facts.colour), ("place", facts.place)):
        features = 3 * known @ RANDOM.normal(size=(known.shape[1], 6)).astype("f4") + NOISE
        found = instruments.of_features(jnp.asarray(features), facts)
        assert found.pop(f"shortcut/{name}") > 0.6
        assert max(abs(value) for key, value in found.items() if key.startswith("shortcut/")) < 0.25


def test_pooled_rank_counts_directions():
    directions = np.linalg.qr(RANDOM.normal(size=(6, 6)))[0][:3].astype("f4")
    for count in (1, 2, 3):
        scores = np.linalg.qr(OTHER - OTHER.mean(0))[0][:, :count].astype("f4")
        found = instruments.of_features(jnp.asarray(9 + scores @ directions[:count]), None)
        np.testing.assert_allclose(found["features/pooled_rank"], count, rtol=1e-3)


def test_the_place_of_a_crop_is_where_the_view_was_cut():
    """A bright spot in the canvas moves in the view against the crop's centre, also when the view is flipped."""
    images = np.zeros((64, 32, 32, 3), np.uint8)
    images[:, 15:17, 15:17] = 255
    config = small.config(views={"scale": (0.5, 1.0), "jitter": 0.0, "gray": 0.0, "blur": (0.0, 0.0), "size": 32})
    views = make_views(image_keys(1, jnp.asarray(0), len(images)), images, config)
    light = np.asarray(views.first).mean(-1)
    light -= light.min((1, 2), keepdims=True)
    at = (np.arange(32) + 0.5) / 32 - 0.5
    down, across, height, width = np.asarray(views.facts.place).T
    for axis, centre, side in ((2, down, height), (1, across, width)):
        where = (light.sum(axis) * at).sum(1) / light.sum((1, 2))
        np.testing.assert_allclose(where, -centre / side, atol=0.02)


def test_mean_colour_is_luma_and_what_red_and_blue_differ_by():
    grey = np.full((1, 4, 4, 3), 0.3, np.float32)
    luma, colour = augment.mean_colour(
        jnp.asarray(np.concatenate([grey, grey * [2, 1, 1], grey * [1, 1, 2]]), jnp.float32)
    )
    np.testing.assert_allclose(luma[:, 0], [0.3, 0.3 + 0.3 * 0.299, 0.3 + 0.3 * 0.114], rtol=1e-5)
    np.testing.assert_allclose(colour, [[0, 0], [0.2103, -0.0897], [-0.0342, 0.2658]], atol=1e-4)


@pytest.mark.parametrize("method", ["simfle", "byol", "simsiam"])
def test_instruments_change_no_bit_of_a_run(method, monkeypatch):
    """The step with them and the step without give the same state after three steps."""
    config = small.config(method=method, views={"standardise": "image"})
    batches = np.random.default_rng(3).integers(0, 256, (3, 8, 16, 16, 3), np.uint8)

    def end():
        train_step = TrainStep(config, 10)
        state = jax.jit(train_step.fresh_state, compiler_options=compilation.once())()
        step = jax.jit(lambda state, images: train_step(state, images), compiler_options=compilation.training_options())
        for images in batches:
            state, metrics = step(state, images)
        return state, metrics

    watched, metrics = end()
    assert {"features/pooled_rank", "shortcut/brightness", "shortcut/colour", "shortcut/place"} <= metrics.keys()
    for name in ("of_features", "of_projections", "of_groups", "of_tie"):
        monkeypatch.setattr(instruments, name, lambda *args: {})
    alone, metrics = end()
    assert not any(name.startswith(("features/", "shortcut/", "tie/")) for name in metrics)
    for one, other in zip(jax.tree.leaves(watched), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(one, other)
