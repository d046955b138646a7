"""Finding a trunk in whatever file holds one, and naming its arrays as torchvision does."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from simfle_jax.config import TrunkSettings
from simfle_jax.errors import UserError
from simfle_jax.weights import torch_names
from simfle_jax.weights.files import check_names

Arrays = dict[str, np.ndarray]
BRANCHES = ("online", "target")


def architecture(sizes: dict[str, Any]) -> TrunkSettings:
    """A trunk's settings from its recorded sizes; those of an earlier version know bottlenecks alone."""
    known: dict[str, Any] = {"kind": "bottleneck", "patch": 16, "heads": 0} | sizes
    return TrunkSettings(**known | {"stage_sizes": tuple(known["stage_sizes"]), "init_from": ""})


def is_published(arrays: Arrays) -> bool:
    """Whether these are the names of a published pre-training checkpoint."""
    return any(name.startswith("online_network.") for name in arrays)


def find_trunk(arrays: Arrays, branch: str, where: str | Path, held: str = "online") -> Arrays:
    """The arrays of a trunk under torchvision's names, without `fc`.

    From a published checkpoint it is the trunk of `branch`; any other file holds one trunk only, that of branch `held`.

    Raises:
        UserError: the file has no such branch.
    """
    if is_published(arrays):
        prefix = f"{branch}_network.encoder."
        return {
            _torchvision_name(name.removeprefix(prefix)): x for name, x in arrays.items() if name.startswith(prefix)
        }
    if branch not in ("online", held):
        raise UserError(f"{where} holds one trunk only: the {branch} branch is in a run's folder or its checkpoint")
    return {name: x for name, x in arrays.items() if not name.startswith("fc.")}


def _torchvision_name(name: str) -> str:
    """`5.0.conv1.weight` is `layer2.0.conv1.weight`: the published trunk numbers the children of a ResNet."""
    number, _, rest = name.partition(".")
    if number.isdigit() and int(number) > 3:
        return f"layer{int(number) - 3}.{rest}"
    return f"{ {'0': 'conv1', '1': 'bn1'}.get(number, number) }.{rest}"


def infer_trunk(arrays: Arrays, where: str | Path) -> TrunkSettings:
    """The sizes of a bottleneck trunk from its arrays; the last stride, which leaves no trace in them, is taken for 2.

    Raises:
        UserError: these are not the arrays of such a trunk.
    """
    stem = arrays.get("conv1.weight")
    blocks = {(int(m[1]), int(m[2])) for name in arrays if (m := re.match(r"layer(\d+)\.(\d+)\.conv3\.weight", name))}
    stages = sorted({stage for stage, _ in blocks})
    known = stem is not None and stem.ndim == 4 and stages == list(range(1, len(stages) + 1)) and len(stages) >= 2
    sizes = tuple(len([1 for stage, _ in blocks if stage == each]) for each in stages) if known else (3, 4, 6, 3)
    width = int(stem.shape[0]) if known and stem is not None else 64
    trunk = architecture({"stage_sizes": sizes, "width": width, "last_stride": 2})
    check_names(arrays, torch_names.torchvision_trunk(trunk), where)
    return trunk
