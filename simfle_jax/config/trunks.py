"""Trunks by the names that torchvision and timm give them; `--config=configs/simfle.py:NAME` chooses one."""

from typing import Any

from simfle_jax.config.settings import TrunkSettings
from simfle_jax.errors import UserError

_RESNET = {"width": 64, "last_stride": 2, "patch": 16, "heads": 0}
_VIT = {"kind": "vit", "stage_sizes": (12,), "last_stride": 2, "patch": 16}
TRUNKS: dict[str, dict[str, Any]] = {
    "resnet18": {"kind": "basic", "stage_sizes": (2, 2, 2, 2)} | _RESNET,
    "resnet34": {"kind": "basic", "stage_sizes": (3, 4, 6, 3)} | _RESNET,
    "resnet50": {"kind": "bottleneck", "stage_sizes": (3, 4, 6, 3)} | _RESNET,
    "resnet101": {"kind": "bottleneck", "stage_sizes": (3, 4, 23, 3)} | _RESNET,
    "vit_small_patch16_224": {"width": 384, "heads": 6} | _VIT,
    "vit_base_patch16_224": {"width": 768, "heads": 12} | _VIT,
}


def named_trunk(name: str) -> dict[str, Any]:
    """The settings of the trunk of this name, for the group `trunk` of a config.

    Raises:
        UserError: there is no such trunk; lists those that there are.
    """
    if name not in TRUNKS:
        raise UserError(f"there is no trunk {name!r}; give one of {', '.join(TRUNKS)}")
    return TRUNKS[name]


def trunk_name(trunk: TrunkSettings) -> str:
    """The trunk's usual name, e.g. 'resnet50', or what it is made of."""
    for name, sizes in TRUNKS.items():
        if all(getattr(trunk, key) == value for key, value in sizes.items() if key != "last_stride"):
            return name
    blocks = "-".join(map(str, trunk.stage_sizes))
    kind = {"bottleneck": "ResNet of bottlenecks", "basic": "ResNet of basic blocks", "vit": "ViT"}[trunk.kind]
    return f"{kind} {blocks}, width {trunk.width}"
