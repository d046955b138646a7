"""Finding a trunk in whatever file holds one, and naming its arrays as torchvision and timm do."""

import math
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
PATCHES = "patch_embed.proj.weight"  # the array that tells a ViT
IMAGE_SIZE = 224  # what torchvision's and timm's ResNets are trained on


def architecture(sizes: dict[str, Any]) -> TrunkSettings:
    """A trunk's settings from its recorded sizes; those of an earlier version know bottlenecks alone."""
    known: dict[str, Any] = {"kind": "bottleneck", "patch": 16, "heads": 0} | sizes
    return TrunkSettings(**known | {"stage_sizes": tuple(known["stage_sizes"]), "init_from": ""})


def is_published(arrays: Arrays) -> bool:
    """Whether these are the names of a published pre-training checkpoint."""
    return any(name.startswith("online_network.") for name in arrays)


def find_trunk(arrays: Arrays, branch: str, where: str | Path, held: str = "online") -> Arrays:
    """The arrays of a trunk under torchvision's or timm's names, without the classifier (`fc`, in a ViT `head`).

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
    return {name: x for name, x in arrays.items() if not name.startswith(f"{classifier_name(arrays)}.")}


def classifier_name(arrays: Arrays) -> str:
    """What the linear layer on a trunk of these arrays is called: `fc` by torchvision, `head` by timm's ViTs."""
    return "head" if PATCHES in arrays else "fc"


def _torchvision_name(name: str) -> str:
    """`5.0.conv1.weight` is `layer2.0.conv1.weight`: the published trunk numbers the children of a ResNet."""
    number, _, rest = name.partition(".")
    if number.isdigit() and int(number) > 3:
        return f"layer{int(number) - 3}.{rest}"
    return f"{ {'0': 'conv1', '1': 'bn1'}.get(number, number) }.{rest}"


def infer_trunk(arrays: Arrays, where: str | Path) -> TrunkSettings:
    """The sizes of a trunk from its arrays.

    What leaves no trace in them is taken to be as usual: 2 for the last stride of a ResNet, and 64 channels for each
    head of a ViT.

    Raises:
        UserError: these are not the arrays of such a trunk.
    """
    trunk = _vit_sizes(arrays) if PATCHES in arrays else _resnet_sizes(arrays)
    check_names(arrays, torch_names.trunk_entries(trunk), where)
    return trunk


def infer_image_size(trunk: TrunkSettings, arrays: Arrays) -> int:
    """Side in pixels of the images that a trunk's arrays are made for: a ViT's positions tell it, a ResNet's do not."""
    if trunk.kind != "vit":
        return IMAGE_SIZE
    return _grid(arrays["pos_embed"]) * trunk.patch


def _grid(positions: np.ndarray) -> int:
    return math.isqrt(max(positions.shape[1] - 1, 1)) if positions.ndim == 3 else 1


def _vit_sizes(arrays: Arrays) -> TrunkSettings:
    patches = arrays[PATCHES]
    width, patch = (patches.shape[0], patches.shape[-1]) if patches.ndim == 4 else (384, 16)
    depth = len({m[1] for name in arrays if (m := re.match(r"blocks\.(\d+)\.", name))})
    sizes = {"kind": "vit", "stage_sizes": (max(depth, 1),), "width": width, "last_stride": 2}
    return architecture(sizes | {"patch": patch, "heads": max(width // 64, 1)})


def _resnet_sizes(arrays: Arrays) -> TrunkSettings:
    stem = arrays.get("conv1.weight")
    last = 3 if "layer1.0.conv3.weight" in arrays else 2  # convolutions of a block
    blocks = {(int(m[1]), int(m[2])) for name in arrays if (m := re.match(rf"layer(\d+)\.(\d+)\.conv{last}\.weight", name))}
    stages = sorted({stage for stage, _ in blocks})
    if stem is None or stem.ndim != 4 or stages != list(range(1, len(stages) + 1)) or len(stages) < 2:
        return architecture({"stage_sizes": (3, 4, 6, 3), "width": 64, "last_stride": 2})
    sizes = tuple(len([1 for stage, _ in blocks if stage == each]) for each in stages)
    kind = "bottleneck" if last == 3 else "basic"
    return architecture({"kind": kind, "stage_sizes": sizes, "width": int(stem.shape[0]), "last_stride": 2})
