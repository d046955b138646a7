"""Names of hardware, and the devices behind them where the packages are installed."""

import importlib.util

import pytest

from simfle_jax.errors import UserError
from simfle_jax.planning import targets


@pytest.mark.parametrize(
    "name, shape",
    [
        ("tpu-v5e-4", (2, 2)),
        ("tpu-v5e-8", (2, 4)),
        ("tpu-v5e-256", (16, 16)),
        ("tpu-v4-4", (2, 2, 1)),
        ("tpu-v4-16", (2, 2, 4)),
        ("tpu-v4-64", (4, 4, 4)),
        ("h200-8", (8,)),
        ("cpu-3", (3,)),
    ],
)
def test_the_torus_is_as_square_as_can_be(name, shape):
    target = targets.find(name)
    assert target.shape == shape
    assert target.count == int(name.rsplit("-", 1)[1])


@pytest.mark.parametrize(
    "name, message",
    [
        ("tpu-v9-8", "known are tpu-v4-N, tpu-v5e-N"),
        ("h200", "is not known"),
        ("tpu-v5e-12", "a power of two from 4 to 256"),
        ("tpu-v5e-512", "a power of two from 4 to 256"),
        ("h200-16", "1 to 8"),
        ("cpu-0", "1 to 64"),
    ],
)
def test_a_target_that_is_not_there_is_refused_with_those_that_are(name, message):
    with pytest.raises(UserError, match=message):
        targets.find(name)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_a_missing_libtpu_is_named():
    with pytest.raises(UserError, match=r"needs libtpu \(pip install 'simfle-jax\[tpu\]'\)"):
        targets.find("tpu-v5e-4").devices()


@pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is not None, reason="jax-cuda13-plugin is installed")
def test_a_missing_cuda_plugin_is_named():
    with pytest.raises(UserError, match="needs jax-cuda13-plugin and jax-cuda13-pjrt"):
        targets.find("h200-8").devices()


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu (pip install 'simfle-jax[tpu]')")
@pytest.mark.parametrize("name", ["tpu-v5e-16", "tpu-v4-64"])
def test_a_tpu_topology_has_one_device_for_each_chip(name):
    target = targets.find(name)
    assert len(target.devices()) == target.count
