"""What a run looks at in some images: the groups' scores, the kept patches, and what FaceMAE makes of the others."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from simfle_jax.config import Config
from simfle_jax.evaluation.reconstruction import normalised_patches
from simfle_jax.methods import find_method
from simfle_jax.models.facemae import unpatchify
from simfle_jax.training.state import TrainState, structures
from simfle_jax.views import image_keys, in_pixels, plain_images


class Look(NamedTuple):
    """Of images [B], at one step of a run; pixels lie in 0..1."""

    step: int
    images: np.ndarray  # [B, P, P, 3], as FaceMAE is to restore them
    restored: np.ndarray  # [B, P, P, 3], the visible patches pasted in
    kept: np.ndarray  # bool [B, N]
    error: np.ndarray  # [B, N], mean squared error of the normalised pixels of a patch; 0 where it is visible
    drawn: np.ndarray | None  # [B], the group that chose the patches; None: they were chosen at random
    scores: np.ndarray | None  # [B, groups, N]
    matrix: np.ndarray | None  # [C, C], cosines between channels, neighbours in one group

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return round(self.kept.shape[1] ** 0.5)


def look(config: Config, state: TrainState, images: np.ndarray) -> Look | None:
    """What the run of this state sees in uint8 images [B, S, S, 3]; None: its method restores nothing.

    BatchNorm takes the statistics that it has kept, so that what is seen in an image does not depend on the others.
    The groups are drawn from the run's seed, the same at every step.
    """
    seen = _seen(config)
    if seen is None:
        return None
    shown, restored, hidden, kept, error, draw, scores, matrix = jax.device_get(seen(state.params, state.stats, images))
    restored = np.where(hidden, restored, shown)
    drawn = None if scores is None else np.asarray(draw)
    return Look(int(state.step), shown, restored, kept, error, drawn, scores, matrix)


@functools.lru_cache(maxsize=4)
def _seen(config: Config) -> Callable[..., tuple[Any, ...]] | None:
    """The program of `look`, compiled once for all checkpoints of a run; None: the method restores nothing."""
    method = find_method(config)
    graph, _ = structures(method)
    if not hasattr(nnx.eval_shape(lambda: method.networks(nnx.Rngs(0))), "restore"):
        return None

    @jax.jit
    def seen(params: Any, stats: Any, images: jax.Array) -> tuple[Any, ...]:
        draw = method.draw(image_keys(config.seed, 0, len(images)))
        with jax.default_matmul_precision("float32"):  # as features are computed
            found = nnx.merge(graph, params, stats).restore(plain_images(images, config), draw, train=False)
        # The decoder's target is normalised within each patch: without the patch's own contrast it looks like noise.
        target = normalised_patches(found.patches)
        mean, spread = found.patches.mean(-1, keepdims=True), found.patches.std(-1, keepdims=True, ddof=1)
        masked = found.masking.masked
        guessed = found.predicted * spread + mean
        error = ((found.predicted - target) ** 2).mean(-1) * masked
        shown, restored = (
            in_pixels(unpatchify(x, config.facemae.patch), images, config) for x in (found.patches, guessed)
        )
        hidden = unpatchify(jnp.broadcast_to(masked[..., None], guessed.shape), config.facemae.patch) > 0
        return shown, restored, hidden, masked < 0.5, error, draw, found.scores, found.matrix

    return seen


def best_patches(scores: np.ndarray, keep: int) -> np.ndarray:
    """Which patches each group would keep: scores [..., N] to bool [..., N]; equal scores keep the patches' order."""
    rank = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1, kind="stable")
    return rank < keep


def landmark_hits(kept: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How much more often than by chance a group keeps a patch with a landmark of each part of the face.

    kept: bool [B, groups, N]; points: [B, 68, 2], x and y in shares of the side.
    Returns [groups, parts] in the order of PARTS: the share of kept patches with such a landmark, over that of all
    patches. 1: as by chance; NaN where no landmark of the part lies in an image.
    """
    grid = round(kept.shape[-1] ** 0.5)
    cells = np.clip((points * grid).astype(int), 0, grid - 1)
    place = cells[..., 1] * grid + cells[..., 0]
    hits = []
    for numbers in PARTS.values():
        there = np.zeros((len(kept), grid**2), bool)
        np.put_along_axis(there, place[:, numbers], True, axis=1)
        chance = there.mean() or np.nan
        hits.append((kept & there[:, None]).sum((0, 2)) / np.maximum(kept.sum((0, 2)), 1) / chance)
    return np.stack(hits, axis=1)


# Rows of the 68 landmarks.
PARTS = {
    "jaw": slice(0, 17), "brows": slice(17, 27), "nose": slice(27, 36), "eyes": slice(36, 48), "mouth": slice(48, 68),
}  # fmt: skip
