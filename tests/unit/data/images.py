"""Small images and damaged files that the data tests share."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: colours that vary slowly, so that compression hardly changes them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray | Image.Image, kind: str = "JPEG", **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return file.getvalue()


def huge_png(side: int = 30_000) -> bytes:
    """A valid black 1-bit PNG of side x side pixels, a hundred kilobytes long."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def huge_jpeg(side: int = 30_000) -> bytes:
    """A JPEG whose header promises side x side pixels."""
    data = encode(smooth(16, 16))
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]


def damaged() -> dict[str, bytes]:
    """Files that no decoder can use, by name."""
    jpeg, png, webp = encode(smooth(48, 48)), encode(smooth(48, 48), "PNG"), encode(smooth(48, 48), "WEBP")
    return {
        "zero.jpg": b"",
        "text.jpg": b"this is not an image",
        "html.png": b"<!DOCTYPE html><html>404</html>",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header.jpg": jpeg[:20],
        "truncated.png": png[: len(png) // 2],
        "truncated.webp": webp[: len(webp) // 2],
        "magic.jpg": jpeg[:3] + np.random.default_rng(0).bytes(3000),
        "checksum.png": png[:29] + b"\0\0\0\0" + png[33:],
        "noise.webp": webp[:16] + np.random.default_rng(0).bytes(500),
        "bomb.png": huge_png(),
        "bomb.jpg": huge_jpeg(),
    }


def write_folder(root: Path, count: int, size: int = 24) -> Path:
    """`count` JPEGs 000.jpg, 001.jpg, ... of distinct flat-ish colours."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f"{number:03d}.jpg").write_bytes(encode(smooth(size, size, number)))
    return root


def write_classes(root: Path, counts: dict[str, int], size: int = 24) -> Path:
    for seed, (name, count) in enumerate(counts.items()):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number:03d}.jpg").write_bytes(encode(smooth(size, size, 100 * seed + number)))
    return root
