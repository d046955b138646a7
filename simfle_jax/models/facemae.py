"""FaceMAE: a masked autoencoder on the plain face that restores the patches which semantic masking hid."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from simfle_jax.arrays import AnyArray
from simfle_jax.config import Config
from simfle_jax.kernels.gather import tokens_at
from simfle_jax.models.channel_grouping import ChannelGrouping
from simfle_jax.models.layers import Linear
from simfle_jax.models.semantic_masking import Masking
from simfle_jax.models.transformer import Transformer, placed, positions


def patchify(images: Float[AnyArray, "batch height width channel"], patch: int) -> Float[AnyArray, "batch patch pixel"]:
    """Images to patches; pixels in (row, column, channel) order."""
    batch, height, width, channels = images.shape
    x = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(batch, -1, patch * patch * channels)


def unpatchify(
    patches: Float[AnyArray, "batch patch pixel"], patch: int
) -> Float[AnyArray, "batch height width channel"]:
    """The inverse of `patchify` for square images."""
    batch, count, _ = patches.shape
    grid = round(count**0.5)
    x = patches.reshape(batch, grid, grid, patch, patch, -1).swapaxes(2, 3)
    return x.reshape(batch, grid * patch, grid * patch, -1)


class Decoder(nnx.Module):
    """MAE's narrow ViT decoder: from latent tokens of the kept patches to the pixels of every patch."""

    def __init__(self, config: Config, latent_width: int, rngs: nnx.Rngs):
        m = config.facemae
        self.grid = config.grid
        self.decoder_embed = Linear(latent_width, m.decoder_width, rngs, xavier=True)
        self.mask_token = nnx.Param(jax.nn.initializers.normal(0.02)(rngs.params(), (1, 1, m.decoder_width)))
        self.decoder = Transformer(m.decoder_width, m.decoder_depth, m.decoder_heads, config.remat, rngs)
        self.decoder_pred = Linear(m.decoder_width, m.patch**2 * 3, rngs, xavier=True)

    def decode(
        self, latent: Float[AnyArray, "batch token feature"], masking: Masking
    ) -> Float[Array, "batch patch pixel"]:
        """Latent tokens, class token first, to predicted pixels of all patches."""
        x = self.decoder_embed(latent)
        batch, count, width = x.shape
        hidden = masking.restore.shape[1] - (count - 1)
        blanks = jnp.broadcast_to(self.mask_token[...].astype(x.dtype), (batch, hidden, width))
        tokens = jnp.concatenate([x[:, 1:], blanks], axis=1)
        tokens = tokens_at(tokens, masking.restore)
        x = jnp.concatenate([x[:, :1], tokens], axis=1) + jnp.asarray(positions(width, self.grid), x.dtype)
        return self.decoder_pred(self.decoder(x))[:, 1:]


class Autoencoder(Decoder):
    """MAE: a ViT encoder on the kept patches, and the decoder."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        m = config.facemae
        self.patch_embed = Linear(m.patch**2 * 3, m.width, rngs, xavier=True)
        self.cls_token = nnx.Param(jax.nn.initializers.normal(0.02)(rngs.params(), (1, 1, m.width)))
        self.encoder = Transformer(m.width, m.depth, m.heads, config.remat, rngs)
        super().__init__(config, m.width, rngs)

    def encode(
        self, patches: Float[AnyArray, "batch patch pixel"], masking: Masking
    ) -> Float[Array, "batch token feature"]:
        """Patches to latent tokens of the kept ones, class token first."""
        tokens = self.patch_embed(patches)
        where = jnp.asarray(positions(tokens.shape[-1], self.grid), tokens.dtype)
        return self.encoder(placed(tokens, self.cls_token[...], where, masking.kept))


class FaceMAE(nnx.Module):
    """The autoencoder and, for semantic masking, the channel grouping that chooses what it sees."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        m = config.facemae
        self.autoencoder = Autoencoder(config, rngs)
        if m.masking == "semantic":
            self.channel_grouping = ChannelGrouping(config.trunk.features, m.n_groups, m.grouping_init, rngs)
