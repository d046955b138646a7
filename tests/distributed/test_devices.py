"""The promise that the number of devices changes nothing: statistics, losses and gradients are the global batch's."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@cache
def steps(dtype: str, devices: int, *options: str) -> dict:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, str(ROOT / "tests/distributed/steps.py"), dtype, str(devices), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == devices
    return found


def growth(one: dict, many: dict) -> list[float]:
    """The largest relative difference of any metric, at each step."""
    return [max(abs(a[name] - b[name]) / max(abs(a[name]), 1e-3) for name in a) for a, b in zip(one["losses"], many["losses"])]


@pytest.mark.parametrize("devices", [2, 8])
def test_float64_losses_and_parameters_agree(devices):
    one, many = steps("float64", 1), steps("float64", devices)
    differences = growth(one, many)
    assert max(differences) < 1e-9, f"relative differences at each step: {differences}"
    for name, norm in one["norms"].items():
        assert many["norms"][name] == pytest.approx(norm, rel=1e-9, abs=1e-12), name


def test_float32_losses_agree():
    differences = growth(steps("float32", 1), steps("float32", 8))
    assert max(differences) < 1e-4, f"relative differences at each step: {differences}"


def test_sharded_state_gives_the_same_numbers_in_less_memory():
    whole, sharded = steps("float64", 8), steps("float64", 8, "shard")
    assert max(growth(whole, sharded)) < 1e-9
    assert sharded["bytes_per_device"] < 0.5 * whole["bytes_per_device"]


def test_replicated_training_only_reduces():
    # In float64, which only proofs use, XLA:CPU gathers the gradient of the max-pooling.
    kinds = set(steps("float32", 8)["collectives"])
    assert kinds == {"all-reduce"}, f"activations or parameters travel: {kinds}"
