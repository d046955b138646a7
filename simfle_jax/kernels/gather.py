"""Some tokens of each image, each at most once."""

import jax
from jaxtyping import Array, Float, Int

from simfle_jax.arrays import AnyArray


def tokens_at(
    tokens: Float[AnyArray, "batch token feature"], places: Int[AnyArray, "batch kept"]
) -> Float[Array, "batch kept feature"]:
    """The tokens of each image at its own places, which must differ from each other.

    XLA is told so, and writes the gradient; otherwise a GPU adds it with atomic operations, slowly.
    """
    return jax.vmap(lambda own, at: own.at[at].get(unique_indices=True))(tokens, places)
