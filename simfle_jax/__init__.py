"""SimFLE in JAX and Flax: self-supervised pre-training of face encoders for expression recognition."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load_encoder"]


def __getattr__(name: str) -> Any:
    """`load_encoder` on demand: importing the package alone must not import JAX."""
    if name == "load_encoder":
        from simfle_jax.encoder import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
