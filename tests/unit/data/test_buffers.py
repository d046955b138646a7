import jax
import numpy as np

from simfle_jax.data.buffers import Buffers


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_the_array_is_gone():
    buffers = Buffers((4, 8, 8, 3), keep=2)
    array = buffers.take()
    assert array.shape == (4, 8, 8, 3) and array.dtype == np.uint8 and array.flags.writeable
    first = address(array)
    del array
    assert address(buffers.take()) == first


def test_a_view_keeps_the_memory():
    buffers = Buffers((4, 8, 8, 3), keep=2)
    array = buffers.take()
    first, views = address(array), [array[1:], array.reshape(-1)[5:][::2], array[0].T, array.view(np.int8)[2:3]]
    del array
    for _ in range(len(views)):
        other = buffers.take()
        assert address(other) != first
        del other
        views.pop()
    assert first in {address(a) for a in [buffers.take(), buffers.take()]}


def test_a_device_array_keeps_its_values():
    buffers = Buffers((64, 64, 64, 3), keep=4)
    kept = []
    for value in range(6):
        array = buffers.take()
        array[:] = value
        kept.append(jax.device_put(array))
        del array
    for value, array in enumerate(kept):
        np.testing.assert_array_equal(np.unique(array), [value])


def test_no_more_is_kept_than_said():
    buffers = Buffers((16,), keep=2)
    arrays = [buffers.take() for _ in range(5)]
    addresses = {address(array) for array in arrays}
    arrays.clear()
    assert len(buffers._free) == 2
    assert {address(memory) for memory in buffers._free} <= addresses
