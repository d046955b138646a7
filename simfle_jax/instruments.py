"""What a step tells besides its losses: whether the groups differ and whether the features stay spread."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from simfle_jax import losses


def of_projections(projections: Float[Array, "batch projection"]) -> dict[str, Float[Array, ""]]:
    """`features/std` and `features/effective_rank` of projections."""
    found = {"features/std": spread(projections), "features/effective_rank": effective_rank(projections)}
    return jax.lax.stop_gradient(found)


def of_groups(
    scores: Float[Array, "batch group patch"], matrix: Float[Array, "channel channel"], groups: int, keep: int
) -> dict[str, Float[Array, ""]]:
    """`grouping/separation` of the grouping matrix, `masking/agreement` of the patches' scores."""
    found = {"grouping/separation": losses.separation(matrix, groups), "masking/agreement": agreement(scores, keep)}
    return jax.lax.stop_gradient(found)


def spread(projections: Float[Array, "batch projection"]) -> Float[Array, ""]:
    """Standard deviation over the batch of the normalised projections, times the root of their width.

    1: they point everywhere alike; 0: they have collapsed to one direction.
    """
    unit = _unit(projections)
    return jnp.sqrt(unit.var(0).mean() * unit.shape[-1])


def effective_rank(projections: Float[Array, "batch projection"]) -> Float[Array, ""]:
    """Participation ratio of the normalised projections' covariance: (sum of eigenvalues)^2 / sum of squares.

    How many directions carry the variance, from 1 to min(batch - 1, projection). It falls when dimensions collapse. Needs no
    eigenvalues: both sums are traces, taken on the smaller of the two Gram matrices.
    """
    unit = _unit(projections)
    centred = unit - unit.mean(0)
    gram = centred @ centred.T if len(centred) < centred.shape[-1] else centred.T @ centred
    return jnp.square(jnp.trace(gram)) / jnp.maximum(jnp.square(gram).sum(), 1e-30)


def agreement(scores: Float[Array, "batch group patch"], keep: int) -> Float[Array, ""]:
    """Mean overlap (intersection over union) of the patches that two distinct groups keep on the same image.

    1: the groups do not differ; unrelated choices of 12 from 49 overlap by .14.
    """
    groups = scores.shape[1]
    rank = jnp.argsort(jnp.argsort(-scores, axis=-1, stable=True), axis=-1)
    kept = (rank < keep).astype(jnp.float32)
    both = jnp.einsum("bgn,bhn->bgh", kept, kept)
    overlap = both / (2 * keep - both)
    distinct = 1 - jnp.eye(groups)
    return (overlap * distinct).sum() / (len(scores) * groups * (groups - 1))


def _unit(projections: Float[Array, "batch projection"]) -> Float[Array, "batch projection"]:
    z = losses.at_least_float32(projections)
    return z / jnp.maximum(jnp.linalg.norm(z, axis=-1, keepdims=True), 1e-12)
