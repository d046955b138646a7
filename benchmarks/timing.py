"""What the benchmarks share: the machine, medians, and the speed of the device's matrix product as its peak."""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def machine() -> dict[str, Any]:
    """Where and with what a measurement was taken."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "platform": platform.platform(),
        "cores": cores,
        "devices": [device.device_kind for device in jax.devices()],
        "jax": jax.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def seconds(call: Callable[[], Any], rounds: int) -> float:
    """Median seconds of `call`, whose result is waited for; one more call warms up."""
    jax.block_until_ready(call())
    return statistics.median(once(call) for _ in range(rounds))


def once(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def matmul_flops(dtype: str, rounds: int = 5) -> float:
    """FLOP/s of a large matrix product of the device: the peak that a program can hope for.

    Factors are rounded as in training: not at all in float32, which on a GPU excludes TF32.
    """
    side = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(
        jax.random.key(0), (side, side), dtype
    )  # a product of ones takes less power, so that clocks rise
    with jax.default_matmul_precision("float32" if dtype == "float32" else "default"):
        product = jax.jit(jnp.matmul).lower(a, a).compile()
    return 2 * side**3 / seconds(lambda: product(a, a), rounds)


def peak_host_memory() -> int:
    """Bytes that this process held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_device_memory() -> int | None:
    """Bytes that were in use on the first device at most; None where the backend does not count."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
