"""Damages files: bytes anywhere, and, inside of containers, what their checksums would otherwise give away."""

import io
import json
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

PNG = b"\x89PNG\r\n\x1a\n"
WORDS = [
    b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80", b'"', b"'", b",", b";", b"\t", b"\r", b"\n", b"\\", b"../", b"{", b"[" * 3000,
    b"null", b"NaN", b"-1", b"1e999", b"9" * 400, b"\xed\xa0\x80", b"\xe9", b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"PK\3\4",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1, 3.5, 2**70, 1e308, float("nan"), "", "x", "../../x", "a" * 10000, "\udce9\n", [], [[]], {}, {"a": 1},
]  # fmt: skip


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with one to six damages."""
    changed = _inside(data, rng) if rng.random() < 0.6 else None
    return _bytes(data, rng) if changed is None else changed


def _bytes(data: bytes, rng: np.random.Generator) -> bytes:
    raw = bytearray(data)
    for _ in range(rng.integers(1, 7)):
        at, length = (int(x) for x in rng.integers(0, (len(raw) + 1, max(2, len(raw) // 4))))
        match rng.integers(8):
            case 0 if raw:
                raw[at % len(raw)] ^= 1 << rng.integers(8)
            case 1 if raw:
                raw[at % len(raw)] = rng.integers(256)
            case 2:
                kind, number = (
                    rng.choice(["<I", ">I", "<H", ">H", "<Q", ">Q"]),
                    int(rng.choice([0, 1, 255, 2**15, 2**16 - 1])),
                )
                raw[at : at + struct.calcsize(kind)] = struct.pack(kind, number)
            case 3 if rng.random() < 0.3:
                del raw[at:]
            case 4:
                del raw[at : at + length]
            case 5:
                raw[at:at] = raw[at : at + length]
            case 6:
                raw[at:at] = rng.bytes(length % 64)
            case _:
                raw[at:at] = WORDS[rng.integers(len(WORDS))]
    return bytes(raw)


def _inside(data: bytes, rng: np.random.Generator) -> bytes | None:
    """The container with its content damaged and its checksums right; None where it is none that is known here."""
    if data.startswith(PNG):
        return _png(_bytes(data, rng))
    if data.startswith(b"PK\3\4"):
        return _zip(data, rng)
    if data[8:9] == b"{":  # safetensors
        length = int.from_bytes(data[:8], "little")
        header = _json(data[8 : 8 + length], rng)
        return None if header is None else len(header).to_bytes(8, "little") + header + data[8 + length :]
    if b"\n{" in data:  # lines of JSON
        lines = data.split(b"\n")
        at = rng.integers(len(lines))
        lines[at] = _json(lines[at], rng) or b""
        return b"\n".join(lines)
    return _json(data, rng) if data.startswith((b"{", b"[")) else None


def _png(data: bytes) -> bytes:
    raw, at = bytearray(data), len(PNG)
    while at + 12 <= len(raw):
        end = at + 8 + int.from_bytes(raw[at : at + 4])
        raw[end : end + 4] = zlib.crc32(raw[at + 4 : end]).to_bytes(4) if end + 4 <= len(raw) else raw[end : end + 4]
        at = end + 4
    return bytes(raw)


def _zip(data: bytes, rng: np.random.Generator) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = list(members)[rng.integers(len(members))]
    if rng.random() < 0.1:
        del members[chosen]
    else:
        members[chosen] = _bytes(members[chosen], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _json(data: bytes, rng: np.random.Generator) -> bytes | None:
    try:
        whole = {"": json.loads(data)}
    except ValueError:
        return None
    places = list(_places(whole))
    for _ in range(rng.integers(1, 4)):
        holder, key = places[rng.integers(len(places))]
        if isinstance(holder, dict) and key and rng.random() < 0.2:
            holder.pop(key, None)
        elif isinstance(holder, dict) or key < len(holder):
            old = holder.get(key) if isinstance(holder, dict) else holder[key]
            inner = _json(old.encode(), rng) if isinstance(old, str) and old[:1] in ("{", "[") else None
            holder[key] = inner.decode() if inner else VALUES[rng.integers(len(VALUES))]
    return json.dumps(whole[""]).encode()


def _places(holder: Any) -> Any:
    for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
        yield holder, key
        if isinstance(value, dict | list):
            yield from _places(value)
