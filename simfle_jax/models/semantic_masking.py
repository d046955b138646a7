"""Which patches FaceMAE sees: chosen by what one group of the encoder's channels looks at, or at random."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from simfle_jax.arrays import AnyArray


class Masking(NamedTuple):
    """A choice of patches for every image of a batch.

    kept: indices of the patches that stay, best score first.
    restore: where each patch stands in the order 'kept first, masked behind'.
    masked: 1.0 where a patch is masked and 0.0 where it stays.
    """

    kept: Int[Array, "batch kept"]
    restore: Int[Array, "batch patch"]
    masked: Float[Array, "batch patch"]


def mask_by_scores(scores: Float[AnyArray, "batch patch"], keep: int) -> Masking:
    """Keeps the `keep` patches of highest score. Equal scores keep the order of the patches."""
    order = jnp.argsort(-scores, axis=-1, stable=True)
    restore = jnp.argsort(order, axis=-1)
    return Masking(order[:, :keep], restore, (restore >= keep).astype(jnp.float32))


def group_maps(
    activation: Float[AnyArray, "batch height width channel"], groups: int
) -> Float[Array, "batch height width {groups}"]:
    """Sums the channels of each group."""
    return activation.reshape(*activation.shape[:3], groups, -1).sum(-1)


def patch_scores(
    maps: Float[AnyArray, "batch height width group"], grid: int, patch: int
) -> Float[Array, "batch group {grid}*{grid}"]:
    """Scores every patch by what each group sees there.

    The published layer enlarges the map to the image's size and averages inside every patch; both are linear and fixed,
    so one small matrix per axis does the same.
    """
    rows = jnp.asarray(cells_to_patches(maps.shape[1], grid, patch), maps.dtype)
    columns = jnp.asarray(cells_to_patches(maps.shape[2], grid, patch), maps.dtype)
    scores = jnp.einsum("bhwg,ih,jw->bgij", maps, rows, columns, precision="highest")
    return scores.reshape(*scores.shape[:2], grid * grid)


def cells_to_patches(cells: int, grid: int, patch: int) -> Float[np.ndarray, "{grid} {cells}"]:
    """Bilinear enlargement (half-pixel centres, clamped, no antialias), then the mean in each patch."""
    size = grid * patch
    centre = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    low = np.minimum(centre.astype(int), max(cells - 2, 0))
    high = np.minimum(low + 1, cells - 1)
    enlarge = np.zeros((size, cells))
    np.add.at(enlarge, (np.arange(size), low), 1 - (centre - low))
    np.add.at(enlarge, (np.arange(size), high), centre - low)
    return enlarge.reshape(grid, patch, cells).mean(1)


def of_group(
    scores: Float[AnyArray, "batch group patch"], group_ids: Int[AnyArray, " batch"]
) -> Float[Array, "batch patch"]:
    """The scores of the group drawn for each image."""
    return jnp.take_along_axis(scores, group_ids[:, None, None], axis=1)[:, 0]
