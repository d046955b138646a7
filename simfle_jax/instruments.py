"""What a step tells besides its losses: whether groups differ, features stay spread, and what they follow."""

import jax
import jax.numpy as jnp

from simfle_jax import losses
from simfle_jax.views import Facts


def of_projections(projections: jax.Array) -> dict[str, jax.Array]:
    """`features/std` and `features/effective_rank` of projections [B, D], as scalars."""
    found = {"features/std": spread(projections), "features/effective_rank": effective_rank(projections)}
    return jax.lax.stop_gradient(found)


def of_features(features: tuple[jax.Array, ...], facts: Facts | None) -> dict[str, jax.Array]:
    """`features/pooled_rank` and `shortcut/*` of pooled features [B, F], one array for each view; scalars.

    Brightness and colour are held against what the views have in common, place against the first view.
    """
    first, common = features[0], sum(features[1:], features[0]) / len(features)
    found = {"features/pooled_rank": directions(first)}
    if facts is not None:
        found["shortcut/brightness"] = explained(facts.brightness, common)
        found["shortcut/colour"] = explained(facts.colour, common)
    if facts is not None and len(features) > 1:  # a plain image has no crop
        found["shortcut/place"] = explained(facts.place, first)
    return jax.lax.stop_gradient(found)


def of_groups(scores: jax.Array, matrix: jax.Array, groups: int, keep: int) -> dict[str, jax.Array]:
    """`grouping/separation` of the grouping matrix [C, C], `masking/agreement` of the patches' scores [B, groups, N]."""
    found = {"grouping/separation": losses.separation(matrix, groups), "masking/agreement": agreement(scores, keep)}
    return jax.lax.stop_gradient(found)


def spread(projections: jax.Array) -> jax.Array:
    """Standard deviation over the batch of the normalised projections [B, D], times sqrt(D).

    1: they point everywhere alike; 0: they have collapsed to one direction.
    """
    unit = _unit(projections)
    return jnp.sqrt(unit.var(0).mean() * unit.shape[-1])


def effective_rank(projections: jax.Array) -> jax.Array:
    """`directions` of the normalised projections [B, D]; it falls when dimensions collapse."""
    return directions(_unit(projections))


def directions(x: jax.Array) -> jax.Array:
    """How many directions carry the variance of x [B, D], from 1 to min(B - 1, D).

    The participation ratio of the covariance: (sum of eigenvalues)^2 / sum of their squares. Needs no eigenvalues: both
    sums are traces, taken on the smaller of the two Gram matrices.
    """
    x = losses.at_least_float32(x)
    centred = x - x.mean(0)
    gram = centred @ centred.T if len(centred) < centred.shape[-1] else centred.T @ centred
    return jnp.square(jnp.trace(gram)) / jnp.maximum(jnp.square(gram).sum(), 1e-30)


def explained(known: jax.Array, features: jax.Array) -> jax.Array:
    """The share of the variance of features [B, F] that a linear function of `known` [B, k] explains.

    Less what as many unrelated numbers would explain of so few images (the adjusted R^2), so that it is about 0, also
    a little below, where there is nothing. 0 where the batch is too small to tell. Least squares by Gram-Schmidt on the
    few columns: one that is constant or follows from the others adds nothing.
    """
    images, columns = known.shape
    if images <= columns + 1:
        return jnp.zeros(())
    known, features = (losses.at_least_float32(x) for x in (known, features))
    features = features - features.mean(0)
    axes: list[jax.Array] = []
    for column in known.T:
        length = jnp.linalg.norm(column - column.mean())
        rest = column - column.mean()
        for axis in axes:
            rest = rest - axis * (axis @ rest)
        left = jnp.linalg.norm(rest)
        axes.append(jnp.where(left > jnp.maximum(1e-3 * length, 1e-5), rest / jnp.maximum(left, 1e-12), 0))
    found = sum(jnp.square(axis @ features).sum() for axis in axes)
    share = found / jnp.maximum(jnp.square(features).sum(), 1e-30)
    return 1 - (1 - share) * (images - 1) / (images - 1 - columns)


def agreement(scores: jax.Array, keep: int) -> jax.Array:
    """Mean overlap (intersection over union) of the patches that two distinct groups keep on the same image.

    scores [B, G, N]. 1: the groups do not differ; unrelated choices of 12 from 49 overlap by .14.
    """
    groups = scores.shape[1]
    rank = jnp.argsort(jnp.argsort(-scores, axis=-1, stable=True), axis=-1)
    kept = (rank < keep).astype(jnp.float32)
    both = jnp.einsum("bgn,bhn->bgh", kept, kept)
    overlap = both / (2 * keep - both)
    distinct = 1 - jnp.eye(groups)
    return (overlap * distinct).sum() / (len(scores) * groups * (groups - 1))


def _unit(projections: jax.Array) -> jax.Array:
    z = losses.at_least_float32(projections)
    return z / jnp.maximum(jnp.linalg.norm(z, axis=-1, keepdims=True), 1e-12)
