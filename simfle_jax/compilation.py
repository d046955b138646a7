"""The persistent compilation cache, so that a second start compiles nothing."""

import os
from pathlib import Path

import jax


def use_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX was told of another one."""
    if jax.config.values.get("jax_compilation_cache_dir"):
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(base) / "simfle_jax"))
