"""The promise that the number of devices changes nothing: statistics, losses and gradients are the global batch's.

`pytest -rP tests/distributed/test_devices.py` prints how differences grow from step to step.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import processes
import pytest
from processes import ROOT


@cache
def steps(dtype: str, devices: int, *options: str, count: int = 1) -> dict:
    """What steps.py finds on `devices` devices in each of `count` processes; of process 0."""
    environment = processes.environment()
    command = [sys.executable, str(ROOT / "tests/distributed/steps.py"), dtype, str(devices), *options]
    address = f"127.0.0.1:{processes.free_port()}"
    joined = [[f"join={address},{count},{index}"] if count > 1 else [] for index in range(count)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command + join, env=environment, **pipes) for join in joined]
    try:
        # At the end they wait for each other, so all pipes are read at once.
        with ThreadPoolExecutor() as readers:
            ended = list(readers.map(lambda process: process.communicate(timeout=400), started))
    finally:
        for process in started:
            process.kill()
    assert not any(process.returncode for process in started), "\n".join(error[-2000:] for _, error in ended)
    found = json.loads(ended[0][0].splitlines()[-1])
    assert found["devices"] == devices * count
    return found


@pytest.fixture(scope="module", params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def one(request, tmp_path_factory):
    """The type, the steps of one device, and where its checkpoint of step 2 is."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, steps(request.param, 1, f"save={folder}"), folder


def growth(one: dict, many: dict) -> list[float]:
    """The largest relative difference of any metric, at each step."""
    pairs = zip(one["losses"], many["losses"], strict=True)
    return [max(abs(a[name] - b[name]) / max(abs(a[name]), 1e-3) for name in a) for a, b in pairs]


LAYOUTS = {"2 devices": (2, 1), "8 devices": (8, 1), "2 processes x 2 devices": (2, 2)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_parameters_agree(layout, one):
    dtype, alone, _ = one
    devices, count = LAYOUTS[layout]
    many = steps(dtype, devices, count=count)
    differences = growth(alone, many)
    print(f"{dtype}, {layout}: " + " ".join(f"{x:.1e}" for x in differences))
    assert max(differences) < {"float64": 1e-9, "float32": 1e-4}[dtype], f"at each step: {differences}"
    for name, values in alone["arrays"].items() if dtype == "float64" else ():
        np.testing.assert_allclose(many["arrays"][name], values, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("one", ["float64"], indirect=True)  # test_processes.py does it with train.py, in float32
def test_the_step_after_a_change_of_devices_and_processes_is_the_same(one):
    _, alone, folder = one
    found = steps("float64", 2, f"from={folder}", count=2)
    assert len(found["losses"]) == len(alone["losses"]) - 2
    first, *_ = growth({"losses": alone["losses"][2:]}, found)
    print(f"float64, the step after one device became 2 processes x 2 devices: {first:.1e}")
    assert first < 1e-9


@pytest.mark.slow
def test_sharded_state_gives_the_same_numbers_in_less_memory():
    whole, sharded = steps("float64", 8), steps("float64", 8, "shard")
    assert max(growth(whole, sharded)) < 1e-9
    assert sharded["bytes_per_device"] < 0.5 * whole["bytes_per_device"]


def test_replicated_training_only_reduces():
    # In float64, which only proofs use, XLA:CPU gathers the gradient of the max-pooling.
    kinds = set(steps("float32", 8)["collectives"])
    assert kinds == {"all-reduce"}, f"activations or parameters travel: {kinds}"
