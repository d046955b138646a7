"""Out of memory, told in the user's words."""

import contextlib
from collections.abc import Iterator

import jax

from simfle_jax.config import Config
from simfle_jax.errors import UserError


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
    """What to change, in the order of what it costs; settings that are in use already are left out."""
    ways = []
    if config.dtype == "float32" and jax.default_backend() != "cpu":
        ways.append("--config.dtype=bfloat16 (half the activations)")
    if not config.remat:
        ways.append("--config.remat=True (same numbers, about a third more compute)")
    if not config.shard_state and jax.device_count() > 1:
        ways.append("--config.shard_state=True (same numbers)")
    parts = 2 * config.accumulate
    if config.batch_size % parts == 0 and config.batch_size // parts >= 2:
        ways.append(f"--config.accumulate={parts} (BatchNorm then sees {config.batch_size // parts} images at a time)")
    ways.append(f"--config.batch_size={max(2, config.batch_size // 2)}")
    return (
        f"the device's memory does not hold a step of {config.batch_size} images; try {', or '.join(ways)}. "
        "A run that has checkpoints keeps its dtype, accumulate and batch_size: change those in another --workdir"
    )
