"""Finding a trunk in whatever file holds one, and naming its arrays as torchvision does."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from simfle_jax.config import Model
from simfle_jax.errors import UserError
from simfle_jax.weights import torch_names
from simfle_jax.weights.files import check_names

Arrays = dict[str, np.ndarray]
BRANCHES = ("online", "target")


def architecture(sizes: dict[str, Any]) -> Model:
    """A Model that describes a trunk alone; what concerns FaceMAE and the heads is empty."""
    return Model(
        stage_sizes=tuple(sizes["stage_sizes"]), width=sizes["width"], last_stride=sizes["last_stride"], head_hidden=0,
        head_out=0, facemae=False, masking="random", grouping_init="he", patch=0, vit_width=0, vit_depth=0, vit_heads=0,
        decoder_width=0, decoder_depth=0, decoder_heads=0, init_from="",
    )  # fmt: skip


def is_published(arrays: Arrays) -> bool:
    """Whether these are the names of a published pre-training checkpoint."""
    return any("online_network" in name.split(".") for name in arrays)


def published_names(arrays: Arrays) -> Arrays:
    """A published checkpoint's arrays under their own names, whatever they lie under, as in `state_dict.module.`."""
    place = next(name.partition("online_network.")[0] for name in arrays if "online_network" in name.split("."))
    return {name.removeprefix(place): x for name, x in arrays.items() if name.startswith(place)}


def find_trunk(arrays: Arrays, branch: str, where: str | Path, held: str = "online", prefix: str = "") -> Arrays:
    """The arrays of a trunk under torchvision's names, without heads; see `find_place`."""
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
    """What stands before the first block of every ResNet, named as by torchvision or numbered as its children."""
    starts = (re.fullmatch(r"((?:.*\.)?)(layer1|4)\.0\.conv1\.weight", name) for name in arrays)
    return [start[1] for start in starts if start and (start[2] == "layer1" or f"{start[1]}0.weight" in arrays)]


def _listed(places: list[str]) -> str:
    return ", ".join(place.removesuffix(".") or "." for place in places)


def _is_whole(trunk: Arrays) -> bool:
    try:
        infer_model(trunk, "")
    except UserError:
        return False
    return True


def _trunk_at(arrays: Arrays, place: str) -> Arrays:
    """The trunk below `place` under torchvision's names; where none is recognised all that is there but `fc`."""
    inside = {name.removeprefix(place): x for name, x in arrays.items() if name.startswith(place)}
    if "layer1.0.conv1.weight" in inside:
        # What comes before or between the stages would change the features: it stays, and is refused as surplus.
        return {name: x for name, x in inside.items() if re.match(r"(conv|bn|norm|gn|layer|stem)", name)}
    if "4.0.conv1.weight" in inside:
        numbered = {name: name.partition(".")[0] for name in inside}
        kept = {n for n in numbered.values() if n in ("0", "1") or f"{n}.0.conv1.weight" in inside}
        return {_torchvision_name(name): inside[name] for name, number in numbered.items() if number in kept}
    return {name: x for name, x in inside.items() if not name.startswith("fc.")}


def _say_what_was_taken(arrays: Arrays, trunk: Arrays, place: str, where: str | Path) -> None:
    classifier = sum(f"{place}{name}" in arrays for name in ("fc.weight", "fc.bias"))
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


def infer_model(arrays: Arrays, where: str | Path) -> Model:
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
    model = architecture({"stage_sizes": sizes, "width": width, "last_stride": 2})
    check_names(arrays, torch_names.torchvision_trunk(model), where)
    return model
