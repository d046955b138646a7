"""SimFLE: the online network, its heads and FaceMAE, and what one forward pass over a batch gives."""

from typing import NamedTuple

import jax
from flax import nnx

from simfle_jax import losses
from simfle_jax.config import Config
from simfle_jax.models.facemae import FaceMAE, patchify
from simfle_jax.models.heads import MLPHead
from simfle_jax.models.trunks.resnet import ResNet, pool
from simfle_jax.models.semantic_masking import Masking, group_maps, mask_by_scores, of_group, patch_scores


class Network(nnx.Module):
    """Trunk and projection: the online network, and the target network by its own copy of the arrays."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        m = config.model
        self.encoder = ResNet(m.stage_sizes, m.width, m.last_stride, config.remat, rngs)
        self.projection = MLPHead(m.features, m.head_hidden, m.head_out, rngs)

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Images [B, H, W, 3] to pooled features y [B, features] and projections z [B, head_out]."""
        y = pool(self.encoder(x, train))
        return y, self.projection(y, train)


class Global(NamedTuple):
    """What the two augmented views give; every array [B, head_out]."""

    projections: tuple[jax.Array, jax.Array]
    predictions: tuple[jax.Array, jax.Array]
    distilled: tuple[jax.Array, ...]  # k1 and k2; empty without distillation


class Local(NamedTuple):
    """What FaceMAE makes of the plain image."""

    patches: jax.Array  # [B, N, pixels], the target
    predicted: jax.Array  # [B, N, pixels]
    masking: Masking
    distilled: jax.Array | None  # kp [B, head_out]
    scores: jax.Array | None  # [B, groups, N], of semantic masking
    matrix: jax.Array | None  # [channels, channels], of channel grouping


class SimFLE(nnx.Module):
    """All that is trained. By settings also the method's own baselines:

    model.facemae = False (BYOL alone), model.masking = 'random', alpha = 0 (no distillation).
    """

    def __init__(self, config: Config, rngs: nnx.Rngs):
        m = config.model
        self.config = config
        self.distils = m.facemae and config.alpha > 0
        self.online = Network(config, rngs)
        self.predictor = MLPHead(m.head_out, m.head_hidden, m.head_out, rngs)
        if m.facemae:
            self.facemae = FaceMAE(config, rngs)
        if self.distils:
            self.distil_gfl = MLPHead(m.features, m.head_hidden, m.head_out, rngs)
            self.distil_ffl = MLPHead(m.vit_width, m.head_hidden, m.head_out, rngs)

    def global_branch(self, x1: jax.Array, x2: jax.Array) -> Global:
        """BYOL's online side on the two views [B, H, W, 3], each its own batch for BatchNorm."""
        y1, z1 = self.online(x1, train=True)
        y2, z2 = self.online(x2, train=True)
        predictions = self.predictor(z1, train=True), self.predictor(z2, train=True)
        distilled = (self.distil_gfl(y1, train=True), self.distil_gfl(y2, train=True)) if self.distils else ()
        return Global((z1, z2), predictions, distilled)

    def local_branch(self, plain: jax.Array, draw: jax.Array) -> Local:
        """FaceMAE on plain images [B, h, w, 3].

        draw: for semantic masking the group of each image [B]; for random masking a number for each patch [B, N], of
        which the smallest stay.
        """
        keep = self.config.kept_patches
        scores = matrix = None
        if self.config.model.masking == "semantic":
            scores, matrix = self.score_patches(plain)
            masking = mask_by_scores(of_group(scores, draw), keep)
        else:
            masking = mask_by_scores(-draw, keep)
        patches = patchify(plain, self.config.model.patch)
        latent = self.facemae.autoencoder.encode(patches, masking)
        predicted = self.facemae.autoencoder.decode(latent, masking)
        distilled = self.distil_ffl(latent[:, 1:].mean(1), train=True) if self.distils else None
        return Local(patches, predicted, masking, distilled, scores, matrix)

    def score_patches(self, plain: jax.Array, train: bool = True) -> tuple[jax.Array, jax.Array]:
        """Scores [B, groups, N] of the patches by each group of channels, and the grouping matrix [C, C].

        The trunk gets no gradient from here, and the scores none at all: the grouping loss alone trains the grouping.
        """
        features = jax.lax.stop_gradient(self.online.encoder(plain, train))
        activation = self.facemae.channel_grouping(features, train)
        maps = group_maps(losses.at_least_float32(jax.lax.stop_gradient(activation)), self.config.n_groups)
        scores = patch_scores(maps, self.config.grid, self.config.model.patch)
        return scores, losses.grouping_matrix(activation)


def draw_masking(keys: jax.Array, config: Config) -> jax.Array:
    """What `local_branch` needs to be drawn, one key [B] per image: a group each, or a number for each patch."""
    if config.model.masking == "semantic":
        return jax.vmap(lambda key: jax.random.randint(key, (), 0, config.n_groups))(keys)
    return jax.vmap(lambda key: jax.random.uniform(key, (config.grid**2,)))(keys)
