"""Options and fixtures of the whole suite."""

from pathlib import Path

import pytest


def pytest_addoption(parser):
    default = Path(__file__).parent / "parity" / "golden"
    parser.addoption("--golden", type=Path, default=default, help="folder of golden values")


@pytest.fixture(scope="session")
def golden(request) -> Path:
    """The folder of golden values the parity tests compare with."""
    return request.config.getoption("--golden")
