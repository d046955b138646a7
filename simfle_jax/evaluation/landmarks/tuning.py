"""Fine-tuning for landmarks: the trunk is trained with attention pooling, on random crops and flips of images and points.

From a fresh trunk this is the supervised ceiling. Crops are milder than a classifier's, so that most points stay in view.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax import augment
from simfle_jax.data.sources import Source
from simfle_jax.encoder import Encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.features import CROP_RATIO, FLIP
from simfle_jax.evaluation.finetune import Tree, Tuning
from simfle_jax.evaluation.landmarks.data import Learned, check_inside, in_shares, mean_shape, with_points
from simfle_jax.evaluation.landmarks.heads import AttentionHead, attended, fresh_attention, mean_distance
from simfle_jax.evaluation.landmarks.reading import Table
from simfle_jax.evaluation.landmarks.schemes import Scheme, flipped
from simfle_jax.evaluation.settings import Probe
from simfle_jax.evaluation.tuning import tuned
from simfle_jax.training.state import statistics
from simfle_jax.views import image_keys

CROP_SCALE = (0.7, 1.0)  # share of the image
KEPT = 0.9  # share of the channels' moments that a step keeps, as of BatchNorm's


class Moments(NamedTuple):
    """Mean and variance of the map's channels over cells and images, moving averages as BatchNorm's."""

    mean: jax.Array  # [D]
    var: jax.Array  # [D]
    seen: jax.Array  # 1.0 once a batch has been counted


class PointStep(Tuning):
    """The step with attention pooling, on points in shares of the canvas [B, P, 2]."""

    def __init__(
        self, encoder: Encoder, shape: np.ndarray, scheme: Scheme, probe: Probe, batch_size: int, steps_per_epoch: int
    ):
        self.shape, self.scheme = shape, scheme
        super().__init__(encoder, probe, batch_size, steps_per_epoch)

    def fresh_head(self) -> Tree:
        one = jax.ShapeDtypeStruct((1, self.encoder.size, self.encoder.size, 3), jnp.float32)
        _, rows, columns, dim = jax.eval_shape(self.encoder.apply_map, one).shape
        query, place, kernel, bias = fresh_attention(self.shape, rows * columns, dim, self.seed)
        return query, place, kernel, bias.ravel()  # one axis, so that weight decay does not pull the mean shape

    def fresh_statistics(self) -> Tree:
        dim = self.encoder.dim
        moments = Moments(jnp.zeros(dim), jnp.ones(dim), jnp.zeros(()))
        return {"trunk": self.encoder.arrays["stats"], "map": moments}

    def batch(self, step: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Normalised crops [B, size, size, 3], and where the points lie in them, in shares of their sides."""
        keys = image_keys(self.seed, step, len(images))
        views, boxes, mirrored = augment.placed_crops(keys, images, self.encoder.size, CROP_SCALE, CROP_RATIO, FLIP)
        top, left, height, width = (boxes / images.shape[1]).T
        start, size = jnp.stack([left, top], -1), jnp.stack([width, height], -1)
        points = (targets - start[:, None]) / size[:, None]
        points = jnp.where(mirrored[:, None, None], flipped(points, self.scheme), points)
        return self.encoder.preprocess(views), points

    def loss(self, params: Tree, stats: Tree, views: jax.Array, targets: jax.Array) -> tuple[jax.Array, Tree]:
        """The mean distance of the points, and the new statistics."""
        arrays = {"params": params["trunk"], "stats": stats["trunk"]}
        features, trunk = self.encoder.training_features(arrays, views, statistics)
        maps = features.map.astype(jnp.float32)
        mean, var = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
        query, place, kernel, bias = params["fc"]
        found = attended((mean, _std(var), query, place, kernel, bias.reshape(-1, 2)), maps)
        old = stats["map"]
        kept = KEPT * old.seen
        moments = Moments(kept * old.mean + (1 - kept) * mean, kept * old.var + (1 - kept) * var, jnp.ones(()))
        return mean_distance(found, targets), {"trunk": trunk, "map": moments}


def learn(probe: Probe, encoder: Encoder, source: Source, table: Table, scheme: Scheme, folder: Path) -> Learned:
    """A copy of the encoder and a head, trained together; goes on from the folder's checkpoints.

    Raises:
        UserError: what `with_points`, `check_inside` and `tuned` find.
    """
    known, canvas = with_points(source, "train", table), probe.data.canvas or encoder.size
    points = in_shares(table.points[known.rows], known.squares(range(len(known.source)), canvas)).astype(np.float32)
    readable = np.flatnonzero(np.isfinite(points).all((1, 2)))
    if not len(readable):
        raise UserError(f"none of the {len(points)} images of train can be read: {known.source.name(0)} is the first")
    check_inside(points[readable], [known.source.name(i) for i in readable.tolist()], table.where)
    shape = mean_shape(points[readable], scheme)

    def step(batch_size: int, per_epoch: int) -> PointStep:
        return PointStep(encoder, shape, scheme, probe, batch_size, per_epoch)

    state, bad = tuned(step, known.source, points, probe, canvas, folder)
    trunk = {"params": state.params["trunk"], "stats": state.stats["trunk"]}
    told = {f"train/{name}": reason for name, reason in bad.items()}
    facts = {"kept": "the last epoch: nothing was chosen"}
    return Learned(encoder.retrained(trunk), _head(state.params["fc"], state.stats["map"]), shape, len(readable), facts,
                   known.bad | told)  # fmt: skip


def _head(params: Any, moments: Moments) -> AttentionHead:
    query, place, kernel, bias = map(np.asarray, params)
    return AttentionHead(
        np.asarray(moments.mean), np.asarray(_std(moments.var)), query, place, kernel, bias.reshape(-1, 2)
    )


def _std(var: Any) -> jax.Array:
    return jnp.sqrt(var) + 1e-6
