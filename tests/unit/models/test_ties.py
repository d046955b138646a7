"""The ties between FaceMAE and the encoder: their equations, no constant solution, and that they live where they should."""

import dataclasses
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from flax import nnx

from simfle_jax import compilation, instruments
from simfle_jax.config import pretraining
from simfle_jax.errors import UserError
from simfle_jax.methods import find_method
from simfle_jax.models import ties
from simfle_jax.models.network import Seen
from simfle_jax.models.semantic_masking import mask_by_scores
from simfle_jax.models.simfle import Networks, Restored
from simfle_jax.training.published import check_published
from simfle_jax.training.step import TrainStep
from simfle_jax.views import Views

RANDOM = np.random.default_rng(0)
K1, K2, KP, Q1, Q2 = RANDOM.normal(size=(5, 24, 6)).astype("f4")
VECTORS, TARGETS = tuple(map(jnp.asarray, (K1, K2, KP))), (jnp.asarray(Q1), jnp.asarray(Q2))
KEPT = np.stack([RANDOM.permutation(9)[:4] for _ in range(24)])
CELLS, TOKENS = RANDOM.normal(size=(2, 24, 4, 5)).astype("f4")
LIVING = ("variance", "target", "patch")
BATCH = 32


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def centred(x):
    return x - x.mean(0)


# ---------------------------------------------------------------- equations


def test_variance_by_numpy():
    expected = np.square(K1 - KP).mean() + np.square(K2 - KP).mean()
    for k in (K1, K2, KP):
        covariance = np.cov(k.T)
        apart = np.square(covariance).sum() - np.square(np.diag(covariance)).sum()
        expected += np.maximum(0, 1 - np.sqrt(k.var(0) + 1e-4)).mean() + apart / 6 / 25
    np.testing.assert_allclose(ties.variance(VECTORS, TARGETS, 4.0), expected, rtol=1e-5)


def test_target_by_numpy_and_whom_it_trains():
    def distance(a, b):
        return np.square(unit(a) - unit(b)).sum(1).mean()

    expected = (
        distance(KP, centred(Q1)) + distance(KP, centred(Q2)) + distance(K1, centred(KP)) + distance(K2, centred(KP))
    ) / 2
    np.testing.assert_allclose(ties.target(VECTORS, TARGETS, 4.0), expected, rtol=1e-5)
    # FaceMAE learns from the target network alone: what the encoder gives does not move it.
    gradient = jax.grad(lambda kp, k1: ties.target((k1, *VECTORS[1:2], kp), TARGETS, 4.0))
    np.testing.assert_allclose(gradient(VECTORS[2], VECTORS[0]), gradient(VECTORS[2], 0.5 - VECTORS[0]), atol=1e-6)


def test_patch_by_a_loop_over_places_and_whom_it_trains():
    expected = []
    for image in range(24):
        for i, place in enumerate(KEPT[image]):
            same = [TOKENS[j, list(KEPT[j]).index(place)] for j in range(24) if place in KEPT[j]]
            expected.append(np.square(unit(CELLS[image, i]) - unit(TOKENS[image, i] - np.mean(same, 0))).sum())
    arguments = [jnp.asarray(x) for x in (CELLS, TOKENS, KEPT)]
    np.testing.assert_allclose(ties.patch(*arguments, 9), np.mean(expected), rtol=1e-4)
    gradients = jax.grad(lambda cells, tokens: ties.patch(cells, tokens, arguments[2], 9), argnums=(0, 1))(
        *arguments[:2]
    )
    assert np.abs(gradients[0]).max() > 0 == np.abs(gradients[1]).max(), "only the encoder's side learns"


def test_a_patch_that_one_image_keeps_breaks_nothing():
    alone = jnp.asarray([[0, 1], [0, 2], [0, 3]])
    loss, gradient = jax.value_and_grad(lambda cells: ties.patch(cells, jnp.asarray(TOKENS[:3, :2]), alone, 4))(
        jnp.asarray(CELLS[:3, :2])
    )
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_a_cell_is_tied_to_the_token_of_its_own_patch():
    """Cells and tokens that say where they are: both sides of the tie name the patches that were kept."""
    side = SimpleNamespace(config=small.config(facemae={"tie": "patch"}), distil_map=lambda rows, train: rows)
    masking = mask_by_scores(jnp.asarray(RANDOM.normal(size=(3, 16)).astype("f4")), 5)
    cells = jnp.broadcast_to(jnp.eye(16).reshape(4, 4, 16), (3, 4, 4, 16))
    latent = jnp.concatenate([jnp.full((3, 1, 1), -1.0), masking.kept[:, :, None].astype(jnp.float32)], axis=1)
    none = jnp.zeros((3, 16, 1))
    restored = Restored(none, none, masking, latent, scores=None, matrix=None, map=cells)
    of_views = Seen(*[(jnp.zeros((3, 16)),) * 2] * 3)
    of_map, of_facemae = Networks.tied(side, of_views, restored)
    np.testing.assert_array_equal(of_map.argmax(-1), masking.kept)
    np.testing.assert_array_equal(of_facemae[..., 0], masking.kept)


# ---------------------------------------------------------------- no constant solution


def test_the_published_tie_is_smallest_where_all_is_constant():
    constant = (jnp.ones((24, 6)),) * 3
    assert abs(float(ties.published(constant, TARGETS, 4.0))) < 1e-6 < ties.published(VECTORS, TARGETS, 4.0)


@pytest.mark.parametrize("value", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("tie", LIVING)
def test_constants_are_not_the_minimum(tie, value):
    """Vectors that say the same of an image are far below vectors that say the same of every image."""
    if tie == "patch":
        arguments = jnp.asarray(TOKENS), jnp.asarray(KEPT), 9
        constant = ties.patch(jnp.full((24, 4, 5), value), *arguments)
        knowing = ties.patch(ties.centred_by_place(*arguments), *arguments)
    else:
        function = ties.POOLED[tie]
        constant = function((jnp.full((24, 6), value),) * 3, TARGETS, 4.0)
        knowing = function((VECTORS[0] - VECTORS[0].mean(0),) * 3, (VECTORS[0],) * 2, 4.0)
    assert np.isfinite(constant) and constant > knowing + 0.7


# ---------------------------------------------------------------- agreement


def test_agreement_is_1_for_the_same_0_for_strangers_and_for_constants():
    kept = jnp.asarray(KEPT)

    def found(a, b):
        return instruments.of_tie((jnp.asarray(a), jnp.asarray(b)), kept, 9)

    np.testing.assert_allclose(found(K1, 5 + K1)["tie/agreement"], 1, rtol=1e-4)
    np.testing.assert_allclose(found(CELLS, CELLS)["tie/agreement"], 1, rtol=1e-4)
    assert found(K1, np.ones_like(K1))["tie/agreement"] == 0 == found(np.ones_like(K1), K1)["tie/spread"]
    np.testing.assert_allclose(found(K1, KP)["tie/spread"], K1.std(0).mean(), rtol=0.05)
    strangers = [
        found(*RANDOM.normal(size=(2, 24, *shape)).astype("f4")) for shape in ((6,), (4, 5)) for _ in range(20)
    ]
    assert abs(np.mean([one["tie/agreement"] for one in strangers])) < 0.05


# ---------------------------------------------------------------- runs


def images(step: int) -> np.ndarray:
    """Noise on a pattern of four coarse cells in colours of its own: images that a tiny network can tell apart."""
    random = np.random.default_rng(step)
    coarse = random.integers(30, 226, (BATCH, 2, 2, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + random.normal(0, 8, (BATCH, 16, 16, 3)), 0, 255).astype(np.uint8)


@cache
def trained(tie: str, masking: str = "random"):
    """A tiny network after some tens of steps: the step, its state and the last metrics."""
    config = small.config(
        batch_size=BATCH, optimizer={"name": "adam", "lr": 0.04}, facemae={"tie": tie, "masking": masking, "mask_ratio": 0.5},
        views={"scale": (0.9, 1.0), "jitter": 0.0, "gray": 0.0, "blur": (0.0, 0.0), "flip": 0.0},
    )  # fmt: skip
    train_step = TrainStep(config, 100)
    state = jax.jit(train_step.fresh_state, compiler_options=compilation.once())()
    step = jax.jit(lambda state, images: train_step(state, images))
    for number in range(60):
        state, metrics = step(state, images(number))
    return train_step, state, metrics


def networks_of(train_step, state):
    return nnx.merge(train_step.graphs[0], state.params, state.stats)


def by_tie(tie: str) -> tuple[float, float]:
    """L_d of new images, and L_d when FaceMAE sees those of its neighbours in the batch, at the same patches."""
    train_step, state, _ = trained(tie)
    fresh = jnp.asarray(images(1000), jnp.float32) / 255
    view = (fresh - 0.5) / 0.25
    draw = jnp.broadcast_to(jax.random.uniform(jax.random.key(0), (16,)), (BATCH, 16))

    @jax.jit
    def loss(faces_of_facemae):
        views = Views(view, view, view)
        (q1, q2), _ = train_step.targets(state.target_params, state.target_stats, views)
        method, networks = train_step.method, networks_of(train_step, state)
        seen, own = networks.see(views), networks.restore(views.plain, draw)
        other = networks.restore(faces_of_facemae, draw)
        restored = own._replace(latent=other.latent)
        return method.tie_loss(networks.tied(seen, restored), (q1, q2), restored)

    return float(loss(view)), float(loss(jnp.roll(view, 1, axis=0)))


@pytest.mark.parametrize("tie", LIVING)
def test_a_living_tie_tells_the_faces_of_a_batch_apart(tie):
    own, shuffled = by_tie(tie)
    assert shuffled > own + 0.15, f"{own} for its own faces, {shuffled} for others'"
    assert trained(tie)[2]["tie/agreement"] > 0.3


def test_the_published_tie_does_not():
    own, shuffled = by_tie("published")
    assert abs(shuffled - own) < 0.15 * max(own, 0.01), f"{own} for its own faces, {shuffled} for others'"
    assert abs(trained("published")[2]["tie/agreement"]) < 0.3


def test_only_patch_trains_the_trunk_by_the_plain_image():
    """Gradients of L_d in the trunk where the views are blank."""
    for tie, expected in (("patch", True), ("target", False)):
        train_step, state, _ = trained(tie)
        plain = jnp.asarray(images(7), jnp.float32) / 255
        draw = jax.random.uniform(jax.random.key(0), (BATCH, 16))

        def loss(trunk, plain, state=state, train_step=train_step, draw=draw):
            online = state.params["online"] | {"encoder": trunk}
            networks = networks_of(train_step, dataclasses.replace(state, params=state.params | {"online": online}))
            restored = networks.restore(plain, draw)
            seen = networks.see(Views(plain, plain, plain))
            seen = jax.tree.map(jax.lax.stop_gradient, seen)
            return train_step.method.tie_loss(networks.tied(seen, restored), seen.projections, restored)

        gradient = jax.jit(jax.grad(loss))(state.params["online"]["encoder"], plain)
        assert (max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient)) > 1e-6) == expected, tie


# ---------------------------------------------------------------- settings


def test_without_a_word_the_tie_is_the_published_one():
    settings = small.settings().to_dict()
    del settings["facemae"]["tie"]
    assert pretraining(settings).facemae.tie == "published"


def test_a_tie_that_cannot_be_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"facemae\.tie = 'knot' must be one of published, variance, target, patch"):
        small.config(facemae={"tie": "knot"})


def test_the_published_program_is_given_no_other_tie():
    with pytest.raises(UserError, match=r"knows no facemae\.tie = 'patch'"):
        check_published(small.config(facemae={"tie": "patch"}))


def test_a_tie_of_weight_0_is_none():
    assert not hasattr(
        find_method(small.config(facemae={"alpha": 0.0, "tie": "patch"})).networks(nnx.Rngs(0)), "distil_map"
    )
