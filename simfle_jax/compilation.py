"""How programs are compiled: the persistent cache, and the options of a program that trains convolutions."""

import functools
import os
from pathlib import Path
from typing import Any

import jax


def use_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second start compiles nothing.

    Does nothing where JAX was told of another folder.
    """
    if jax.config.values.get("jax_compilation_cache_dir"):
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "simfle_jax")
    if jax.default_backend() == "cpu":
        # XLA:CPU divides loops among the cores at hand when it compiles, which JAX's key of a program leaves out.
        folder /= f"{cores()}-cores"
    jax.config.update("jax_compilation_cache_dir", str(folder))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def once() -> dict[str, Any] | None:
    """`compiler_options` for a program of many arrays that runs once: not worth optimising.

    On a CPU that would take longer than the program, and longer than the first hundred steps of a small run.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


@functools.cache
def training_options() -> dict[str, str] | None:
    """What `jax.jit(..., compiler_options=)` needs for a program that trains convolutions.

    XLA:CPU hands products and convolutions to YNNPACK, whose weight gradients take twice to four times Eigen's time
    (docs/performance.md), so it gets the products alone. None where nothing is to be said, or where this version of
    XLA does not know the option.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0.0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options
