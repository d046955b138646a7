"""The losses of SimSiam, MoCo v3 and MAE against a few lines of numpy, on outputs that are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from simfle_jax.config import pretraining
from simfle_jax.errors import UserError
from simfle_jax.methods import find_method, mae
from simfle_jax.models.network import Projected
from simfle_jax.views import Views

RANDOM = np.random.default_rng(0)
Z1, Z2, P1, P2, K1, K2 = RANDOM.normal(size=(6, 5, 8)).astype("f4")
VIEWS = Views(jnp.zeros(()), jnp.ones(()), jnp.zeros(()))  # told apart by what is in them


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Given:
    """Networks whose projections and predictions are given."""

    def online(self, view, train):
        assert train
        return Projected(jnp.zeros((5, 3)), jnp.where(view == 0, Z1, Z2))

    def predictor(self, z, train):
        """P1 of Z1 and P2 of Z2, each times its input over itself, so that gradients pass as through a network."""
        assert train
        given = jnp.where((z == Z1).all(), P1, P2)
        return given * z / jax.lax.stop_gradient(z)


def test_simsiam_is_the_mean_of_two_negative_cosines_plus_one():
    method = find_method(small.config(method="simsiam"))
    outcome = method.loss(Given(), VIEWS, None, None)
    expected = -((unit(P1) * unit(Z2)).sum(-1).mean() + (unit(P2) * unit(Z1)).sum(-1).mean()) / 2
    np.testing.assert_allclose(outcome.loss, expected + 1, rtol=1e-5)
    assert outcome.terms["loss/total"] == outcome.terms["loss/similarity"] == outcome.loss
    assert not method.has_target


def test_simsiam_stops_the_gradient_at_the_projections_that_are_predicted():
    def loss(z1, z2):
        class Traced(Given):
            def online(self, view, train):
                return Projected(jnp.zeros((5, 3)), jnp.where(view == 0, z1, z2))

        return find_method(small.config(method="simsiam")).loss(Traced(), VIEWS, None, None).loss

    def half(p, z):  # D(p, z) / 2 with z given: a projection gets the gradient of its own prediction alone
        return -((p * unit(z)).sum(-1) / jnp.linalg.norm(p, axis=-1)).mean() / 2

    first, second = jax.grad(loss, argnums=(0, 1))(jnp.asarray(Z1), jnp.asarray(Z2))
    np.testing.assert_allclose(first, jax.grad(lambda z: half(P1 * z / Z1, Z2))(jnp.asarray(Z1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(second, jax.grad(lambda z: half(P2 * z / Z2, Z1))(jnp.asarray(Z2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_moco_v3_tells_the_other_views_key_from_the_rest_of_the_batch(temperature):
    def contrast(q, k):
        logits = unit(q) @ unit(k).T / temperature
        log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return 2 * temperature * -np.diagonal(log_softmax).mean()

    method = find_method(small.config(method="moco_v3", heads={"temperature": temperature}))
    outcome = method.loss(Given(), VIEWS, (jnp.asarray(K1), jnp.asarray(K2)), None)
    np.testing.assert_allclose(outcome.loss, contrast(P1, K2) + contrast(P2, K1), rtol=1e-5)
    assert method.has_target


def test_mae_is_the_error_on_hidden_patches_normalised_within_each():
    trunk = {"kind": "vit", "stage_sizes": (1,), "width": 16, "heads": 2, "patch": 4}
    settings = small.settings(method="mae", trunk=trunk, facemae={"masking": "random", "mask_ratio": 0.75})
    config = pretraining(settings)
    plain = RANDOM.normal(size=(3, 16, 16, 3)).astype("f4")
    predicted = RANDOM.normal(size=(3, 16, 48)).astype("f4")
    draw = RANDOM.uniform(size=(3, 16)).astype("f4")
    seen = {}

    class Networks:
        class online:
            class encoder:
                @staticmethod
                def tokens(images, kept):
                    seen.update(images=images, kept=kept)
                    return jnp.ones((3, 1 + kept.shape[1], 16))

        class decoder:
            @staticmethod
            def decode(latent, masking):
                assert latent.shape == (3, 5, 16)
                return jnp.asarray(predicted)

        restore = mae.Networks.restore

    Networks.config = config
    outcome = find_method(config).loss(Networks(), Views(None, None, jnp.asarray(plain)), None, jnp.asarray(draw))
    np.testing.assert_array_equal(seen["images"], plain)
    smallest = np.argsort(draw, 1)[:, :4]
    np.testing.assert_array_equal(seen["kept"], smallest)
    errors = []
    for image in range(3):
        for patch in set(range(16)) - set(smallest[image]):
            row, column = divmod(patch, 4)
            pixels = plain[image, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(-1)
            target = (pixels - pixels.mean()) / np.sqrt(pixels.var(ddof=1) + 1e-6)
            errors.append(np.square(predicted[image, patch] - target).mean())
    np.testing.assert_allclose(outcome.loss, np.mean(errors), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "no encoder whose channels could choose patches"),
        ({"facemae": {"masking": "random"}}, "masks patches of a ViT"),
        (
            {"facemae": {"masking": "random"},
             "trunk": {"kind": "vit", "stage_sizes": (1,), "width": 16, "heads": 2, "patch": 8}},
            "facemae.patch = 4 must be trunk.patch = 8",
        ),
    ],
)  # fmt: skip
def test_mae_without_a_fitting_vit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        pretraining(small.settings(method="mae", **changes))
