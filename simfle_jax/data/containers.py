"""What a JPEG says before its pixels, and a PNG without what is no pixel: read without decoding anything."""

import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

ORIENTATION = 0x0112  # Exif's tag
XMP = b"http://ns.adobe.com/xap/1.0/\0"
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
APP1 = re.compile(rb"\xff\xe1")  # begins the segments of both
SMALL = 4096  # bytes that are searched sooner than their segments are walked
SEGMENT = struct.Struct(">BH")  # marker and length
SCAN = 0xDA  # the marker before the pixels
END = b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf")  # decide the pixels and which way is up


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the content of every segment up to the first scan, however long they are."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 4:
        marker, length = SEGMENT.unpack_from(data, at + 1)
        if marker in (0x00, 0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # fill bytes, and markers without a content
            at += 1
            continue
        end = at + 2 + length
        yield marker, at + 4, end
        if marker == SCAN:
            return
        at = end


def jpeg_orientation(data: bytes) -> int:
    """Exif's orientation, 1 to 8, or XMP's where Exif has none; 1 where neither tells."""
    if len(data) < SMALL and not APP1.search(
        data
    ):  # which no compressed pixels hold: most small files are done with here
        return 1
    exif, xmp = b"", 1
    for marker, start, end in jpeg_segments(data):
        if marker != 0xE1:
            continue
        if data.startswith(b"Exif\0\0", start):
            exif += data[start + 6 * bool(exif) : end]  # a long one goes on in the next segment
        elif data.startswith(XMP, start) and (found := XMP_ORIENTATION.search(data, start, end)):
            xmp = int(found[1])
    return _exif_orientation(exif) or xmp


def _exif_orientation(exif: bytes) -> int | None:
    if not exif:
        return None
    content = Image.Exif()
    try:
        content.load(exif)
        return content.get(ORIENTATION)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error, OSError):
        return None


def jpeg_bits(data: bytes) -> int:
    """Bits of a colour value; 0: the file does not tell."""
    frames = (start for marker, start, _ in jpeg_segments(data) if _is_frame(marker))
    start = next(frames, len(data))
    return data[start] if start < len(data) else 0


def lacks_only_its_end(data: bytes) -> bool:
    """Whether a JPEG has no end marker and is not progressive: then all its pixels may be there.

    Of a progressive one that stops between two scans nothing tells that more should follow.
    """
    segments = list(jpeg_segments(data))
    scan = next((end for marker, _, end in segments if marker == SCAN), len(data))
    sequential = any(marker in (0xC0, 0xC1) for marker, _, _ in segments)
    return sequential and scan < len(data) and data.rfind(END, scan) < 0


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)  # those are tables


def bare_png(data: bytes) -> bytes:
    """A PNG without the texts, profiles and damaged extras that have no part in its pixels.

    Pillow refuses the whole file for more than a megabyte of text, or for a wrong checksum in any chunk.
    """
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        name, end = data[at + 4 : at + 8], at + 12 + length
        extra = name not in PNG_KEPT or (name[:1].islower() and not _is_sound(data[at + 4 : end]))
        if not extra:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _is_sound(chunk: bytes) -> bool:
    return zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:])
