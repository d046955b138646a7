"""The parts of a Vision Transformer: tokens of patches, pre-norm blocks and fixed positions, as in MAE."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from simfle_jax.arrays import AnyArray
from simfle_jax.kernels.gather import tokens_at
from simfle_jax.kernels.precision import at_least_float32
from simfle_jax.models.layers import LayerNorm, Linear


class Attention(nnx.Module):
    """Multi-head self-attention over tokens."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = Linear(width, 3 * width, rngs, xavier=True)
        self.proj = Linear(width, width, rngs, xavier=True)

    def __call__(self, x: Float[AnyArray, "batch token feature"]) -> Float[Array, "batch token feature"]:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (width // self.heads) ** -0.5
        weights = jax.nn.softmax(at_least_float32(logits)).astype(x.dtype)
        return self.proj(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)) with four times the width and exact GELU."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.norm1 = LayerNorm(width)
        self.attn = Attention(width, heads, rngs)
        self.norm2 = LayerNorm(width)
        self.fc1 = Linear(width, 4 * width, rngs, xavier=True)
        self.fc2 = Linear(4 * width, width, rngs, xavier=True)

    def __call__(self, x: Float[AnyArray, "batch token feature"]) -> Float[Array, "batch token feature"]:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False))


class Transformer(nnx.Module):
    """`depth` blocks and a final norm on tokens."""

    def __init__(self, width: int, depth: int, heads: int, remat: bool, rngs: nnx.Rngs):
        self.remat = remat
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(depth)])
        self.norm = LayerNorm(width)

    def __call__(self, x: Float[AnyArray, "batch token feature"]) -> Float[Array, "batch token feature"]:
        apply = nnx.remat(Block.__call__) if self.remat else Block.__call__
        for block in self.blocks:
            x = apply(block, x)
        return self.norm(x)


def placed(
    patches: Float[Array, "batch patch width"],
    cls_token: Float[Array, "1 1 width"],
    where: Float[Array, "tokens width"],
    kept: Int[Array, "batch kept"] | None = None,
) -> Float[Array, "batch token width"]:
    """Embedded patches [B, N, width] as tokens [B, 1 + K, width] with their positions `where` [1 + N, width] added.

    The class token [1, 1, width] comes first. kept: indices [B, K] of the patches that stay; all of them stay without.
    """
    tokens = patches + where[1:]
    if kept is not None:
        tokens = tokens_at(tokens, kept)
    cls = jnp.broadcast_to(cls_token.astype(tokens.dtype) + where[0], (len(tokens), 1, tokens.shape[-1]))
    return jnp.concatenate([cls, tokens], axis=1)


def positions(width: int, grid: int) -> Float32[np.ndarray, "1+{grid}*{grid} {width}"]:
    """Fixed sin-cos positions of the class token and of grid * grid patches; the class token's are zero.

    The first half of the width encodes the column, the second the row; each half is sines, then cosines, of
    position * 10000 ** (-i / (width / 4)). Computed in float64.
    """
    row, column = np.divmod(np.arange(grid * grid), grid)
    frequency = 10000.0 ** (-np.arange(width // 4) / (width / 4))
    waves = [np.outer(axis, frequency) for axis in (column, row)]
    table = np.concatenate([f(wave) for wave in waves for f in (np.sin, np.cos)], axis=1)
    return np.concatenate([np.zeros((1, width)), table]).astype(np.float32)
