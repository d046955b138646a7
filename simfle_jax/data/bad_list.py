"""The list of images that could not be used: one line for each, its name, a tab, the reason."""

import re
from collections.abc import Mapping
from pathlib import Path

from simfle_jax.writing import write_whole

_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    r"""A text, with names of files in it, on one line of UTF-8: other bytes and control characters as \xNN."""
    visible = _UNPRINTED.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()), text)
    return visible.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def escaped(name: str) -> str:
    r"""A file's name as `printable`, and the backslash as \x5c, so that `unescaped` finds it again."""
    return printable(name.replace("\\", "\\x5c"))


def unescaped(text: str) -> str:
    """The name that `escaped` was given."""
    raw = re.sub(
        rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode("utf-8", "surrogateescape")
    )
    return raw.decode("utf-8", "surrogateescape")


def write_bad_list(path: Path, bad: Mapping[str, str]) -> None:
    """Writes the list, whole or not at all, or removes it where there is nothing to list; raises OSError."""
    if not bad:
        path.unlink(missing_ok=True)
        return
    lines = (f"{escaped(name)}\t{reason}\n" for name, reason in sorted(bad.items()))
    write_whole(path, "".join(lines).encode("utf-8", "backslashreplace"))


def read_bad_list(path: Path) -> dict[str, str]:
    """The list as it was written; empty where there is none."""
    try:
        lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    except FileNotFoundError:
        return {}
    split = (line.partition("\t") for line in lines if line)
    return {unescaped(name): reason for name, _, reason in split}
