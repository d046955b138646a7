"""Starting pre-training from a trunk that exists."""

from typing import Any

from simfle_jax.config import TrunkSettings
from simfle_jax.models.trunks import trunk_shapes
from simfle_jax.weights import torch_names
from simfle_jax.weights.files import check_names, check_shapes, check_values, read_arrays
from simfle_jax.weights.trunk import find_trunk

Tree = Any


def initial_trunk(trunk: TrunkSettings) -> dict[str, Tree] | None:
    """The trunk's 'params' and 'stats' from the file `trunk.init_from`, or None when that is empty.

    The file holds a trunk under torchvision's names (`fc` is left out) or a published checkpoint, as a torch or
    safetensors file.

    Raises:
        UserError: the file is not there, or holds another architecture.
    """
    if not trunk.init_from:
        return None
    arrays = find_trunk(read_arrays(trunk.init_from)[0], "online", trunk.init_from)
    entries = torch_names.torchvision_trunk(trunk)
    check_names(arrays, entries, trunk.init_from)
    check_values(arrays, trunk.init_from)
    check_shapes(arrays, entries, trunk_shapes(trunk), trunk.init_from)
    return torch_names.to_ours(entries, arrays)
