"""The step that is kept between starts is the step: equal to the bit, donated, traced once."""

import jax
import numpy as np
import pytest
import small

from simfle_jax import compilation, parallel
from simfle_jax.training.program import step_program
from simfle_jax.training.step import TrainStep


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    yield
    jax.config.update("jax_compilation_cache_dir", before)


class Counted(TrainStep):
    """Counts how often it is traced."""

    traced = 0

    def __call__(self, state, images):
        self.traced += 1
        return super().__call__(state, images)


class Start:
    """What a process does that starts a run: a train_step, a state and its program."""

    def __init__(self, **changes):
        config, mesh = small.config(**changes), parallel.data_mesh()
        self.train_step = Counted(config, 100, mesh)
        self.shapes = jax.eval_shape(self.fresh)
        self.shardings = parallel.state_shardings(mesh, self.shapes, config.shard_state)

    def fresh(self):
        return self.train_step.fresh_state()

    def state(self):
        return jax.jit(self.fresh, out_shardings=self.shardings, compiler_options=compilation.once())()

    def step(self):
        return step_program(self.train_step, self.shapes, self.shardings)


def batch(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 16, 16, 3), np.uint8)


def test_it_is_the_plain_step_to_the_bit_and_is_traced_once(cache):
    first, second = Start(), Start()
    plain = first.train_step.jitted(first.shardings, compilation.training_options())
    first_step = first.step()
    traced = first.train_step.traced
    second_step = second.step()
    ends = []
    for step in (plain, first_step, second_step):
        state = first.state()
        for number in range(2):
            given, (state, metrics) = state, step(state, batch(number))
            assert all(x.is_deleted() for x in jax.tree.leaves(given)), "the state was not donated"
        ends.append(jax.device_get((state, metrics)))
    assert traced and second.train_step.traced == 0
    for end in ends[1:]:
        jax.tree.map(np.testing.assert_array_equal, ends[0], end)


@pytest.mark.parametrize("changes", [{"beta": 0.5}, {"seed": 1}, {"facemae": {"decoder_heads": 1}}, {"batch_size": 16}])
def test_other_settings_are_another_step(cache, changes):
    Start().step()
    other = Start(**changes)
    other.step()
    assert other.train_step.traced


def test_another_length_of_the_schedule_is_another_step(cache):
    Start().step()
    other = Start()
    other.train_step.steps_per_epoch = 99
    other.step()
    assert other.train_step.traced
