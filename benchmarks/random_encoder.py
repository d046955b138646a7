"""An encoder with initial weights, for benchmarks that need its shapes alone."""

import argparse

from simfle_jax.config.trunks import TRUNKS
from simfle_jax.encoder import DEFAULT_METADATA, Encoder, untrained_encoder
from simfle_jax.weights.encoder_file import architecture_text
from simfle_jax.weights.trunk import architecture


def random_encoder(trunk: str, size: int) -> Encoder:
    """The trunk of a name in TRUNKS, for images of `size` pixels."""
    made = architecture(TRUNKS[trunk])
    metadata = DEFAULT_METADATA | {"size": str(size), "architecture": architecture_text(made)}
    like = argparse.Namespace(trunk=made, metadata=metadata, size=size)
    return untrained_encoder(like, seed=0)  # type: ignore[arg-type]
