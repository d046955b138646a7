"""Laws of a step: what its chance depends on, whom the views learn from, how the target follows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from simfle_jax import compilation
from simfle_jax.training.state import trunk_of
from simfle_jax.training.step import Statistics, TrainStep
from simfle_jax.views import Views, image_keys


@pytest.fixture(scope="module")
def train_step():
    return TrainStep(small.config(ema_decay=0.75, method="byol"), 10)


@pytest.fixture(scope="module")
def state(train_step):
    return first_state(train_step)


def first_state(train_step, choose=lambda state: state):
    return jax.jit(lambda: choose(train_step.fresh_state()), compiler_options=compilation.once())()


def keys(seed: int, step: int, batch: int) -> list:
    return np.asarray(jax.random.key_data(image_keys(seed, jnp.asarray(step), batch))).tolist()


def test_an_image_has_a_key_by_seed_step_and_index_alone():
    assert keys(5, 3, 8)[:4] == keys(5, 3, 4), "the batch it is in does not matter"
    found = [tuple(key) for seed in (5, 6) for step in (3, 4) for key in keys(seed, step, 4)]
    assert len(set(found)) == len(found)


def test_another_seed_is_another_network(train_step, state):
    def kernel(state):
        return state.params["online"]["encoder"]["conv1"]["kernel"]

    other = first_state(TrainStep(dataclasses.replace(train_step.config, seed=1), 10), kernel)
    assert np.abs(kernel(state) - other).max() > 0.1


def test_a_fresh_target_is_a_copy_of_the_online_network(state):
    jax.tree.map(np.testing.assert_array_equal, state.target_params, state.params["online"])
    jax.tree.map(np.testing.assert_array_equal, state.target_stats, state.stats["online"])


@pytest.mark.parametrize("branch", ["online", "target"])
def test_the_trunk_is_that_of_the_branch_which_is_asked_for(branch, state):
    apart = dataclasses.replace(
        state, target_params=jax.tree.map(jnp.zeros_like, state.target_params),
        target_stats=jax.tree.map(jnp.zeros_like, state.target_stats),
    )  # fmt: skip
    encoder = {
        "online": (apart.params["online"], apart.stats["online"]),
        "target": (apart.target_params, apart.target_stats),
    }
    expected = dict(zip(("params", "stats"), (tree["encoder"] for tree in encoder[branch])))
    jax.tree.map(np.testing.assert_array_equal, trunk_of(apart, branch), expected)


def assert_follows(train_step, state, share):
    """After a step the target network, at 0 before, has this share of the online network."""
    zeros, ones = (jax.tree.map(make, state.target_params) for make in (jnp.zeros_like, jnp.ones_like))
    apart = dataclasses.replace(state, params=state.params | {"online": ones}, target_params=zeros)
    still = jax.tree.map(jnp.zeros_like, state.params)
    updated = train_step.update(apart, still, Statistics(state.stats, state.target_stats))
    # The online network after its own step, which decays its weights a little.
    jax.tree.map(
        lambda target, online: np.testing.assert_allclose(target, share * online, rtol=1e-6),
        updated.target_params, updated.params["online"],
    )  # fmt: skip
    assert int(updated.step) == int(state.step) + 1


def test_the_target_follows_by_its_moving_average(train_step, state):
    assert_follows(train_step, state, share=0.25)


def test_the_target_follows_by_the_decay_of_its_step(state):
    """Half way, the cosine from 0.75 to 1 is at 0.875."""
    rising = small.config(epochs=2, ema_decay=0.75, method="byol", optimizer={"ema_schedule": "cosine"})
    assert_follows(TrainStep(rising, 10), dataclasses.replace(state, step=jnp.asarray(10)), share=0.125)


def test_each_view_learns_from_the_target_of_the_other(train_step, state):
    different, equal = np.random.default_rng(0).normal(size=(4, 16, 16, 3)), np.ones((4, 16, 16, 3))
    project = jax.jit(train_step.targets, compiler_options=compilation.once())
    views = Views(*np.stack([different, equal]).astype(np.float32), plain=None)
    (q1, q2), _ = project(state.target_params, state.target_stats, views)
    assert np.std(q1, 0).max() < 1e-3 < 0.1 < np.std(q2, 0).max(), (
        "the first view's target is made from the second view"
    )


@pytest.mark.parametrize("taken", [False, True])
def test_plain_images_enter_the_running_averages_only_where_they_are_to(taken, train_step):
    """Without them the averages after a step are those of BYOL, which sees the same views; with them they are not."""
    facemae = {"plain_in_averages": taken, "tie": "patch", "alpha": 0.3}
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8))

    def averages(step):
        return step(step.fresh_state(), images)[0].stats["online"]["encoder"]

    ours, byols = (
        jax.tree.leaves(jax.jit(averages, static_argnums=0, compiler_options=compilation.once())(step))
        for step in (TrainStep(small.config(ema_decay=0.75, facemae=facemae), 10), train_step)
    )
    same = [np.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(ours, byols, strict=True)]
    assert all(same) if not taken else not any(same)
