"""What a preparation does with each photograph: its face in the crop, or what the user wants where there is none."""

import threading
from pathlib import Path

import numpy as np
from PIL import Image

from simfle_jax.data.bad_list import escaped
from simfle_jax.data.files import BadImage
from simfle_jax.data.photographs import NO_FACE
from simfle_jax.data.photographs.crop import SIDE, VERSION, aligned
from simfle_jax.data.photographs.detector import Detector, Face
from simfle_jax.writing import write_whole

CHOICES = ("drop", "centre", "keep")
LIST = "faces_not_found.txt"


class Alignment:
    """One face of each photograph: the one in its owner's box, else the largest.

    Args:
        detector: finds the faces. name: what it is called in the manifest.
        not_found: of a photograph without a face: 'drop' leaves it out, 'centre' takes the central square, 'keep' the
            file as it is.

    `begin` names the folder; photographs without a face are then listed in its faces_not_found.txt as they come, so that
    the list is whole after an interruption, too.
    """

    def __init__(self, detector: Detector, name: str, not_found: str):
        self.detector, self.not_found = detector, not_found
        self.rules = {"align": VERSION, "side": SIDE, "not_found": not_found, "detector": name}
        self.list: Path | None = None
        self._lock = threading.Lock()

    def begin(self, out: Path) -> None:
        """The folder that is prepared."""
        self.list = out / LIST

    def crop(self, pixels: np.ndarray, box: tuple[float, float, float, float] | None, name: str) -> np.ndarray | None:
        """uint8 [SIDE, SIDE, 3] of a photograph uint8 [H, W, 3]; None: it is to be kept as it is.

        box: x, y, width, height of the face that is meant. Raises BadImage where it is to be dropped.
        """
        face = chosen(self.detector(pixels), box)
        if face is not None:
            return aligned(pixels, face.eyes)
        self._note(name)
        if self.not_found == "drop":
            raise BadImage(NO_FACE)
        return central(pixels) if self.not_found == "centre" else None

    def finish(self) -> int:
        """Sorts the list and counts it; a photograph that was met again is in it once."""
        assert self.list is not None
        if not self.list.is_file():
            return 0
        lines = sorted(set(self.list.read_text(encoding="utf-8").splitlines()))
        write_whole(self.list, "".join(f"{line}\n" for line in lines))
        return len(lines)

    def _note(self, name: str) -> None:
        if self.list is not None:
            with self._lock, self.list.open("a", encoding="utf-8") as file:
                file.write(f"{escaped(name)}\t{NO_FACE}\n")


def chosen(faces: list[Face], box: tuple[float, float, float, float] | None) -> Face | None:
    """The largest face; with a box the largest whose eyes' middle lies in it."""
    for face in faces:
        if box is None:
            return face
        x, y = face.eyes.mean(0)
        if box[0] <= x <= box[0] + box[2] and box[1] <= y <= box[1] + box[3]:
            return face
    return None


def central(pixels: np.ndarray) -> np.ndarray:
    """The central square, at the size of a crop: uint8 [SIDE, SIDE, 3]."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, top = round((width - side) / 2), round((height - side) / 2)
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
