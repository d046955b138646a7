"""The backbones. Each is called as trunk(images, train) and gives `Features`."""

from typing import Any

import jax
from flax import nnx

from simfle_jax.config import TrunkSettings
from simfle_jax.models.trunks.features import Features
from simfle_jax.models.trunks.resnet import ResNet

__all__ = ["Features", "fresh_trunk", "make_trunk", "trunk_shapes"]


def make_trunk(trunk: TrunkSettings, remat: bool, rngs: nnx.Rngs) -> Any:
    """A fresh trunk of these sizes. remat: recompute activations in the backward pass."""
    return ResNet(trunk.stage_sizes, trunk.width, trunk.last_stride, remat, rngs)


def fresh_trunk(trunk: TrunkSettings, seed: int) -> dict[str, Any]:
    """'params' and 'stats' of a fresh trunk as plain dicts of arrays."""
    parts: Any = nnx.split(make_trunk(trunk, False, nnx.Rngs(seed)), nnx.Param, nnx.BatchStat)
    return {"params": nnx.to_pure_dict(parts[1]), "stats": nnx.to_pure_dict(parts[2])}


def trunk_shapes(trunk: TrunkSettings) -> dict[str, Any]:
    """'params' and 'stats' of a trunk as shapes; no array is made."""
    return jax.eval_shape(lambda: fresh_trunk(trunk, 0))
