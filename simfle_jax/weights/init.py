"""Starting pre-training from a trunk that exists."""

import contextlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from simfle_jax.config import TrunkSettings
from simfle_jax.data.read_back import parse_json
from simfle_jax.errors import UserError
from simfle_jax.models.trunks import trunk_shapes
from simfle_jax.models.trunks.vit import resampled
from simfle_jax.weights import torch_names
from simfle_jax.weights.files import check_names, check_shapes, check_values, read_arrays
from simfle_jax.weights.trunk import architecture, find_trunk, infer_image_size, with_known_heads

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
    held, metadata = read_arrays(trunk.init_from)
    arrays = find_trunk(held, "online", trunk.init_from)
    entries = torch_names.trunk_entries(trunk)
    check_names(arrays, entries, trunk.init_from)
    _check_told(trunk, held, metadata)
    check_values(arrays, trunk.init_from)
    check_shapes(arrays, entries, trunk_shapes(trunk, infer_image_size(trunk, arrays)), trunk.init_from)
    trees = torch_names.to_ours(entries, arrays)
    if trunk.kind == "vit":
        grid = image_size // trunk.patch
        trees["stats"]["positions"] = np.asarray(resampled(jnp.asarray(trees["stats"]["positions"]), grid, grid))
    return trees


def _check_told(trunk: TrunkSettings, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Raises UserError where the file tells of heads or of a last stride that the settings have not: no array shows them."""
    told = with_known_heads(trunk, arrays, trunk.init_from)
    if "architecture" in metadata:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = architecture(parse_json(metadata["architecture"]))
    for name in ("heads",) if trunk.kind == "vit" else ("last_stride",):
        if getattr(told, name) != getattr(trunk, name):
            raise UserError(
                f"{trunk.init_from} is of trunk.{name} = {getattr(told, name)}, the settings say {getattr(trunk, name)}: give "
                f"--config.trunk.{name}={getattr(told, name)}"
            )
