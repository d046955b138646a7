"""Frozen dataclasses made of plain mappings, with every mistake told by the name of its setting."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from simfle_jax.errors import UserError

T = TypeVar("T")


def typed(cls: type[T], settings: Mapping[str, Any], where: str = "") -> T:
    """Makes a dataclass of `settings`, nested dataclasses included.

    A field with a default may be missing: it came later than the others, and its default means "as before".

    Raises:
        UserError: a setting is unknown (names the nearest), missing, or of a wrong type.
    """
    hints = get_type_hints(cls)
    unknown = set(settings) - set(hints)
    if unknown:
        key = sorted(unknown)[0]
        near = difflib.get_close_matches(key, hints, n=1)
        hint = f"; did you mean {where}{near[0]}?" if near else f"; known are {', '.join(sorted(hints))}"
        raise UserError(f"config: there is no setting {where}{key}{hint}")
    missing = sorted(field.name for field in dataclasses.fields(cls) if _required(field) and field.name not in settings)  # type: ignore[arg-type]
    if missing:
        raise UserError(f"config: the setting {where}{missing[0]} is missing")
    return cls(**{key: _value(hint, settings[key], where + key) for key, hint in hints.items() if key in settings})


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not hasattr(value, "keys"):
            raise UserError(f"config: {name} = {value!r} must be a group of settings, such as {name}.{_first(hint)}")
        return typed(hint, value, name + ".")  # type: ignore[arg-type]
    if getattr(hint, "__origin__", None) is tuple:
        kind = hint.__args__[0]
        fixed = None if hint.__args__[-1] is Ellipsis else len(hint.__args__)
        if not isinstance(value, (tuple, list)) or (fixed and len(value) != fixed):
            raise UserError(f"config: {name} = {value!r} must be {fixed or 'some'} numbers in a tuple")
        return tuple(_value(kind, v, name) for v in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise UserError(f"config: {name} = {value!r} must be of type {hint.__name__}")
    return value


def _first(cls: Any) -> str:
    return dataclasses.fields(cls)[0].name


def with_defaults(cls: Any, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier version recorded of a settings dataclass, with the settings that came later as they were before."""
    if not isinstance(recorded, Mapping):
        raise UserError(
            f"config: {recorded!r:.60} was recorded where a group of settings must be: put it back from a copy"
        )
    found = dict(recorded)
    for field in dataclasses.fields(cls):
        if field.name in found and dataclasses.is_dataclass(field.type):
            found[field.name] = with_defaults(field.type, found[field.name])
        elif field.name not in found and not _required(field):
            found[field.name] = (
                as_dict(field.default) if dataclasses.is_dataclass(field.type) else _plain(field.default)
            )
    return found


def require(condition: bool, message: str) -> None:
    """Raises UserError(f"config: {message}") unless the condition holds."""
    if not condition:
        raise UserError(f"config: {message}")


def check_seed(seed: int, name: str) -> None:
    """Raises UserError unless a seed is one that JAX tells from all others: it uses 32 bits."""
    if not 0 <= seed < 2**32:
        raise UserError(f"{name} = {seed} must lie in 0..{2**32 - 1}: larger ones would repeat smaller ones")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError unless the setting `name` has one of the values; the empty one is not named."""
    require(value in choices, f"{name} = {value!r} must be one of {', '.join(filter(None, choices))}")


def as_dict(config: Any) -> dict[str, Any]:
    """A settings dataclass as plain JSON values (tuples become lists)."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {'data.path': ...}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if hasattr(value, "items") else {prefix + key: value}
    return flat


def digest(config: Any) -> str:
    """Twelve hexadecimal digits that name these settings."""
    return hashlib.sha256(json.dumps(as_dict(config), sort_keys=True).encode()).hexdigest()[:12]
