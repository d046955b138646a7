"""SimFLE in JAX and Flax: self-supervised pre-training of face encoders for expression recognition."""

__version__ = "0.1.0"
