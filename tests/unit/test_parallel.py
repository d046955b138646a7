"""Batches are on the devices before they are asked for, in order, and none is read in vain."""

import itertools

import numpy as np

from simfle_jax import parallel


def test_two_batches_wait_on_the_devices():
    read = []

    def batches():
        for number in itertools.count():
            read.append(number)
            yield np.full((8, 2), number, np.uint8)

    given = parallel.ahead(batches(), parallel.data_mesh(), count=5)
    for number in range(5):
        np.testing.assert_array_equal(next(given), np.full((8, 2), number))
        assert read == list(range(min(number + 3, 5)))
    assert next(given, None) is None
