"""Options and fixtures of the whole suite."""

import gc
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before any of them is imported: every call and every trace of a function in these rooms checks its annotations.
# Left out are classes that hold shapes, shardings or a fake of a source in place of what their annotations say.
ROOMS = ["augment", "instruments", "kernels", "losses", "methods", "models", "views"]
ROOMS += [f"training.{name}" for name in ("accumulation", "optimizer", "step")]
ROOMS += [f"evaluation.{name}" for name in ("linear", "logistic", "nearest", "scores")]
install_import_hook([f"simfle_jax.{room}" for room in ROOMS], "checked_types.typechecker")


def pytest_addoption(parser):
    default = Path(__file__).parent / "parity" / "golden"
    parser.addoption("--golden", type=Path, default=default, help="folder of golden values")


@pytest.fixture(scope="session")
def golden(request) -> Path:
    """The folder of golden values the parity tests compare with."""
    return request.config.getoption("--golden")


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_given_back():
    """Those of all files together take more than 10 GB, so they are dropped whenever a process holds 4."""
    yield
    statm = Path("/proc/self/statm")
    if statm.exists() and int(statm.read_text().split()[1]) * 4096 > 4e9:
        import jax

        jax.clear_caches()
        gc.collect()
