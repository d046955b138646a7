"""SimFLE (Moon, Jang, Park 2023): BYOL on two views, and FaceMAE on the plain face, tied by distillation.

    L_s: BYOL's loss of the two views (byol.py)
    F = trunk(o), A = channel_grouping(F)              # o: the plain face; no gradient reaches the trunk from here
    L_g = g(A)^2                                       # channels form groups that look at the same places
    mask: the patches that a randomly drawn group of A sees least
    L_r: FaceMAE restores the masked patches of o from the others
    k1, k2 = distil_gfl(y1), distil_gfl(y2);  kp = distil_ffl(mean latent token of FaceMAE)
    L_d: each of the three learns from their mean      # or another tie, facemae.tie: models/ties.py
    L = L_s + L_r + alpha L_d + beta L_g

The published code's behaviour, where paper and code differ. By settings also the method's own baselines:
facemae.masking = 'random', and alpha = 0 (no distillation). docs/method.md ties every symbol to its function.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from simfle_jax import instruments, losses
from simfle_jax.config import Config
from simfle_jax.methods import byol
from simfle_jax.methods.base import Metrics, Outcome, weighted
from simfle_jax.models import ties
from simfle_jax.models.facemae import FaceMAE, patchify
from simfle_jax.models.heads import MLPHead
from simfle_jax.models.semantic_masking import Masking, group_maps, mask_by_scores, of_group, patch_scores
from simfle_jax.views import Views

Draw = Int[Array, " batch"] | Float[Array, "batch patch"]  # a group of each image, or a number for each patch


class Restored(NamedTuple):
    """What FaceMAE makes of the plain image, and the trunk's map of it where somebody needs it."""

    patches: Float[Array, "batch patch pixel"]  # the target
    predicted: Float[Array, "batch patch pixel"]
    masking: Masking
    latent: Float[Array, "batch token feature"]  # of the kept patches behind the class token
    scores: Float[Array, "batch group patch"] | None  # of semantic masking
    matrix: Float[Array, "channel channel"] | None  # of channel grouping
    map: Float[Array, "batch height width channel"] | None


class Outputs(NamedTuple):
    """Everything that one forward pass gives."""

    seen: byol.Seen
    restored: Restored
    # The encoder's vectors, then FaceMAE's: k1, k2 and kp; with the tie 'patch' those of each kept patch. Empty without a tie.
    vectors: tuple[Float[Array, "batch *kept feature"], ...]


class Networks(byol.OnlineSide):
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

    def restore(self, plain: Float[Array, "batch height width 3"], draw: Draw) -> Restored:
        """FaceMAE on plain images; `draw` as `SimFLE.draw` gives it."""
        scores = matrix = None
        cells: Any = None
        facemae = self.config.facemae
        if facemae.masking == "semantic" or hasattr(self, "distil_map"):
            cells = self.online.encoder(plain, train=True).map
        if facemae.masking == "semantic":
            scores, matrix = self.score_map(cells)
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
        return self.score_map(self.online.encoder(plain, train).map, train)

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

    def tied(self, seen: byol.Seen, restored: Restored) -> tuple[jax.Array, ...]:
        """What the tie holds against each other, as in `Outputs.vectors`."""
        if self.config.facemae.alpha == 0:
            return ()
        if self.config.facemae.tie == "patch":
            assert restored.map is not None
            everywhere = patch_scores(restored.map, self.config.grid, self.config.facemae.patch).swapaxes(1, 2)
            cells = jnp.take_along_axis(everywhere, restored.masking.kept[:, :, None], axis=1)
            rows = self.distil_map(cells.reshape(-1, cells.shape[-1]), train=True)
            return rows.reshape(*cells.shape[:2], -1), restored.latent[:, 1:]
        k1, k2 = (self.distil_gfl(y, train=True) for y in seen.features)
        return k1, k2, self.distil_ffl(restored.latent[:, 1:].mean(1), train=True)


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
        restored = networks.restore(views.plain, draw)
        terms = {"similarity": byol.similarity(seen.predictions, targets)}
        terms["reconstruction"] = losses.reconstruction(restored.predicted, restored.patches, restored.masking.masked)
        vectors = networks.tied(seen, restored)
        if vectors:
            terms["distillation"] = self.tie_loss(vectors, targets, restored)
        if restored.matrix is not None:
            terms["grouping"] = losses.grouping(restored.matrix, facemae.n_groups) ** 2
        outcome = weighted(terms, distillation=facemae.alpha, grouping=facemae.beta)
        return outcome._replace(outputs=Outputs(seen, restored, vectors), features=seen.features[0])

    def tie_loss(
        self, vectors: tuple[jax.Array, ...], targets: byol.Projections, restored: Restored
    ) -> Float[Array, ""]:
        """L_d of the vectors of `Networks.tied`, by the tie that the settings name."""
        facemae = self.config.facemae
        if facemae.tie == "patch":
            cells, tokens = vectors
            return ties.patch(cells, tokens, restored.masking.kept, self.config.grid**2)
        return ties.POOLED[facemae.tie](vectors, targets, facemae.temperature)

    def instruments(self, outputs: Outputs) -> Metrics:
        """BYOL's, `tie/*`, and of semantic masking `grouping/separation` and `masking/agreement`."""
        found, restored = super().instruments(outputs.seen), outputs.restored
        if outputs.vectors:
            found |= instruments.of_tie(outputs.vectors, restored.masking.kept, self.config.grid**2)
        if restored.scores is None or restored.matrix is None:
            return found
        return found | instruments.of_groups(
            restored.scores, restored.matrix, self.config.facemae.n_groups, self.config.kept_patches
        )


def random_order(keys: Key[Array, " batch"], patches: int) -> Float[Array, "batch {patches}"]:
    """A number for each patch, from one key per image; the patches of the smallest stay."""
    return jax.vmap(lambda key: jax.random.uniform(key, (patches,)))(keys)


METHOD = SimFLE
