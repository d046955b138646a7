"""Every face of many photographs, as a source of aligned crops that are decoded when they are needed."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from simfle_jax.data.decode import open_rgb
from simfle_jax.data.files import BadImage, patiently
from simfle_jax.data.photographs import BOX, NO_FACE
from simfle_jax.data.photographs.crop import VERSION, aligned
from simfle_jax.data.photographs.detector import Detector, Face
from simfle_jax.data.sources import Record, Source, fingerprint
from simfle_jax.errors import UserError
from simfle_jax.progress import Progress

T = TypeVar("T")

AT_ONCE = 64  # photographs that are looked at before the next are asked for
KEPT = 256 * 2**20  # bytes of the photographs whose faces are being cut out


class Found(NamedTuple):
    """A face and the number of its photograph."""

    photograph: int
    face: Face


class FaceList:
    """The crops of faces that were found, as a source: the label of a crop is its number.

    A crop's name is that of its photograph with the face's box, `party.jpg#xywh=10,20,30,40`.
    """

    def __init__(self, photographs: Source, found: list[Found]):
        self.photographs, self.found = photographs, found
        self.classes: tuple[str, ...] | None = None
        self.labels: np.ndarray | None = np.arange(len(found), dtype=np.int32)
        self.names = [photographs.name(each.photograph) + BOX + box_text(each.face) for each in found]
        self._kept: dict[int, np.ndarray] = {}  # by number, the one that was asked for last at the end
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, boxes and the crop."""
        return fingerprint((f"{name} {VERSION}", number) for number, name in enumerate(self.names))

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> Record:
        photograph, face = self.found[index]
        return Record(self.names[index], aligned(self._pixels(photograph), face.eyes), index)

    def name(self, index: int) -> str:
        """Photograph and box."""
        return self.names[index]

    def _pixels(self, photograph: int) -> np.ndarray:
        """uint8 [H, W, 3]; neighbours in the list are often faces of one photograph, so a few are kept."""
        with self._lock:
            pixels = self._kept.pop(photograph, None)
        if pixels is None:
            pixels = read_photograph(self.photographs, photograph)
        with self._lock:
            self._kept[photograph] = pixels
            while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > KEPT:
                del self._kept[next(iter(self._kept))]
        return pixels


def box_text(face: Face) -> str:
    """x,y,width,height in whole pixels."""
    return ",".join(str(round(value)) for value in face.box)


def read_photograph(source: Source, index: int) -> np.ndarray:
    """uint8 [H, W, 3] of a photograph at its full size, the right way up; raises BadImage."""
    data = patiently(lambda: source[index].data, f"{source.name(index)} cannot be read")
    return data if isinstance(data, np.ndarray) else np.asarray(open_rgb(data))


def find_faces(photographs: Source, detector: Detector) -> tuple[FaceList, dict[str, str]]:
    """All faces, photograph by photograph, the largest first, and why the other photographs have none, by name.

    Several are looked at at a time; what is kept of a photograph are the places of its faces.

    Raises:
        UserError: not one face in all of them, or the detector's file cannot be used.
    """
    found: list[Found] = []
    without: dict[str, str] = {}
    progress = Progress(len(photographs), "faces, photographs")

    def look(index: int) -> list[Face] | str:
        try:
            return detector(read_photograph(photographs, index)) or NO_FACE
        except BadImage as error:
            return str(error)

    for index, faces in enumerate(in_threads(look, len(photographs))):
        if isinstance(faces, str):
            without[photographs.name(index)] = faces
        else:
            found += [Found(index, face) for face in faces]
        progress.update(index + 1)
    if not found:
        name, reason = next(iter(without.items()))
        raise UserError(f"none of the {len(photographs)} photographs has a face that can be used: {name}: {reason}")
    return FaceList(photographs, found), without


def in_threads(act: Callable[[int], T], count: int) -> Iterator[T]:
    """`act` of 0, 1, ... in order; a few at a time, so that little waits to be taken."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, AT_ONCE):
            yield from pool.map(act, range(start, min(start + AT_ONCE, count)))
