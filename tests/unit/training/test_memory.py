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


def test_other_errors_of_the_device_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.explained(small.config()):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")
