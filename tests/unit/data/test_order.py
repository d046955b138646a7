import numpy as np

from simfle_jax.data.order import global_batch, steps_per_epoch


def epoch(count, seed, number, batch_size):
    steps = steps_per_epoch(count, batch_size)
    return np.concatenate([global_batch(count, seed, number * steps + s, batch_size) for s in range(steps)])


def test_an_epoch_shows_no_image_twice_and_drops_the_tail():
    shown = epoch(23, 0, 0, 5)
    assert len(shown) == 20 and len(set(shown.tolist())) == 20
    assert shown.min() >= 0 and shown.max() < 23


def test_epochs_and_seeds_differ_and_repeat():
    assert (epoch(50, 3, 1, 10) == epoch(50, 3, 1, 10)).all()
    assert (epoch(50, 3, 1, 10) != epoch(50, 3, 2, 10)).any()
    assert (epoch(50, 3, 1, 10) != epoch(50, 4, 1, 10)).any()
    assert sorted(epoch(50, 3, 1, 10)) == list(range(50))


def test_the_tail_is_not_always_the_same():
    left_out = [set(range(11)) - set(epoch(11, 0, e, 5).tolist()) for e in range(20)]
    assert len(set(map(frozenset, left_out))) > 3


def test_order_is_pinned():
    """A run continued with another version of the code must see the order it began with."""
    np.testing.assert_array_equal(global_batch(10, 7, 5, 4), [6, 9, 0, 8])
