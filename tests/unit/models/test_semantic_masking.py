"""Scoring and choosing patches."""

import jax
import jax.numpy as jnp
import numpy as np
import small

from simfle_jax.instruments import agreement, effective_rank, spread
from simfle_jax.methods import find_method
from simfle_jax.models.facemae import patchify, unpatchify
from simfle_jax.models.semantic_masking import cells_to_patches, group_maps, mask_by_scores, patch_scores

G = np.random.default_rng(0)


def test_cells_to_patches_equals_enlarging_and_averaging():
    from PIL import Image

    cells = G.random((4, 4)).astype(np.float32)
    # Pillow enlarges with the same half-pixel centres and clamps at the border.
    large = np.asarray(Image.fromarray(cells).resize((112, 112), Image.Resampling.BILINEAR))
    expected = large.reshape(7, 16, 7, 16).mean((1, 3))
    matrix = cells_to_patches(4, 7, 16)
    np.testing.assert_allclose(matrix @ cells @ matrix.T, expected, atol=1e-5)
    np.testing.assert_allclose(matrix.sum(1), 1)


def test_scores_keep_images_and_groups_apart():
    activation = G.random((3, 4, 4, 6)).astype(np.float32)
    scores = patch_scores(group_maps(jnp.asarray(activation), 2), 7, 16)
    matrix = cells_to_patches(4, 7, 16)
    expected = matrix @ activation[1, :, :, 3:].sum(-1) @ matrix.T
    np.testing.assert_allclose(scores[1, 1].reshape(7, 7), expected, rtol=1e-4)


def test_kept_and_masked_patches_are_a_partition():
    scores = jnp.asarray(G.random((5, 9)))
    masking = mask_by_scores(scores, 4)
    for b in range(5):
        kept = set(np.asarray(masking.kept[b]).tolist())
        assert kept == set(np.argsort(-np.asarray(scores[b]))[:4].tolist())
        assert kept == set(np.flatnonzero(np.asarray(masking.masked[b]) == 0).tolist())
        order = np.empty(9, int)
        order[np.asarray(masking.restore[b])] = np.arange(9)
        assert sorted(order.tolist()) == list(range(9))


def test_equal_scores_keep_the_first_patches():
    assert np.asarray(mask_by_scores(jnp.zeros((1, 6)), 2).kept).tolist() == [[0, 1]]


def test_patchify_and_back():
    images = G.random((2, 8, 8, 3))
    patches = patchify(jnp.asarray(images), 4)
    np.testing.assert_array_equal(np.asarray(patches)[1, 2], np.asarray(jnp.asarray(images))[1, 4:, :4].reshape(-1))
    np.testing.assert_array_equal(unpatchify(patches, 4), jnp.asarray(images))


def test_agreement_of_equal_and_of_disjoint_groups():
    same = np.repeat(G.random((2, 1, 10)), 3, 1)
    assert float(agreement(jnp.asarray(same), 4)) == 1
    disjoint = np.zeros((1, 2, 8))
    disjoint[0, 0, :4] = disjoint[0, 1, 4:] = 1
    assert float(agreement(jnp.asarray(disjoint), 4)) == 0


def test_agreement_of_unrelated_choices():
    # Twelve of 49 patches at random overlap by .14 on average.
    assert abs(float(agreement(jnp.asarray(G.random((64, 8, 49))), 12)) - 0.141) < 0.01


def test_spread_and_effective_rank():
    z = G.normal(size=(256, 8))
    assert abs(float(spread(jnp.asarray(z))) - 1) < 0.05
    assert float(effective_rank(jnp.asarray(z))) > 7
    line = np.outer(np.sign(z[:, 0]), np.ones(8))
    assert abs(float(effective_rank(jnp.asarray(line))) - 1) < 1e-3
    assert float(spread(jnp.ones((16, 8)))) < 1e-3


def test_a_block_is_the_patches_around_a_point_that_may_lie_anywhere():
    method = find_method(small.config(facemae={"masking": "block"}))
    grid = method.config.grid
    keys = jax.random.split(jax.random.key(0), 400)
    kept = np.asarray(mask_by_scores(-method.draw(keys), 4).kept)
    rows, columns = np.divmod(kept, grid)
    assert np.ptp(rows, 1).max() <= 3 and np.ptp(columns, 1).max() <= 3, "four patches that touch"
    assert (np.ptp(rows, 1) + np.ptp(columns, 1)).mean() < 3
    counts = np.bincount(kept[:, 0], minlength=grid**2)  # the nearest patch is the one that the point lies in
    assert counts.min() > 10 and counts.max() < 45, f"25 each are expected, {counts}"
