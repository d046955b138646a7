"""The parity tests compute in float64."""

import jax
import pytest


@pytest.fixture
def float64():
    """Everything inside the test in float64."""
    with jax.enable_x64(True):
        yield
