"""The watch over the other processes of a run."""

import math

from simfle_jax.runs.peers import Watch


def test_a_watch_rests_until_the_next_beat():
    watch = Watch(1)
    watch.beat(1)
    assert watch.beaten == math.inf  # the first step was handed to the devices, not done
    watch.beat(2)
    assert watch.beaten < math.inf
    watch.rest()
    assert watch.beaten == math.inf
    watch.beat(3)
    assert watch.beaten < math.inf
