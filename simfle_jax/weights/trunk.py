"""Finding a trunk in whatever file holds one, and naming its arrays as torchvision and timm do."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from simfle_jax.config import TrunkSettings
from simfle_jax.errors import UserError
from simfle_jax.weights import torch_names
from simfle_jax.weights.files import check_names

Arrays = dict[str, np.ndarray]
BRANCHES = ("online", "target")
PATCHES = "patch_embed.proj.weight"  # the array that tells a ViT
LARGEST = 2**16  # channels, pixels or blocks of any trunk
IMAGE_SIZE = 224  # what torchvision's and timm's ResNets are trained on


def architecture(sizes: dict[str, Any]) -> TrunkSettings:
    """A trunk's settings from its recorded sizes; those of an earlier version know bottlenecks alone."""
    known: dict[str, Any] = {"kind": "bottleneck", "patch": 16, "heads": 0} | sizes
    return TrunkSettings(**known | {"stage_sizes": tuple(known["stage_sizes"]), "init_from": ""})


def is_trunk(trunk: TrunkSettings, most_blocks: int) -> bool:
    """Whether sizes are such as a trunk of no more than `most_blocks` blocks can have."""
    numbers = (*trunk.stage_sizes, trunk.width, trunk.last_stride, trunk.patch)
    if not all(type(number) is int and 1 <= number <= LARGEST for number in numbers) or type(trunk.heads) is not int:
        return False
    if sum(trunk.stage_sizes) > most_blocks:
        return False
    if trunk.kind == "vit":
        return len(trunk.stage_sizes) == 1 and trunk.heads >= 1 and trunk.width % trunk.heads == 0
    return trunk.kind in ("bottleneck", "basic") and 2 <= len(trunk.stage_sizes) <= 8 and trunk.last_stride <= 2


def is_published(arrays: Arrays) -> bool:
    """Whether these are the names of a published pre-training checkpoint."""
    return any("online_network" in name.split(".") for name in arrays)


def published_names(arrays: Arrays) -> Arrays:
    """A published checkpoint's arrays under their own names, whatever they lie under, as in `state_dict.module.`."""
    place = next(name.partition("online_network.")[0] for name in arrays if "online_network" in name.split("."))
    return {name.removeprefix(place): x for name, x in arrays.items() if name.startswith(place)}


def find_trunk(arrays: Arrays, branch: str, where: str | Path, held: str = "online", prefix: str = "") -> Arrays:
    """The arrays of a trunk under torchvision's or timm's names, without heads; see `find_place`."""
    place = find_place(arrays, branch, where, held, prefix)
    trunk = _trunk_at(arrays, place)
    _say_what_was_taken(arrays, trunk, place, where)
    return trunk


def find_place(arrays: Arrays, branch: str, where: str | Path, held: str = "online", prefix: str = "") -> str:
    """What stands before the names of the trunk, with its last dot: `state_dict.module.encoder.`, or ''.

    prefix: which trunk, where a file holds several; '.' is the one without a prefix, '' the only one.
    In a published checkpoint `branch` chooses, too; any other file holds that of branch `held`.

    Raises:
        UserError: no such branch, or prefix, or several trunks and no prefix.
    """
    found = _places(arrays)
    if prefix:
        place = f"{prefix.strip('.')}.".removeprefix(".")
        if place not in found:
            raise UserError(f"{where} holds no trunk under prefix {prefix!r}, only {_listed(found) or 'none at all'}")
        return place
    if is_published(arrays):
        return next(
            (place for place in found if place.endswith(f"{branch}_network.encoder.")), f"{branch}_network.encoder."
        )
    if branch not in ("online", held):
        raise UserError(f"{where} holds one trunk only: the {branch} branch is in a run's folder or its checkpoint")
    whole = [place for place in found if _is_whole(_trunk_at(arrays, place))]
    if len(whole) > 1:
        raise UserError(
            f"{where} holds {len(whole)} trunks, under {_listed(whole)}: choose one, by "
            f"python -m simfle_jax.convert {where} NEW.safetensors --prefix={_listed(whole[:1])}"
        )
    return next(iter(whole or found), "")


def _places(arrays: Arrays) -> list[str]:
    """What stands before every ResNet, named as by torchvision or numbered as its children, and before every ViT."""
    starts = (
        re.fullmatch(r"((?:.*\.)?)(layer1\.0\.conv1|4\.0\.conv1|patch_embed\.proj)\.weight", name) for name in arrays
    )
    return [start[1] for start in starts if start and (start[2] != "4.0.conv1" or f"{start[1]}0.weight" in arrays)]


def _listed(places: list[str]) -> str:
    return ", ".join(place.removesuffix(".") or "." for place in places)


def _is_whole(trunk: Arrays) -> bool:
    try:
        infer_trunk(trunk, "")
    except UserError:
        return False
    return True


def _trunk_at(arrays: Arrays, place: str) -> Arrays:
    """The trunk below `place` under torchvision's or timm's names; where none is recognised all that is there but `fc`."""
    inside = {name.removeprefix(place): x for name, x in arrays.items() if name.startswith(place)}
    if "layer1.0.conv1.weight" in inside:
        # What comes before or between the stages would change the features: it stays, and is refused as surplus.
        return {name: x for name, x in inside.items() if re.match(r"(conv|bn|norm|gn|layer|stem)", name)}
    if PATCHES in inside:
        return {
            name: x
            for name, x in inside.items()
            if not re.match(r"(head|decoder|mask_token|projector|predictor)", name)
        }
    if "4.0.conv1.weight" in inside:
        numbered = {name: name.partition(".")[0] for name in inside}
        kept = {n for n in numbered.values() if n in ("0", "1") or f"{n}.0.conv1.weight" in inside}
        return {_torchvision_name(name): inside[name] for name, number in numbered.items() if number in kept}
    return {name: x for name, x in inside.items() if not name.startswith("fc.")}


def classifier_name(arrays: Arrays, place: str = "") -> str:
    """What the linear layer on the trunk below `place` is called: `fc` by torchvision, `head` by timm's ViTs."""
    return "head" if place + PATCHES in arrays else "fc"


def _say_what_was_taken(arrays: Arrays, trunk: Arrays, place: str, where: str | Path) -> None:
    layer = place + classifier_name(arrays, place)
    classifier = sum(f"{layer}.{name}" in arrays for name in ("weight", "bias"))
    others = len(arrays) - len(trunk) - classifier
    if not is_published(arrays) and (others or place.replace("state_dict.", "").replace("module.", "")):
        under = f" under {place.removesuffix('.')}" if place else ""
        left = f", left {others} other arrays out" if others else ""
        logging.warning("%s: took the trunk%s%s", where, under, left)


def _torchvision_name(name: str) -> str:
    """`5.0.conv1.weight` is `layer2.0.conv1.weight`: a ResNet's children, numbered."""
    number, _, rest = name.partition(".")
    if int(number) > 3:
        return f"layer{int(number) - 3}.{rest}"
    return f"{ {'0': 'conv1', '1': 'bn1'}[number] }.{rest}"


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


def with_known_heads(trunk: TrunkSettings, arrays: Arrays, where: str | Path) -> TrunkSettings:
    """A trunk from a file without our metadata, with the heads that MoCo v3's own ViT-S has, which no array tells."""
    moco = any({"base_encoder", "momentum_encoder"} & set(name.split(".")) for name in arrays)
    if trunk.kind == "vit" and moco and trunk.width == 384:
        logging.warning("%s: taken for MoCo v3's own ViT-S, which has 12 heads", where)
        return dataclasses.replace(trunk, heads=12)
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
    blocks = {
        (int(m[1]), int(m[2])) for name in arrays if (m := re.match(rf"layer(\d+)\.(\d+)\.conv{last}\.weight", name))
    }
    stages = sorted({stage for stage, _ in blocks})
    if stem is None or stem.ndim != 4 or stages != list(range(1, len(stages) + 1)) or len(stages) < 2:
        return architecture({"stage_sizes": (3, 4, 6, 3), "width": 64, "last_stride": 2})
    sizes = tuple(len([1 for stage, _ in blocks if stage == each]) for each in stages)
    kind = "bottleneck" if last == 3 else "basic"
    return architecture({"kind": kind, "stage_sizes": sizes, "width": int(stem.shape[0]), "last_stride": 2})
