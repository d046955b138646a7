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
facemae.masking = 'random' or 'block', and alpha = 0 (no distillation). docs/method.md ties every symbol to its function.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from simfle_jax import instruments, losses
from simfle_jax.methods import byol
from simfle_jax.methods.base import Metrics, Outcome, weighted
from simfle_jax.models import ties
from simfle_jax.models.network import Seen
from simfle_jax.models.simfle import Draw, Networks, Restored
from simfle_jax.views import Views


class Outputs(NamedTuple):
    """Everything that one forward pass gives."""

    seen: Seen
    restored: Restored
    # The encoder's vectors, then FaceMAE's: k1, k2 and kp; with the tie 'patch' those of each kept patch. Empty without a tie.
    vectors: tuple[Float[Array, "batch *kept feature"], ...]


class SimFLE(byol.BYOL):
    """BYOL and FaceMAE."""

    def networks(self, rngs: nnx.Rngs) -> Networks:
        return Networks(self.config, rngs)

    def draw(self, keys: Key[Array, " batch"]) -> Draw:
        """For semantic masking a group of each image; else a number for each patch, of which the smallest stay."""
        if self.config.facemae.masking == "semantic":
            return jax.vmap(lambda key: jax.random.randint(key, (), 0, self.config.facemae.n_groups))(keys)
        if self.config.facemae.masking == "block":
            return distances(keys, self.config.grid)
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


def distances(keys: Key[Array, " batch"], grid: int) -> Float[Array, "batch {grid}*{grid}"]:
    """How far each patch lies from a point that is drawn anywhere on the image, in patches."""
    points = jax.vmap(lambda key: jax.random.uniform(key, (2, 1), maxval=grid))(keys)
    centres = jnp.stack(jnp.divmod(jnp.arange(grid**2), grid)) + 0.5
    return jnp.linalg.norm(points - centres, axis=1)


METHOD = SimFLE
