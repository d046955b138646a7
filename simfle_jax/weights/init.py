"""Starting pre-training from a trunk that exists."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from simfle_jax.config import TrunkSettings
from simfle_jax.models.trunks import trunk_shapes
from simfle_jax.models.trunks.vit import resampled
from simfle_jax.weights import torch_names
from simfle_jax.weights.files import check_names, check_shapes, check_values, read_arrays
from simfle_jax.weights.trunk import find_trunk, infer_image_size

Tree = Any


def initial_trunk(trunk: TrunkSettings, image_size: int = 224) -> dict[str, Tree] | None:
    """The trunk's 'params' and 'stats' from the file `trunk.init_from`, or None when that is empty.

    The file holds a trunk under torchvision's or timm's names (the classifier is left out) or a published checkpoint,
    as a torch or safetensors file. A ViT's positions are resampled to the grid of images of `image_size`.

    Raises:
        UserError: the file is not there, or holds another architecture.
    """
    if not trunk.init_from:
        return None
    arrays = find_trunk(read_arrays(trunk.init_from)[0], "online", trunk.init_from)
    entries = torch_names.trunk_entries(trunk)
    check_names(arrays, entries, trunk.init_from)
    check_values(arrays, trunk.init_from)
    check_shapes(arrays, entries, trunk_shapes(trunk, infer_image_size(trunk, arrays)), trunk.init_from)
    trees = torch_names.to_ours(entries, arrays)
    if trunk.kind == "vit":
        grid = image_size // trunk.patch
        trees["stats"]["positions"] = np.asarray(resampled(jnp.asarray(trees["stats"]["positions"]), grid, grid))
    return trees
