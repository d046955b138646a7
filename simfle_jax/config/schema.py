"""What earlier versions called their settings: flags that people still type, and configs that runs recorded.

A recorded config has a number, `schema`. A *new* setting needs no new number: its dataclass field gets a default that
means "as before". A setting that moves or changes its meaning gets a line in MOVED, and SCHEMA goes up.
"""

import re
from collections.abc import Container, Mapping
from typing import Any

from simfle_jax.config.typed import flatten
from simfle_jax.errors import UserError

SCHEMA = 2

# Where a setting of schema 1 is now.
MOVED = {
    "optimizer": "optimizer.name",
    "model.head_hidden": "heads.hidden",
    "model.head_out": "heads.out",
    **{f"model.{name}": f"trunk.{name}" for name in ("stage_sizes", "width", "last_stride", "init_from")},
    **{f"model.vit_{name}": f"facemae.{name}" for name in ("width", "depth", "heads")},
    **{f"model.{name}": f"facemae.{name}" for name in
       ("masking", "grouping_init", "patch", "decoder_width", "decoder_depth", "decoder_heads")},
    **{name: f"facemae.{name}" for name in ("mask_ratio", "n_groups", "alpha", "beta", "temperature")},
    **{name: f"optimizer.{name}" for name in ("lr", "momentum", "weight_decay", "ema_decay")},
}  # fmt: skip
# What schema 1 did not name.
ADDED = {"trunk.kind": "bottleneck", "trunk.patch": 16, "trunk.heads": 0}

PLACES = ("data.path", "data.cache", "data.listing", "monitor.path")


def upgrade(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config of any earlier version in today's form, without its schema number.

    Raises:
        UserError: a newer version recorded it.
    """
    schema = recorded.get("schema", 1)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UserError(
            f"config: its schema is {schema!r}, and this version of simfle-jax knows up to {SCHEMA}; "
            "use the version that wrote it (environment.json beside it says which)"
        )
    settings = {key: value for key, value in recorded.items() if key != "schema"}
    return settings if schema == SCHEMA else _from_first(settings)


def _from_first(settings: dict[str, Any]) -> dict[str, Any]:
    old = flatten(settings)
    has_facemae = old.pop("model.facemae", True)
    new = {MOVED.get(key, key): value for key, value in old.items()}
    return nested(ADDED | new | {"method": "simfle" if has_facemae else "byol"})


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *rooms, name = key.split(".")
        room = tree
        for one in rooms:
            room = room.setdefault(one, {})
            if not isinstance(room, dict):
                raise UserError(f"config: {one} must be a group of settings, as {key} says")
        room[name] = value
    return tree


def without_places(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings without what only says where a file or folder lies, which may move, or be called otherwise elsewhere."""
    found = {key: value for key, value in flat.items() if key not in PLACES}
    if "trunk.init_from" in found:
        found["trunk.init_from"] = bool(found["trunk.init_from"])  # read at step 0 alone
    if "data.sources" in found:
        found["data.sources"] = [re.sub("@.*=", "@=", entry) for entry in found["data.sources"]]
    return found


def today(argument: str, known: Container[str] = ()) -> str:
    """A command-line argument with the setting's name of today: --config.lr=0.1 is --config.optimizer.lr=0.1.

    known: the settings of the config in question; a name among them is left alone (a probe has an `lr` of its own).
    """
    match = re.fullmatch(r"(--?(?:no)?config\.)([\w.]+)(.*)", argument, re.DOTALL)
    if match is None:
        return argument
    flag, key, rest = match.groups()
    if key in known:
        return argument
    if key == "model.facemae":
        off = rest.lower() in ("=false", "=0", "=f", "=no") or "no" in flag
        return f"--config.method={'byol' if off else 'simfle'}"
    return flag + MOVED.get(key, key) + rest
