"""What a checkpoint is recognised by: every bit counts, how the arrays are spread does not."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from simfle_jax.runs.checksum import checksum, sum_of_words


def spread(array, *parts, replicas=1):
    """An array as devices hold it: cut along each axis into so many parts, every part `replicas` times."""
    cuts = [np.array_split(np.arange(size), count) for size, count in zip(array.shape, parts, strict=True)]
    shards = []
    for which in np.ndindex(*parts):
        index = tuple(slice(int(cut[i][0]), int(cut[i][-1]) + 1) for cut, i in zip(cuts, which, strict=True))
        shards += [SimpleNamespace(data=array[index], index=index, replica_id=copy) for copy in range(replicas)]
    return SimpleNamespace(shape=array.shape, addressable_shards=shards)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_spread_arrays_have_the_checksum_of_whole_ones(dtype):
    array = (100 * np.random.default_rng(0).standard_normal((6, 8))).astype(dtype)
    whole = checksum([spread(array, 1, 1)])
    assert whole == checksum([spread(array, 3, 1)]) == checksum([spread(array, 2, 4, replicas=2)])
    assert whole != checksum([spread(array.T.reshape(6, 8), 1, 1)])


def test_any_bit_of_any_array_changes_it():
    arrays = [np.arange(5, dtype=np.float32), np.float64(3.5), np.int32(7)]
    before = checksum([spread(np.asarray(array), *[1] * np.ndim(array)) for array in arrays])
    for number, array in enumerate(arrays):
        for bit in range(8 * np.asarray(array).nbytes):
            raw = np.frombuffer(np.asarray(array).tobytes(), np.uint8).copy()
            raw[bit // 8] ^= 1 << bit % 8
            changed = list(arrays)
            changed[number] = raw.view(np.asarray(array).dtype).reshape(np.shape(array))
            after = checksum([spread(np.asarray(each), *[1] * np.ndim(each)) for each in changed])
            assert after != before, f"bit {bit} of array {number}"


def test_of_arrays_on_the_device_as_counted_by_hand():
    state = [jnp.zeros((), jnp.int32), jnp.ones((2, 3), jnp.int32)]
    assert checksum(state) == checksum([np.asarray(x) for x in state]) == 3 * (1 + 3 + 5 + 7 + 9 + 11)


PLACES = [
    (),
    (slice(0, 2),),
    (slice(None), slice(3, 7)),
    (slice(1, 3), slice(0, 9)),
    (slice(None), slice(None), slice(4, None)),
]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_checksum_of_a_part_is_its_words_by_their_places(place, kind):
    """By the formula, at once; the program goes through it in blocks, of which this array has several."""
    whole = (np.random.default_rng(0).normal(size=(4, 9, 2000)) * 1000).astype(kind)
    words = whole.view(np.uint32)
    places = np.arange(words.size, dtype=np.uint64).reshape(words.shape)
    each = words.shape[-1] // whole.shape[-1]
    cut = (*place[:2], slice(each * (place[2].start or 0), None)) if len(place) == 3 else place
    expected = (words[cut] * (2 * places[cut] + 1)).sum() % 2**32
    assert sum_of_words(whole[place], place, whole.shape) == expected


def test_the_checksum_of_a_number_is_its_word():
    assert sum_of_words(np.asarray(7, np.int32), (), ()) == 7
