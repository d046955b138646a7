"""How programs are compiled: the persistent cache, and the options of a program that trains convolutions."""

import contextlib
import functools
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
from jax.extend import backend

from simfle_jax.errors import UserError
from simfle_jax.host import schedulable_cores

UNUSED_DAYS = 60


def use_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second start compiles nothing.

    Those that nobody has used for UNUSED_DAYS are removed there.

    Does nothing where JAX was told of another folder. A user without a folder gets a warning, and no cache.

    Raises:
        UserError: as `require_device` does.
    """
    platform = require_device()
    if jax.config.values.get("jax_compilation_cache_dir"):
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "simfle_jax")
        # XLA:CPU divides loops among the cores at hand when it compiles, which JAX's key of a program leaves out. NPROC
        # is what XLA asks first. The folder holds programs alone: beside it lie copies of what is in buckets.
        cores = os.environ.get("NPROC") or schedulable_cores()
        folder /= f"{cores}-cores" if platform == "cpu" else f"{platform}-programs"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
        _forget_unused(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: neither HOME nor an entry of this user in passwd
        print(
            f"warning: compiled programs are not kept, every start compiles anew ({' '.join(str(error).split())}); "
            "JAX_COMPILATION_CACHE_DIR=DIR names a folder for them",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _forget_unused(folder: Path) -> None:
    """Removes programs that nobody has used for a long time: each version of a program leaves one, and they add up."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for place, _, names in os.walk(folder):  # it passes over folders that another process removes meanwhile
        for name in names:
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):  # and so may their files be
                status = os.lstat(path)
                if max(status.st_atime, status.st_mtime) < oldest:
                    os.unlink(path)


def require_device() -> str:
    """The platform of the devices that programs run on, such as 'cpu'.

    Raises:
        UserError: JAX was told of a platform that is not there, or to compute in 64 bits.
    """
    if jax.config.values["jax_enable_x64"]:
        raise UserError("JAX_ENABLE_X64 is set, but these programs compute in 32 and 16 bits: unset it")
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError):  # JAX 0.10.2 asserts where a known platform has no device
        wanted = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", "")
    there = ",".join(sorted(backend.backends()))
    jax.config.update("jax_platforms", wanted)
    raise UserError(f"JAX_PLATFORMS={wanted}, but the platforms here are {there}: set one of them, or unset it")


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
