"""Out of memory, told in the user's words."""

import contextlib
import os
from collections.abc import Iterator

import jax

from simfle_jax.config import Config
from simfle_jax.errors import UserError

FRACTION = "XLA_CLIENT_MEM_FRACTION"
BY_DEFAULT = "JAX takes 75 % of a GPU's memory unless it is told"


@contextlib.contextmanager
def explained(config: Config) -> Iterator[None]:
    """Turns XLA's RESOURCE_EXHAUSTED into a UserError that names the settings to change."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(message(config)) from None


def message(config: Config) -> str:
    """What to change on the devices of this run."""
    more = []
    if jax.default_backend() == "gpu" and not os.environ.get(FRACTION):
        more.append(f"{FRACTION}=.95 in the environment ({BY_DEFAULT})")
    here = ways(config, jax.device_count(), jax.default_backend() == "cpu")
    return (
        f"the device's memory does not hold a step of {config.batch_size} images; try {', or '.join(more + here)}. "
        "A run that has checkpoints keeps its dtype, accumulate and batch_size: change those in another --workdir"
    )


def ways(config: Config, devices: int, cpu: bool = False) -> list[str]:
    """What needs less memory, in the order of what it costs; settings that are in use, or cannot be, are left out."""
    found = []
    if config.dtype == "float32" and not cpu:
        found.append("--config.dtype=bfloat16 (half the activations)")
    if not config.remat:
        found.append("--config.remat=True (same numbers, about a third more compute)")
    if not config.shard_state and devices > 1:
        found.append("--config.shard_state=True (same numbers)")
    parts = 2 * config.accumulate
    if config.batch_size % (devices * parts) == 0 and config.batch_size // parts >= 2:
        found.append(f"--config.accumulate={parts} (BatchNorm then sees {config.batch_size // parts} images at a time)")
    unit = devices * config.accumulate
    if (smaller := config.batch_size // 2 // unit * unit) >= 2:
        found.append(f"--config.batch_size={smaller}")
    return [*found, "more devices, or devices with more memory"]
