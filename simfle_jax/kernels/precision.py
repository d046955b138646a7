"""Statistics, normalisations and losses are computed in float32 at least, whatever the type of the networks."""

import jax.numpy as jnp
from jaxtyping import Float

from simfle_jax.arrays import AnyArray


def at_least_float32(x: Float[AnyArray, "*shape"]) -> Float[AnyArray, "*shape"]:
    """x in float32, or as it is where it is finer."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
