"""Which kind of device a program is for: XLA:CPU is slow in forms of a layer that others are fast in."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_platform: ContextVar[str | None] = ContextVar("platform", default=None)


def on_cpu() -> bool:
    """Whether what is being traced will run on a CPU: the default backend, unless `tracing_for` names another."""
    return _traced_for() == "cpu"


def on_tpu() -> bool:
    """The same of a TPU."""
    return _traced_for() == "tpu"


def _traced_for() -> str:
    return _platform.get() or jax.default_backend()


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
    """Traces for a device that is not there, such as 'tpu'."""
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)
