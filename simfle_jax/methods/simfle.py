"""SimFLE (Moon, Jang, Park 2023): BYOL on two views, and FaceMAE on the plain face, tied by distillation.

    L_s: BYOL's loss of the two views (byol.py)
    F = trunk(o), A = channel_grouping(F)              # o: the plain face; no gradient reaches the trunk from here
    L_g = g(A)^2                                       # channels form groups that look at the same places
    mask: the patches that a randomly drawn group of A sees least
    L_r: FaceMAE restores the masked patches of o from the others
    k1, k2 = distil_gfl(y1), distil_gfl(y2);  kp = distil_ffl(mean latent token of FaceMAE)
    L_d: each of the three learns from their mean
    L = L_s + L_r + alpha L_d + beta L_g

The published code's behaviour, where paper and code differ. By settings also the method's own baselines:
facemae.masking = 'random', and alpha = 0 (no distillation). docs/method.md ties every symbol to its function.
"""

from typing import Any, NamedTuple

import jax
from flax import nnx

from simfle_jax import instruments, losses
from simfle_jax.config import Config
from simfle_jax.methods import byol
from simfle_jax.methods.base import Metrics, Outcome, weighted
from simfle_jax.models.facemae import FaceMAE, patchify
from simfle_jax.models.heads import MLPHead
from simfle_jax.models.semantic_masking import Masking, group_maps, mask_by_scores, of_group, patch_scores
from simfle_jax.views import Views


class Restored(NamedTuple):
    """What FaceMAE makes of the plain image."""

    patches: jax.Array  # [B, N, pixels], the target
    predicted: jax.Array  # [B, N, pixels]
    masking: Masking
    latent: jax.Array  # [B, 1 + K, width], tokens of the kept patches behind the class token
    scores: jax.Array | None  # [B, groups, N], of semantic masking
    matrix: jax.Array | None  # [channels, channels], of channel grouping


class Outputs(NamedTuple):
    """Everything that one forward pass gives."""

    seen: byol.Seen
    restored: Restored
    vectors: tuple[jax.Array, ...]  # k1, k2 and kp [B, heads.out]; empty without distillation


class Networks(byol.OnlineSide):
    """All that is trained: BYOL's online side, FaceMAE, and the heads that tie them."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.config = config
        self.facemae = FaceMAE(config, rngs)
        if config.facemae.alpha > 0:
            heads = config.heads
            self.distil_gfl = MLPHead(config.trunk.features, heads.hidden, heads.out, rngs)
            self.distil_ffl = MLPHead(config.facemae.width, heads.hidden, heads.out, rngs)

    def restore(self, plain: jax.Array, draw: jax.Array) -> Restored:
        """FaceMAE on plain images [B, h, w, 3]; `draw` as `SimFLE.draw` gives it."""
        scores = matrix = None
        if self.config.facemae.masking == "semantic":
            scores, matrix = self.score_patches(plain)
            masking = mask_by_scores(of_group(scores, draw), self.config.kept_patches)
        else:
            masking = mask_by_scores(-draw, self.config.kept_patches)
        patches = patchify(plain, self.config.facemae.patch)
        latent = self.facemae.autoencoder.encode(patches, masking)
        return Restored(patches, self.facemae.autoencoder.decode(latent, masking), masking, latent, scores, matrix)

    def score_patches(self, plain: jax.Array, train: bool = True) -> tuple[jax.Array, jax.Array]:
        """Scores [B, groups, N] of the patches by each group of channels, and the grouping matrix [C, C].

        The trunk gets no gradient from here, and the scores none at all: the grouping loss alone trains the grouping.
        """
        features = jax.lax.stop_gradient(self.online.encoder(plain, train).map)
        activation = self.facemae.channel_grouping(features, train)
        maps = group_maps(losses.at_least_float32(jax.lax.stop_gradient(activation)), self.config.facemae.n_groups)
        scores = patch_scores(maps, self.config.grid, self.config.facemae.patch)
        return scores, losses.grouping_matrix(activation)


class SimFLE(byol.BYOL):
    """BYOL and FaceMAE."""

    def networks(self, rngs: nnx.Rngs) -> Networks:
        return Networks(self.config, rngs)

    def draw(self, keys: jax.Array) -> jax.Array:
        """For semantic masking a group of each image [B]; for random masking a number for each patch [B, N], of which
        the smallest stay."""
        if self.config.facemae.masking == "semantic":
            return jax.vmap(lambda key: jax.random.randint(key, (), 0, self.config.facemae.n_groups))(keys)
        return random_order(keys, self.config.grid**2)

    def loss(self, networks: Any, views: Views, targets: tuple[jax.Array, jax.Array], draw: jax.Array) -> Outcome:
        facemae = self.config.facemae
        seen = networks.see(views)
        vectors = tuple(networks.distil_gfl(y, train=True) for y in seen.features) if facemae.alpha > 0 else ()
        restored = networks.restore(views.plain, draw)
        terms = {"similarity": byol.similarity(seen.predictions, targets)}
        terms["reconstruction"] = losses.reconstruction(restored.predicted, restored.patches, restored.masking.masked)
        if facemae.alpha > 0:
            vectors += (networks.distil_ffl(restored.latent[:, 1:].mean(1), train=True),)
            terms["distillation"] = losses.mutual_distillation(list(vectors), facemae.temperature)
        if restored.matrix is not None:
            terms["grouping"] = losses.grouping(restored.matrix, facemae.n_groups) ** 2
        outcome = weighted(terms, distillation=facemae.alpha, grouping=facemae.beta)
        return outcome._replace(outputs=Outputs(seen, restored, vectors), features=seen.features)

    def instruments(self, outputs: Outputs) -> Metrics:
        """BYOL's, and of semantic masking `grouping/separation` and `masking/agreement`."""
        found, restored = super().instruments(outputs.seen), outputs.restored
        if restored.scores is None or restored.matrix is None:
            return found
        return found | instruments.of_groups(
            restored.scores, restored.matrix, self.config.facemae.n_groups, self.config.kept_patches
        )


def random_order(keys: jax.Array, patches: int) -> jax.Array:
    """A number for each patch, [B, patches], from one key [B] per image; the patches of the smallest stay."""
    return jax.vmap(lambda key: jax.random.uniform(key, (patches,)))(keys)


METHOD = SimFLE
