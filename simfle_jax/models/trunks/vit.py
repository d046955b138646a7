"""The Vision Transformer under timm's layout (`vit_small_patch16_224`), with MAE's fixed positions."""

import jax
import jax.numpy as jnp
from flax import nnx

from simfle_jax.kernels.precision import at_least_float32
from simfle_jax.models.facemae import patchify
from simfle_jax.models.layers import Linear
from simfle_jax.models.transformer import Transformer, placed, positions
from simfle_jax.models.trunks.features import Features


class ViT(nnx.Module):
    """Images [B, H, W, 3], normalised, to the grid of their patch tokens and to the class token, both normalised.

    grid: patches along one side of the images that the positions are made for; other images get resampled ones.

    Positions are a statistic, not a parameter: nothing trains them, and a file's learned ones are kept as they are.
    """

    def __init__(self, width: int, depth: int, heads: int, patch: int, grid: int, remat: bool, rngs: nnx.Rngs):
        self.patch = patch
        self.patch_embed = Linear(patch**2 * 3, width, rngs, xavier=True)
        self.cls_token = nnx.Param(jax.nn.initializers.normal(0.02)(rngs.params(), (1, 1, width)))
        self.positions = nnx.BatchStat(jnp.asarray(positions(width, grid)))
        self.transformer = Transformer(width, depth, heads, remat, rngs)

    def __call__(self, images: jax.Array, train: bool) -> Features:
        tokens = self.tokens(images)
        batch, height, width, _ = images.shape
        cells = tokens[:, 1:].reshape(batch, height // self.patch, width // self.patch, -1)
        return Features(cells, tokens[:, 0])

    def tokens(self, images: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        """The class token and the patches' tokens behind it, [B, 1 + K, width].

        kept: indices [B, K] of the patches that stay; all of them stay without.
        """
        patches = self.patch_embed(patchify(images, self.patch))
        _, height, width, _ = images.shape
        where = resampled(self.positions[...], height // self.patch, width // self.patch)
        return self.transformer(placed(patches, self.cls_token[...], where.astype(patches.dtype), kept))


def resampled(table: jax.Array, rows: int, columns: int) -> jax.Array:
    """Positions [1 + n * n, width] for a grid of other size, [1 + rows * columns, width].

    Bicubic and antialiased, as timm's `resample_abs_pos_embed`; the class token's stays.
    """
    grid, width = round((len(table) - 1) ** 0.5), table.shape[-1]
    if (rows, columns) == (grid, grid):
        return table
    cells = at_least_float32(table[1:]).reshape(grid, grid, width)
    cells = jax.image.resize(cells, (rows, columns, width), "cubic").reshape(rows * columns, width)
    return jnp.concatenate([table[:1], cells.astype(table.dtype)])
