"""Every optimizer, schedule and option against a few lines of numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from simfle_jax.training.optimizer import ema_decay, optimizer, schedule

SHAPES = {"online": {"bias": (3,), "kernel": (4, 3), "zeros": (2, 2)}, "predictor": {"kernel": (3, 2), "scale": (2,)}}
RATE = 0.1  # of a batch of 64 at lr 0.4
BEFORE_THE_END = 10**6  # epochs, of which a test takes a few steps: the rate does not fall


def of_shapes(random):
    return jax.tree.map(
        lambda shape: random.normal(size=shape).astype("f4"), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def assert_moves(direction, rate=lambda step: RATE, **changes):
    """Six steps of random gradients; all moves by -rate(step) * direction(name, gradient, parameter, memory).

    memory: a dict of each parameter's own. The gradient of `zeros` and the values of that parameter are 0 at first.
    """
    config = small.config(batch_size=64, lr=0.4, **{"epochs": BEFORE_THE_END} | changes)
    tx, random = optimizer(config, steps_per_epoch=2), np.random.default_rng(0)
    params = of_shapes(random)
    params["online"]["zeros"][:] = 0
    theirs = {name: x.astype(float) for name, x in named(params)}
    state, memories = tx.init(params), {name: {} for name in theirs}
    for step in range(6):
        gradients = of_shapes(random)
        if not step:
            gradients["online"]["zeros"][:] = 0
        updates, state = tx.update(gradients, state, params)
        params = jax.tree.map(lambda x, update: np.asarray(x + update), params, updates)
        for name, gradient in named(gradients):
            move = direction(name, gradient.astype(float), theirs[name], memories[name])
            theirs[name] = theirs[name] - rate(step) * move
        for name, ours in named(params):
            np.testing.assert_allclose(ours, theirs[name], rtol=1e-5, atol=1e-5, err_msg=f"{name} at step {step}")


def named(tree):
    return [("/".join(key.key for key in path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def velocity(memory, gradient, momentum=0.9):
    memory["velocity"] = momentum * memory.get("velocity", 0) + gradient
    return memory["velocity"]


def test_steps_are_those_of_pytorchs_sgd():
    """Over three epochs of two steps: the rate changes, so that it matters where it enters."""
    assert_moves(
        lambda name, gradient, parameter, memory: velocity(memory, gradient + 0.1 * parameter),
        rate=lambda step: RATE * 0.5 * (1 + np.cos(np.pi * (step // 2) / 3)),
        epochs=3, momentum=0.9, weight_decay=0.1,
    )  # fmt: skip


@pytest.mark.parametrize("trust", [0.001, 0.02])
def test_steps_are_those_of_byols_lars(trust):
    """As DeepMind's program of BYOL has it: decay, trust ratio and then momentum; biases and scales by momentum alone."""

    def direction(name, gradient, parameter, memory):
        if parameter.ndim > 1:
            gradient = gradient + 0.1 * parameter
            norms = np.linalg.norm(parameter), np.linalg.norm(gradient)
            gradient = gradient * (trust * norms[0] / norms[1] if min(norms) > 0 else 1)
        return velocity(memory, gradient)

    assert_moves(direction, momentum=0.9, weight_decay=0.1, optimizer={"name": "lars", "trust": trust})


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_steps_are_those_of_adam_and_adamw(name):
    """Decay joins Adam's gradient, and AdamW's direction."""

    def direction(_, gradient, parameter, memory):
        gradient = gradient + (0.1 * parameter if name == "adam" else 0)
        step = memory["step"] = memory.get("step", 0) + 1
        memory["mean"] = 0.9 * memory.get("mean", 0) + 0.1 * gradient
        memory["square"] = 0.999 * memory.get("square", 0) + 0.001 * gradient**2
        moved = memory["mean"] / (1 - 0.9**step) / (np.sqrt(memory["square"] / (1 - 0.999**step)) + 1e-8)
        return moved + (0.1 * parameter if name == "adamw" else 0)

    assert_moves(direction, weight_decay=0.1, optimizer={"name": name})


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_of_kernels_leaves_biases_and_scales_alone(name):
    """What decays is seen without a gradient."""
    config = small.config(weight_decay=0.1, batch_size=256, lr=0.5, optimizer={"name": name, "decay": "kernels"})
    params = of_shapes(np.random.default_rng(0))
    tx = optimizer(config, steps_per_epoch=1)
    updates = dict(named(tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)[0]))
    for parameter, x in named(params):
        np.testing.assert_allclose(updates[parameter], -0.05 * x * (x.ndim > 1), rtol=1e-5, err_msg=parameter)


def test_the_predictor_has_a_rate_of_its_own():
    def direction(name, gradient, parameter, memory):
        return (10 if name.startswith("predictor") else 1) * velocity(memory, gradient + 0.1 * parameter)

    assert_moves(direction, momentum=0.9, weight_decay=0.1, optimizer={"predictor_lr": 10.0})


@pytest.mark.parametrize("clip", [0.5, 100.0])
def test_long_gradients_are_clipped_and_short_ones_stay(clip):
    """By the norm over all of them, before decay joins."""
    config = small.config(weight_decay=0.1, momentum=0.0, batch_size=256, lr=0.5, optimizer={"clip": clip})
    params, gradients = (of_shapes(np.random.default_rng(seed)) for seed in (0, 1))
    tx = optimizer(config, steps_per_epoch=1)
    updates = dict(named(tx.update(gradients, tx.init(params), params)[0]))
    norm = np.sqrt(sum(np.square(gradient).sum() for _, gradient in named(gradients)))
    assert 0.5 < norm < 100
    for (name, gradient), (_, x) in zip(named(gradients), named(params)):
        expected = -0.5 * (gradient * min(1, clip / norm) + 0.1 * x)
        np.testing.assert_allclose(updates[name], expected, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("kind", ["epoch", "step"])
@pytest.mark.parametrize("warmup", [0, 2])
def test_the_rate_rises_linearly_and_falls_by_half_a_cosine(kind, warmup):
    """Six epochs of four steps: it reaches its peak with the last step of the warm-up."""
    config = small.config(epochs=6, batch_size=512, lr=0.3, optimizer={"warmup_epochs": warmup, "schedule": kind})
    rate, peak = schedule(config, steps_per_epoch=4), 0.6
    for step in range(24):
        if step < 4 * warmup:
            expected = peak * (step + 1) / (4 * warmup)
        else:
            gone = (step // 4 if kind == "epoch" else step / 4) - warmup
            expected = peak * 0.5 * (1 + np.cos(np.pi * gone / (6 - warmup)))
        np.testing.assert_allclose(rate(jnp.asarray(step)), expected, rtol=1e-5, err_msg=f"step {step}")


def test_the_targets_decay_rises_to_one_by_byols_cosine():
    """1 - (1 - base) (cos(pi k / K) + 1) / 2, here of 20 steps."""
    config = small.config(epochs=2, ema_decay=0.96, optimizer={"ema_schedule": "cosine"})
    found = [float(ema_decay(config, 10, jnp.asarray(step))) for step in (0, 5, 10, 20)]
    np.testing.assert_allclose(found, [0.96, 0.96 + 0.04 * (1 - np.sqrt(0.5)) / 2, 0.98, 1], rtol=1e-6)
    assert ema_decay(small.config(ema_decay=0.96), 10, jnp.asarray(15)) == 0.96
