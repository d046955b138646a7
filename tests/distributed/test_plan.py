"""The compiled step for 8 devices, as `python -m simfle_jax.plan` tells it: what travels, and nothing else does."""

import collections
import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import pytest
import small

from simfle_jax.training.step import TrainStep

ROOT = Path(__file__).parents[2]


def run(*flags: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "simfle_jax.plan", f"--config={ROOT}/tests/small_config.py", *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=400)


@cache
def plan(*flags: str) -> dict:
    done = run("--target=cpu-8", "--json", *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@cache
def state():
    config = small.config()
    return jax.eval_shape(TrainStep(config, 1).fresh_state)


def sizes(tree, matrices_only=False) -> collections.Counter:
    return collections.Counter(x.size for x in jax.tree.leaves(tree) if x.ndim > 1 or not matrices_only)


def travelling(found: dict, kind: str) -> collections.Counter:
    return collections.Counter(size for c in found["exchanges"] if c["kind"] == kind for _, size in c["arrays"])


def test_a_replicated_step_only_reduces_gradients_statistics_and_the_grouping_matrix():
    found = plan()
    assert set(found["collectives"]) == {"all-reduce"}, "activations or parameters travel"
    reduced, parameters = travelling(found, "all-reduce"), sizes(state().params, matrices_only=True)
    matrix = small.config().trunk.features ** 2
    missing = parameters + collections.Counter([matrix]) - reduced
    assert not missing, f"gradients or the grouping matrix are not exchanged: {missing}"
    assert max(reduced) == max([*parameters, matrix]), "something larger than a parameter travels"


def test_bytes_are_those_counted_by_hand():
    found = plan()
    by_hand, reduced = found["expected_bytes"], found["collectives"]["all-reduce"]["bytes"]
    both_views = {name: state().params[name] for name in ("online", "predictor", "distil_gfl")}
    # XLA:CPU exchanges the gradients of the two views one by one.
    again = 4 * sum(x.size for x in jax.tree.leaves(both_views))
    assert sum(by_hand.values()) <= reduced <= 1.05 * (sum(by_hand.values()) + again)


def test_gradients_and_statistics_travel_combined():
    exchanges = plan()["exchanges"]
    kernels = sizes(state().params, matrices_only=True)
    carrying = [c for c in exchanges if any(size in kernels and size > 64 for _, size in c["arrays"])]
    # One of the seven is the covariance of the pooled features, of which an instrument counts the directions.
    assert len(carrying) <= 7, "gradients travel one by one"
    assert all(len(c["arrays"]) >= 2 for c in exchanges), "the two moments of a layer travel apart"


def test_a_sharded_state_gathers_every_parameter_once_and_no_activation():
    found, whole = plan("--config.shard_state=True"), plan()
    assert set(found["collectives"]) <= {"all-reduce", "all-gather", "reduce-scatter"}
    trees = state().params, state().target_params
    spread = collections.Counter(
        x.size for x in jax.tree.leaves(trees) if x.ndim > 1 and any(n >= 16 and n % 8 == 0 for n in x.shape)
    )
    assert travelling(found, "all-gather") == spread
    reduced = sum(
        found["collectives"][k]["bytes"] for k in ("all-reduce", "reduce-scatter") if k in found["collectives"]
    )
    assert reduced <= whole["collectives"]["all-reduce"]["bytes"]
    assert found["memory"]["optimizer"] < 0.5 * whole["memory"]["optimizer"]


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu (pip install 'simfle-jax[tpu]')")
def test_a_tpu_exchanges_what_is_counted_by_hand_and_the_compiler_estimates_its_time():
    done = run("--target=tpu-v5e-4", "--json", "--config.dtype=bfloat16")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found["collectives"]) == {"all-reduce"}
    by_hand = sum(found["expected_bytes"].values())
    assert 0.8 * by_hand <= found["collectives"]["all-reduce"]["bytes"] <= by_hand
    assert 0 < found["compiler"]["seconds"] < 1 and found["fits"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--target=h200"], "error: --target=h200 is not known; known are tpu-v4-N"),
        (
            ["--target=cpu-3"],
            "error: config: batch_size = 32 cannot be divided among 3 devices; the nearest are 30 or 33",
        ),
        ([], "error: give --target=NAME, e.g. tpu-v5e-256, h200-8 or cpu-8"),
    ],
)
def test_a_mistake_is_one_line(flags, message):
    done = run(*flags)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1
