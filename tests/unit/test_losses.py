"""The losses against second ways of computing them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simfle_jax import losses

G = np.random.default_rng(0)


def test_similarity_is_the_squared_distance_of_unit_vectors():
    p, q = G.normal(size=(2, 5, 7))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (p, q)]
    np.testing.assert_allclose(losses.similarity(p, q), np.square(unit[0] - unit[1]).sum(1), rtol=1e-5)


def test_distillation_is_zero_for_equals_and_positive_else():
    p, q = jnp.asarray(G.normal(size=(2, 5, 7)))
    assert abs(losses.distillation(p, p, 4.0)) < 1e-6
    assert losses.distillation(p, q, 4.0) > 0


def test_the_teacher_of_mutual_distillation_gets_no_gradient():
    students = list(jnp.asarray(G.normal(size=(3, 4, 6))))
    teacher = sum(students) / 3
    grad = jax.grad(lambda s: losses.mutual_distillation([s, *students[1:]], 2.0))(students[0])
    alone = jax.grad(lambda s: losses.distillation(s, teacher, 2.0))(students[0])
    np.testing.assert_allclose(grad, alone, atol=1e-6)


def test_reconstruction_by_a_loop():
    predicted, patches = G.normal(size=(2, 2, 3, 12))
    masked = np.array([[1, 0, 1], [0, 1, 0]], float)
    errors = []
    for b, n in zip(*np.nonzero(masked)):
        target = (patches[b, n] - patches[b, n].mean()) / np.sqrt(patches[b, n].var(ddof=1) + 1e-6)
        errors.append(np.square(predicted[b, n] - target).mean())
    np.testing.assert_allclose(losses.reconstruction(predicted, patches, masked), np.mean(errors), rtol=1e-5)


def test_grouping_matrix_and_separation_by_loops():
    activation = np.abs(G.normal(size=(3, 2, 2, 8)))
    maps = activation.reshape(3, 4, 8) + 0.001
    maps /= np.linalg.norm(maps, axis=1, keepdims=True)
    expected = np.mean([m.T @ m for m in maps], 0)
    matrix = losses.grouping_matrix(jnp.asarray(activation))
    np.testing.assert_allclose(matrix, expected, rtol=1e-4)
    within = [expected[i, j] for i in range(8) for j in range(8) if i != j and i // 4 == j // 4]
    between = [expected[i, j] for i in range(8) for j in range(8) if i // 4 != j // 4]
    np.testing.assert_allclose(losses.separation(matrix, 2), np.mean(within) - np.mean(between), rtol=1e-4)


def test_identical_channels_give_the_published_start():
    # The constant initialisation at paper size: 0.001 * (2048^2 - 32 * 64^2) / 16.
    assert float(losses.grouping(jnp.ones((2048, 2048)), 32)) == pytest.approx(253.952, rel=1e-5)
    assert float(losses.separation(jnp.ones((64, 64)), 8)) == pytest.approx(0, abs=1e-5)


def test_no_gradient_at_the_published_start():
    from flax import nnx

    from simfle_jax.models.channel_grouping import ChannelGrouping
    from simfle_jax.training.state import split

    features = jnp.abs(jnp.asarray(G.normal(size=(4, 2, 2, 16)), jnp.float32))

    def gradient(init):
        graph, params, stats = split(ChannelGrouping(16, 4, init, nnx.Rngs(0)))

        def g(params):
            return losses.grouping(losses.grouping_matrix(nnx.merge(graph, params, stats)(features, True)), 4)

        return float(jnp.abs(jax.grad(g)(params)["kernel"]).max())

    assert gradient("constant") < 1e-5 < 1e-4 < gradient("grouped")
