"""The networks of SimFLE: BYOL's online side, FaceMAE, and the heads that tie them."""

from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from simfle_jax import losses
from simfle_jax.config import Config
from simfle_jax.kernels.gather import tokens_at
from simfle_jax.models.facemae import FaceMAE, patchify
from simfle_jax.models.heads import MLPHead
from simfle_jax.models.network import OnlineSide, Seen
from simfle_jax.models.semantic_masking import Masking, group_maps, mask_by_scores, of_group, patch_scores

Draw = Int[Array, " batch"] | Float[Array, "batch patch"]  # a group of each image, or a number for each patch


class Restored(NamedTuple):
    """What FaceMAE makes of the plain image, and the trunk's map of it where somebody needs it."""

    patches: Float[Array, "batch patch pixel"]  # the target
    predicted: Float[Array, "batch patch pixel"]
    masking: Masking
    latent: Float[Array, "batch token feature"]  # of the kept patches behind the class token
    scores: Float[Array, "batch group patch"] | None  # of semantic masking
    matrix: Float[Array, "channel channel"] | None  # of channel grouping
    map: Float[Array, "batch height width channel"] | None = None


class Networks(OnlineSide):
    """All that is trained: BYOL's online side, FaceMAE, and the heads that tie them."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.config = config
        self.facemae = FaceMAE(config, rngs)
        heads, facemae = config.heads, config.facemae
        if facemae.alpha > 0 and facemae.tie == "patch":
            self.distil_map = MLPHead(config.trunk.features, heads.hidden, facemae.width, rngs)
        elif facemae.alpha > 0:
            self.distil_gfl = MLPHead(config.trunk.features, heads.hidden, heads.out, rngs)
            self.distil_ffl = MLPHead(facemae.width, heads.hidden, heads.out, rngs)

    def restore(self, plain: Float[Array, "batch height width 3"], draw: Draw, train: bool = True) -> Restored:
        """FaceMAE on plain images; `draw` as `SimFLE.draw` gives it.

        train: whether BatchNorm takes the statistics of these images, as in a step, or those it has kept.
        """
        facemae = self.config.facemae
        scores = matrix = None
        cells: Any = None
        if facemae.masking == "semantic" or hasattr(self, "distil_map"):
            cells = self.plain_map(plain, train)
        if facemae.masking == "semantic":
            scores, matrix = self.score_map(cells, train)
            masking = mask_by_scores(of_group(scores, draw), self.config.kept_patches)
        else:
            masking = mask_by_scores(-draw, self.config.kept_patches)
        patches = patchify(plain, facemae.patch)
        latent = self.facemae.autoencoder.encode(patches, masking)
        predicted = self.facemae.autoencoder.decode(latent, masking)
        return Restored(patches, predicted, masking, latent, scores, matrix, cells)

    def score_patches(
        self, plain: Float[Array, "batch height width 3"], train: bool = True
    ) -> tuple[Float[Array, "batch group patch"], Float[Array, "channel channel"]]:
        """`score_map` of the trunk's map of plain images."""
        return self.score_map(self.plain_map(plain, train), train)

    def plain_map(self, plain: Float[Array, "batch height width 3"], train: bool) -> Float[Array, "batch y x channel"]:
        """The trunk's map of plain images. They have another size than what the encoder is used on, so that their
        statistics need not enter its running averages (`facemae.plain_in_averages`)."""
        encoder = self.online.encoder
        before = nnx.to_pure_dict(nnx.state(encoder, nnx.BatchStat))
        cells = encoder(plain, train).map
        if not self.config.facemae.plain_in_averages:
            nnx.update(encoder, before)
        return cells

    def score_map(
        self, cells: Float[Array, "batch height width channel"], train: bool = True
    ) -> tuple[Float[Array, "batch group patch"], Float[Array, "channel channel"]]:
        """Scores of the patches by each group of channels, and the grouping matrix.

        The trunk gets no gradient from here, and the scores none at all: the grouping loss alone trains the grouping.
        """
        activation = self.facemae.channel_grouping(jax.lax.stop_gradient(cells), train)
        maps = group_maps(losses.at_least_float32(jax.lax.stop_gradient(activation)), self.config.facemae.n_groups)
        scores = patch_scores(maps, self.config.grid, self.config.facemae.patch)
        return scores, losses.grouping_matrix(activation)

    def tied(self, seen: Seen, restored: Restored) -> tuple[jax.Array, ...]:
        """What the tie holds against each other, as in `Outputs.vectors`."""
        if self.config.facemae.alpha == 0:
            return ()
        if self.config.facemae.tie == "patch":
            assert restored.map is not None
            everywhere = patch_scores(restored.map, self.config.grid, self.config.facemae.patch).swapaxes(1, 2)
            cells = tokens_at(everywhere, restored.masking.kept)
            rows = self.distil_map(cells.reshape(-1, cells.shape[-1]), train=True)
            return rows.reshape(*cells.shape[:2], -1), restored.latent[:, 1:]
        k1, k2 = (self.distil_gfl(y, train=True) for y in seen.features)
        return k1, k2, self.distil_ffl(restored.latent[:, 1:].mean(1), train=True)
