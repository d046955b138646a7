"""MAE (He et al. 2022) on the plain face: FaceMAE's autoencoder alone, with random masking.

    patches = patchify(o);  keep a random quarter of them
    latent  = trunk(kept patches);  predicted = decoder(latent, mask tokens in place of the others)
    loss    = mean squared error on the masked patches, against pixels normalised within each patch

The trunk is a ViT, and it is what is exported and probed, at the size of the plain image.
"""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Key

from simfle_jax import losses
from simfle_jax.config import Config
from simfle_jax.methods.base import Method, Outcome, weighted
from simfle_jax.methods.simfle import random_order
from simfle_jax.models.facemae import Decoder, patchify
from simfle_jax.models.semantic_masking import mask_by_scores
from simfle_jax.models.simfle import Restored
from simfle_jax.models.trunks import make_trunk
from simfle_jax.views import Views


class Online(nnx.Module):
    """The trunk alone: there is no projector."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.encoder = make_trunk(config.trunk, config.image_size, config.remat, rngs)


class Networks(nnx.Module):
    """The trunk, and the decoder that is thrown away afterwards."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.online = Online(config, rngs)
        self.decoder = Decoder(config, config.trunk.width, rngs)
        self.config = config

    def restore(
        self, plain: Float[Array, "batch height width 3"], draw: Float[Array, "batch patch"], train: bool = True
    ) -> Restored:
        """Plain images from the patches that `draw` keeps; there is no BatchNorm that `train` could change."""
        masking = mask_by_scores(-draw, self.config.kept_patches)
        latent = self.online.encoder.tokens(plain, masking.kept)
        patches = patchify(plain, self.config.facemae.patch)
        return Restored(patches, self.decoder.decode(latent, masking), masking, latent, None, None)


class MAE(Method):
    """The masked autoencoder."""

    has_target = False

    def networks(self, rngs: nnx.Rngs) -> Networks:
        return Networks(self.config, rngs)

    def draw(self, keys: Key[Array, " batch"]) -> Float[Array, "batch patch"]:
        return random_order(keys, self.config.grid**2)

    def loss(self, networks: Any, views: Views, targets: None, draw: Float[Array, "batch patch"]) -> Outcome:
        restored = networks.restore(views.plain, draw)
        reconstruction = losses.reconstruction(restored.predicted, restored.patches, restored.masking.masked)
        return weighted({"reconstruction": reconstruction})._replace(outputs=restored.latent[:, 1:].mean(1))


METHOD = MAE
