"""What a run looks at: masks as in training, reconstructions in pixels, and baselines of their error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from simfle_jax.evaluation.looking import PARTS, best_patches, landmark_hits, look
from simfle_jax.evaluation.reconstruction import nearest_kept, reconstruction_errors
from simfle_jax.models.semantic_masking import mask_by_scores
from simfle_jax.training.step import TrainStep
from simfle_jax.views import in_pixels, plain_images

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


def fresh(config):
    return jax.jit(TrainStep(config, 1).fresh_state)()


@pytest.mark.parametrize("standardise", ["dataset", "image"])
def test_pixels_come_back_from_their_normalisation(standardise):
    config = small.config(views={"standardise": standardise})
    np.testing.assert_allclose(in_pixels(plain_images(IMAGES, config), IMAGES, config), IMAGES / 255, atol=2e-5)


def test_what_is_visible_is_pasted_and_the_rest_is_not_noise():
    config = small.config()
    found = look(config, fresh(config), IMAGES)
    assert found.scores.shape == (4, 4, 16) and found.matrix.shape[0] % 4 == 0 and found.grid == 4
    assert (found.kept.sum(1) == config.kept_patches).all()
    own = found.scores[np.arange(4), found.drawn]
    np.testing.assert_array_equal(found.kept, best_patches(own, config.kept_patches))
    patches, restored = (
        x.reshape(4, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(4, 16, -1) for x in (found.images, found.restored)
    )
    np.testing.assert_array_equal(restored[found.kept], patches[found.kept])
    assert np.abs(restored - patches)[~found.kept].max() > 0.01 and not found.error[found.kept].any()
    # With the statistics of the patch given back its mean is about right, however little the decoder knows.
    assert np.abs(restored.mean(-1) - patches.mean(-1)).max() < 0.35


def test_what_is_seen_in_an_image_does_not_hang_on_the_others():
    config = small.config()
    state = fresh(config)
    np.testing.assert_allclose(
        look(config, state, IMAGES).scores[:2], look(config, state, IMAGES[:2]).scores, atol=1e-5
    )


def test_random_masking_has_no_groups_and_byol_nothing_to_see():
    config = small.config(facemae={"masking": "random"})
    found = look(config, fresh(config), IMAGES)
    assert found.scores is None and found.drawn is None and (found.kept.sum(1) == config.kept_patches).all()
    config = small.config(method="byol")
    assert look(config, fresh(config), IMAGES) is None


def test_the_patches_of_a_group_are_those_of_the_training_step():
    scores = np.random.default_rng(1).integers(0, 4, (3, 16)).astype(np.float32)  # with ties
    np.testing.assert_array_equal(best_patches(scores, 5), mask_by_scores(jnp.asarray(scores), 5).masked < 0.5)


def test_the_nearest_kept_patch():
    patches = jnp.arange(9.0).reshape(1, 9, 1)
    masked = jnp.asarray([[0, 1, 1, 1, 1, 1, 1, 1, 0]])
    found = nearest_kept(patches, masked)[0, :, 0]
    assert found[jnp.asarray([0, 1, 3, 5, 7, 8])].tolist() == [0, 0, 0, 8, 8, 8]


def test_errors_beside_those_of_two_guesses():
    config = small.config()
    errors = reconstruction_errors(config, fresh(config), IMAGES, IMAGES)
    assert set(errors) == {"facemae", "mean_image", "nearest_patch"}
    assert 1.5 < errors["nearest_patch"] < 2.5  # of noise: copies are as wrong as two independent draws


def test_the_error_of_an_image_does_not_depend_on_the_others():
    config = small.config()
    state, others = fresh(config), (IMAGES, IMAGES // 4)

    def error(*halves: np.ndarray) -> float:
        return reconstruction_errors(config, state, np.concatenate(halves), IMAGES)["facemae"]

    # Each half keeps its place, and so its groups.
    together = error(others[0], others[0]) + error(others[1], others[1])
    assert error(others[0], others[1]) + error(others[1], others[0]) == pytest.approx(together, rel=1e-6)


def test_hits_count_landmarks_over_chance():
    points = np.full((1, 68, 2), 0.1)
    points[:, PARTS["mouth"]] = 0.9
    kept = np.zeros((1, 2, 16), bool)
    kept[:, 0, 15], kept[:, 1, 0] = True, True
    hits = dict(zip(PARTS, landmark_hits(kept, points).T, strict=True))
    assert hits["mouth"].tolist() == [16, 0] and hits["eyes"].tolist() == [0, 16]
