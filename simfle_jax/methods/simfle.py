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
from jaxtyping import Array, Float, Int, Key

from simfle_jax import instruments, losses
from simfle_jax.config import Config
from simfle_jax.methods import byol
from simfle_jax.methods.base import Metrics, Outcome, weighted
from simfle_jax.models.facemae import FaceMAE, patchify
from simfle_jax.models.heads import MLPHead
from simfle_jax.models.semantic_masking import Masking, group_maps, mask_by_scores, of_group, patch_scores
from simfle_jax.views import Views

Draw = Int[Array, " batch"] | Float[Array, "batch patch"]  # a group of each image, or a number for each patch


class Restored(NamedTuple):
    """What FaceMAE makes of the plain image."""

    patches: Float[Array, "batch patch pixel"]  # the target
    predicted: Float[Array, "batch patch pixel"]
    masking: Masking
    latent: Float[Array, "batch token feature"]  # of the kept patches behind the class token
    scores: Float[Array, "batch group patch"] | None  # of semantic masking
    matrix: Float[Array, "channel channel"] | None  # of channel grouping


class Outputs(NamedTuple):
    """Everything that one forward pass gives."""

    seen: byol.Seen
    restored: Restored
    vectors: tuple[Float[Array, "batch feature"], ...]  # k1, k2 and kp; empty without distillation


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

    def restore(self, plain: Float[Array, "batch height width 3"], draw: Draw, train: bool = True) -> Restored:
        """FaceMAE on plain images; `draw` as `SimFLE.draw` gives it.

        train: whether BatchNorm takes the statistics of these images, as in a step, or those it has kept.
        """
        scores = matrix = None
        if self.config.facemae.masking == "semantic":
            scores, matrix = self.score_patches(plain, train)
            masking = mask_by_scores(of_group(scores, draw), self.config.kept_patches)
        else:
            masking = mask_by_scores(-draw, self.config.kept_patches)
        patches = patchify(plain, self.config.facemae.patch)
        latent = self.facemae.autoencoder.encode(patches, masking)
        return Restored(patches, self.facemae.autoencoder.decode(latent, masking), masking, latent, scores, matrix)

    def score_patches(
        self, plain: Float[Array, "batch height width 3"], train: bool = True
    ) -> tuple[Float[Array, "batch group patch"], Float[Array, "channel channel"]]:
        """Scores of the patches by each group of channels, and the grouping matrix.

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

    def draw(self, keys: Key[Array, " batch"]) -> Draw:
        """For semantic masking a group of each image; for random masking a number for each patch, of which the smallest
        stay."""
        if self.config.facemae.masking == "semantic":
            return jax.vmap(lambda key: jax.random.randint(key, (), 0, self.config.facemae.n_groups))(keys)
        return random_order(keys, self.config.grid**2)

    def loss(self, networks: Any, views: Views, targets: byol.Projections, draw: Draw) -> Outcome:
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
        return outcome._replace(outputs=Outputs(seen, restored, vectors))

    def instruments(self, outputs: Outputs) -> Metrics:
        """BYOL's, and of semantic masking `grouping/separation` and `masking/agreement`."""
        found, restored = super().instruments(outputs.seen), outputs.restored
        if restored.scores is None or restored.matrix is None:
            return found
        return found | instruments.of_groups(
            restored.scores, restored.matrix, self.config.facemae.n_groups, self.config.kept_patches
        )


def random_order(keys: Key[Array, " batch"], patches: int) -> Float[Array, "batch {patches}"]:
    """A number for each patch, from one key per image; the patches of the smallest stay."""
    return jax.vmap(lambda key: jax.random.uniform(key, (patches,)))(keys)


METHOD = SimFLE
