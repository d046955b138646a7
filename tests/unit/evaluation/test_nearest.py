"""Neighbour votes against a plain loop; retrieval at its extremes."""

import numpy as np

from simfle_jax.evaluation.nearest import knn, neighbours, view_retrieval


def test_knn_equals_a_loop():
    rng = np.random.default_rng(0)
    bank, labels = rng.standard_normal((50, 8)).astype(np.float32), rng.integers(0, 4, 50)
    queries = rng.standard_normal((30, 8)).astype(np.float32)
    expected = []
    for query in queries:
        cosines = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
        votes = np.zeros(4)
        for row in np.argsort(-cosines)[:7]:
            votes[labels[row]] += np.exp(cosines[row] / 0.07)
        expected.append(votes.argmax())
    np.testing.assert_array_equal(knn(bank, labels, queries, 4, k=7), expected)


def test_shares_of_the_votes_equal_a_loop_at_any_temperature():
    rng = np.random.default_rng(3)
    bank, labels = rng.standard_normal((40, 6)).astype(np.float32), rng.integers(0, 3, 40)
    queries = rng.standard_normal((11, 6)).astype(np.float32)
    for k, temperature in ((1, 0.07), (9, 0.5), (100, 2.0), (9, 0.001)):
        found = neighbours(bank, labels, 3, k, temperature).probabilities(queries)
        for query, shares in zip(queries.astype(np.float64), np.asarray(found)):
            cosines = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
            near = np.argsort(-cosines)[:k]
            weights = np.exp((cosines[near] - cosines.max()) / temperature)
            votes = np.array([weights[labels[near] == number].sum() for number in range(3)])
            np.testing.assert_allclose(shares, votes / votes.sum(), atol=2e-3 if temperature < 0.01 else 1e-5)


def test_knn_with_fewer_images_than_neighbours_uses_all():
    bank = np.array([[1, 0], [0, 1]], np.float32)
    np.testing.assert_array_equal(knn(bank, np.array([1, 0]), np.array([[3, 1], [1, 3]], np.float32), 2), [1, 0])


def test_retrieval_of_the_same_vectors_is_perfect_and_of_shifted_ones_nil():
    z = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
    assert view_retrieval(z, 3 * z) == 1
    assert view_retrieval(z, np.roll(z, 1, axis=0)) == 0


def test_retrieval_counts_the_share():
    z = np.eye(4, dtype=np.float32)
    assert view_retrieval(z, z[[0, 1, 3, 2]]) == 0.5


def test_collapsed_features_retrieve_nothing():
    same = np.ones((32, 8), np.float32)
    assert view_retrieval(same, same) == 0
