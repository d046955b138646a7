"""What a step tells besides its losses: whether groups differ, features stay spread, and what they follow."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from simfle_jax import losses
from simfle_jax.models.ties import centred_by_place
from simfle_jax.views import Facts


def of_projections(projections: Float[Array, "batch projection"]) -> dict[str, Float[Array, ""]]:
    """`features/std` and `features/effective_rank` of projections."""
    found = {"features/std": spread(projections), "features/effective_rank": effective_rank(projections)}
    return jax.lax.stop_gradient(found)


def of_features(features: Float[Array, "batch feature"], facts: Facts | None) -> dict[str, Float[Array, ""]]:
    """`features/pooled_rank` of the first views' pooled features, and `shortcut/*`: what `facts` explain of them."""
    found = {"features/pooled_rank": directions(features)}
    if facts is not None:
        found |= {f"shortcut/{name}": explained(known, features) for name, known in facts._asdict().items()}
    return jax.lax.stop_gradient(found)


def of_tie(
    vectors: tuple[Float[Array, "batch *kept feature"], ...], kept: Int[Array, "batch kept"], patches: int
) -> dict[str, Float[Array, ""]]:
    """`tie/spread` and `tie/agreement` of the encoder's first and FaceMAE's last vectors, of images or of kept patches.

    Spread: standard deviation over the images of what the encoder gives. Agreement: how alike the two are in what tells
    images apart; the mean over images of the cosine of the vectors less their means. 0: unrelated, or all constant.
    """
    first, last = vectors[0], vectors[-1]
    if first.ndim == 2:
        first, last, kept, patches = first[:, None], last[:, None], jnp.zeros((len(first), 1), jnp.int32), 1
    a, b = (centred_by_place(x, kept, patches) for x in (first, last))
    lengths = jnp.sqrt(jnp.square(a).sum((1, 2)) * jnp.square(b).sum((1, 2)))
    cosines = (a * b).sum((1, 2)) / jnp.maximum(lengths, 1e-12)
    return jax.lax.stop_gradient({"tie/spread": jnp.sqrt(jnp.square(a).mean()), "tie/agreement": cosines.mean()})


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
    """`directions` of the normalised projections; it falls when dimensions collapse."""
    return directions(_unit(projections))


def directions(x: Float[Array, "batch feature"]) -> Float[Array, ""]:
    """How many directions carry the variance of vectors, from 1 to min(batch - 1, feature).

    The participation ratio of the covariance: (sum of eigenvalues)^2 / sum of their squares. Needs no eigenvalues: both
    sums are traces, taken on the smaller of the two Gram matrices.
    """
    x = losses.at_least_float32(x)
    centred = x - x.mean(0)
    gram = centred @ centred.T if len(centred) < centred.shape[-1] else centred.T @ centred
    return jnp.square(jnp.trace(gram)) / jnp.maximum(jnp.square(gram).sum(), 1e-30)


def explained(known: Float[Array, "batch known"], features: Float[Array, "batch feature"]) -> Float[Array, ""]:
    """The share of the variance of features that a linear function of what is known of each image explains.

    Less what as many unrelated numbers would explain of so few images (the adjusted R^2), so that it is about 0, also
    a little below, where there is nothing. 0 where the batch is too small to tell. Least squares by elimination on the
    few second moments: a column that is constant or follows from those before it adds nothing.
    """
    images, columns = known.shape
    if images <= columns + 1:
        return jnp.zeros(())
    known, features = (losses.at_least_float32(x) for x in (known, features))
    known, features = known - known.mean(0), features - features.mean(0)
    own, cross, total = known.T @ known, known.T @ features, jnp.square(features).sum()
    smallest = 1e-4 * jnp.diagonal(own) + 1e-8
    found = jnp.zeros(())
    for i in range(columns):
        weight = jnp.where(own[i, i] > smallest[i], 1 / jnp.maximum(own[i, i], smallest[i]), 0)
        found += weight * jnp.square(cross[i]).sum()
        follows = weight * own[:, i : i + 1]
        cross, own = cross - follows * cross[i], own - follows * own[i]
    share = found / jnp.maximum(total, 1e-30)
    return 1 - (1 - share) * (images - 1) / (images - 1 - columns)


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
