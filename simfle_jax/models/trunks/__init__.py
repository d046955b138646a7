"""The backbones. Each is called as trunk(images, train) and gives `Features`."""

from typing import Any

import jax
from flax import nnx

from simfle_jax.config import TrunkSettings
from simfle_jax.models.trunks.features import Features
from simfle_jax.models.trunks.resnet import BasicBlock, Bottleneck, ResNet
from simfle_jax.models.trunks.vit import ViT

__all__ = ["Features", "fresh_trunk", "make_trunk", "trunk_shapes"]


def make_trunk(trunk: TrunkSettings, image_size: int, remat: bool, rngs: nnx.Rngs) -> Any:
    """A fresh trunk of these sizes.

    image_size: side in pixels of the images that a ViT's positions are made for; a ResNet does not depend on it.
    remat: recompute activations in the backward pass.
    """
    if trunk.kind == "vit":
        depth, grid = trunk.stage_sizes[0], image_size // trunk.patch
        return ViT(trunk.width, depth, trunk.heads, trunk.patch, grid, remat, rngs)
    block = BasicBlock if trunk.kind == "basic" else Bottleneck
    return ResNet(block, trunk.stage_sizes, trunk.width, trunk.last_stride, remat, rngs)


def fresh_trunk(trunk: TrunkSettings, seed: int, image_size: int = 224) -> dict[str, Any]:
    """'params' and 'stats' of a fresh trunk as plain dicts of arrays."""
    made = make_trunk(trunk, image_size, False, nnx.Rngs(seed))
    parts: Any = nnx.split(made, nnx.Param, nnx.BatchStat)
    return {"params": nnx.to_pure_dict(parts[1]), "stats": nnx.to_pure_dict(parts[2])}


def trunk_shapes(trunk: TrunkSettings, image_size: int = 224) -> dict[str, Any]:
    """'params' and 'stats' of a trunk as shapes; no array is made."""
    return jax.eval_shape(lambda: fresh_trunk(trunk, 0, image_size))
