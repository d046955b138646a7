"""Out of memory is told by the settings that help."""

import jax
import pytest
import small

from simfle_jax.errors import UserError
from simfle_jax.training import memory

EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes."


def test_the_settings_to_change_are_named():
    with pytest.raises(UserError) as caught, memory.explained(small.config()):
        raise jax.errors.JaxRuntimeError(EXHAUSTED)
    text = str(caught.value)
    assert "does not hold a step of 8 images" in text and "\n" not in text
    for flag in ("--config.remat=True", "--config.accumulate=2", "--config.batch_size=4"):
        assert flag in text


def test_settings_in_use_are_not_named_again():
    text = memory.message(small.config(remat=True, accumulate=4))
    assert "--config.remat" not in text
    assert "--config.accumulate" not in text  # eight micro-batches would leave one image in each


def test_only_what_the_devices_divide_is_proposed():
    """24 images on 8 devices: neither two micro-batches of 12 nor a batch of 12 can be divided among them."""
    found = memory.ways(small.config(batch_size=24), 8, cpu=True)
    assert not any("accumulate" in way for way in found) and "--config.batch_size=8" in found
    assert "--config.shard_state=True (same numbers)" in found
    found = memory.ways(small.config(batch_size=32), 8, cpu=True)
    assert any("--config.accumulate=2 " in way for way in found) and "--config.batch_size=16" in found
    found = memory.ways(small.config(batch_size=8), 8, cpu=True)
    assert not any("batch_size" in way for way in found) and "more devices" in found[-1]


def test_a_gpu_has_more_memory_than_jax_takes(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.delenv(memory.FRACTION, raising=False)
    assert "XLA_CLIENT_MEM_FRACTION=.95 in the environment (JAX takes 75 %" in memory.message(small.config())
    monkeypatch.setenv(memory.FRACTION, ".95")
    assert memory.FRACTION not in memory.message(small.config())


def test_other_errors_of_the_device_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.explained(small.config()):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")
