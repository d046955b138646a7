"""Which images may be shown, and what pictures are made of them."""

import json

import numpy as np
import pytest

from simfle_jax.errors import UserError
from simfle_jax.evaluation.looking import Look, best_patches
from simfle_jax.reporting import atlas, confusions, features
from simfle_jax.reporting.images import LIMIT, Album, is_generated, landmarks, spread_rows


def look(groups=3):
    rng = np.random.default_rng(0)
    images, scores = rng.random((2, 16, 16, 3)), rng.random((2, groups, 16)) if groups else None
    kept = best_patches(scores[:, 0], 4) if groups else np.arange(16) < np.full((2, 1), 4)
    return Look(5, images, images, kept, np.zeros((2, 16)), np.array([0, 0]) if groups else None, scores, None)


def test_an_album_holds_no_more_than_its_limit():
    album = Album(True)
    assert sum(album.admit([str(i) for i in range(500)])) == LIMIT == len(album.shown)
    assert album.admit(["0", "new"]) == [True, False]
    assert not any(Album(False).admit(["0"]))


def test_generated_faces_are_known_by_their_file(tmp_path):
    (tmp_path / "train").mkdir()
    assert not is_generated(tmp_path / "train")
    (tmp_path / "faces.json").write_text(json.dumps({"size": 32}))
    assert is_generated(tmp_path / "train") and is_generated(tmp_path)
    np.savez(tmp_path / "landmarks.npz", name=np.array(["val/a/1.jpg"]), points=np.full((1, 68, 2), 16.0))
    assert landmarks(tmp_path, ["val/a/1.jpg"])[0, 0].tolist() == [0.5, 0.5]
    assert landmarks(tmp_path, ["val/a/2.jpg"]) is None
    (tmp_path / "faces.json").write_text(json.dumps({"size": "32"}))
    with pytest.raises(UserError, match=r"faces.json is damaged .*: draw the faces again"):
        landmarks(tmp_path, ["val/a/1.jpg"])
    np.savez(tmp_path / "landmarks.npz", name=np.array(["val/a/1.jpg"]), points=np.full((1, 3, 2), 16.0))
    with pytest.raises(UserError, match=r"landmarks.npz is damaged, it holds no landmarks: draw the faces again"):
        landmarks(tmp_path, ["val/a/1.jpg"])


def test_rows_are_spread_over_a_listing():
    assert (
        spread_rows(9, 3).tolist() == [0, 4, 8] and spread_rows(2, 5).tolist() == [0, 1] and not len(spread_rows(0, 3))
    )


def test_hidden_patches_are_dark_and_kept_ones_are_not():
    image, kept = np.ones((8, 8, 3)), np.array([True, False, False, False])
    found = atlas.masked(image, kept)
    assert (found[:4, :4] == 1).all() and (found[4:] == atlas.HIDDEN).all() and (found[:4, 4:] == atlas.HIDDEN).all()


def test_an_atlas_has_a_column_for_each_group_and_one_for_random_masking():
    grouped, random = atlas.mask_atlas(look(3), side=20), atlas.mask_atlas(look(0), side=20)
    assert (grouped.width, random.width) == (4 * 23, 2 * 23) and grouped.height == random.height == atlas.HEAD + 2 * 23
    both = atlas.beside([grouped, random], ["one", "two"])
    assert both.width > grouped.width + random.width - 1
    assert atlas.reconstructions(look(3)).width > atlas.reconstructions(look(0)).width
    assert (
        atlas.map_atlas(look(3), 20).size == grouped.size
        and atlas.all_groups(look(0), 0)
        and atlas.all_groups(look(20), 0)
    )


def test_principal_components_are_those_of_the_directions():
    rows = np.random.default_rng(0).normal(size=(50, 6))
    places, shares = features.pca(rows)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.svd(unit - unit.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(shares, values[:2] / values.sum(), rtol=1e-4)
    np.testing.assert_allclose((places**2).sum(0), values[:2], rtol=1e-4)


def test_neighbours_are_others():
    rows = np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])
    near, cosines = features.neighbours(rows, np.array([0, 2]), 2)
    assert near[:, 0].tolist() == [1, 3] and cosines[0, 0] > 0.99 and 0 not in near[0]


def test_the_worst_mistakes_are_the_surest_ones():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    found = confusions.worst_mistakes(probabilities, np.array([0, 0, 0, 1]), 5)
    assert [(m.row, m.true, m.predicted) for m in found] == [(1, 0, 1), (2, 0, 1)]
