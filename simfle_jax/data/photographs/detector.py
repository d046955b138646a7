"""Who finds faces: one small interface, and OpenCV's YuNet behind it."""

import hashlib
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from simfle_jax.errors import UserError

MODELS = {  # bytes and SHA-256. The same weights: the second is made for one size of input, which OpenCV passes over
    "face_detection_yunet_2026may.onnx": (
        229_738,
        "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
    ),
    "face_detection_yunet_2023mar.onnx": (
        232_589,
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
}
MODEL = next(iter(MODELS))
VARIABLE = "SIMFLE_FACE_DETECTOR"
WHERE = f"put {MODEL} (OpenCV Zoo, models/face_detection_yunet; MIT) there"
LOOKED_AT = 1024  # pixels of the longer side in which faces are looked for
LEAST = 160  # pixels of the shorter side: a smaller image is enlarged, as faces in it are
SURE = 0.7  # least score of a face; YuNet's own examples take .6 to .9
OVERLAP = 0.3  # of two boxes above which they are one face
MOST = 1000  # faces of an image


class Face(NamedTuple):
    """A face in the pixels of its photograph; (0, 0) is the outer corner of the first pixel.

    box: x, y, width, height. eyes: float [2, 2], the eye on the image's left, then the other. score: 0 to 1.
    """

    box: tuple[float, float, float, float]
    eyes: np.ndarray
    score: float

    @property
    def area(self) -> float:
        return self.box[2] * self.box[3]


class Detector(Protocol):
    """What finds faces: uint8 [H, W, 3] RGB to faces, the largest first. Called from several threads."""

    def __call__(self, image: np.ndarray) -> list[Face]: ...


def default_model() -> Path:
    """Where the detector's file is looked for: SIMFLE_FACE_DETECTOR, or the first of MODELS in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simfle"
    there = (cache / name for name in MODELS if (cache / name).is_file())
    return Path(os.environ.get(VARIABLE) or next(there, cache / MODEL))


class YuNet:
    """OpenCV's FaceDetectorYN with YuNet's file.

    A file of other weights than MODELS is used all the same where it is such a network; `name` tells which it is.

    Raises:
        UserError: no OpenCV, no such file, a damaged one, or one of another network.
    """

    def __init__(self, model: str | Path = ""):
        self.model = Path(model or default_model())
        self._cv2, digest = import_cv2(), _digest(self.model)
        known = {sha256: name for name, (_, sha256) in MODELS.items()}
        self.name = known.get(digest, f"{self.model.name} {digest[:12]}")
        self._own = threading.local()  # OpenCV's object keeps its input's size: one for each thread
        self(np.zeros((64, 64, 3), np.uint8))

    def __call__(self, image: np.ndarray) -> list[Face]:
        height, width = image.shape[:2]
        scale = min(LOOKED_AT / max(height, width), max(1.0, LEAST / min(height, width)))
        wide, high = max(1, round(width * scale)), max(1, round(height * scale))
        small = np.asarray(Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR, reducing_gap=2.0))
        try:
            if not hasattr(self._own, "network"):
                self._own.network = self._cv2.FaceDetectorYN.create(
                    str(self.model), "", (wide, high), SURE, OVERLAP, MOST
                )
            self._own.network.setInputSize((wide, high))
            rows = self._own.network.detect(np.ascontiguousarray(small[..., ::-1]))[1]
        except (self._cv2.error, SystemError) as error:
            reason = " ".join(str(error).split()).rpartition("error: ")[2][
                :100
            ]  # without the place in OpenCV's sources
            raise UserError(f"{self.model} is damaged, or no YuNet ({reason}): {WHERE}") from None
        if rows is None or not np.isfinite(rows).all():
            return []
        return sorted((_face(row, width / wide, height / high) for row in rows), key=lambda face: -face.area)


def _face(row: np.ndarray, across: float, down: float) -> Face:
    """From OpenCV's row: x, y, width, height, five points (the person's right eye first), score."""
    x, y, width, height = (float(value) for value in row[:4] * [across, down, across, down])
    eyes = row[4:8].reshape(2, 2).astype(np.float64) * [across, down]
    return Face((x, y, width, height), eyes, float(row[14]))


def import_cv2() -> Any:
    """OpenCV, or a UserError that says what needs it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # nothing; it is asked for when the first video is opened
    try:
        import cv2
    except ImportError:
        raise UserError("finding faces, or reading videos, needs OpenCV: pip install 'simfle-jax[align]'") from None
    silence = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # of OpenCV 4, of OpenCV 5
    silence(0)  # its reasons come as exceptions too
    return cv2


def _digest(model: Path) -> str:
    """SHA-256 of the file; UserError where it is not there, or plainly not whole."""
    try:
        data = model.read_bytes()
    except OSError as error:
        reason = "no face detector" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(f"{reason} at {model}: {WHERE}, or name its place by --detector or {VARIABLE}") from None
    if data.startswith(b"version https://git-lfs") or data.lstrip()[:1] == b"<":
        raise UserError(f"{model} is a web page or a pointer of Git LFS and not the file itself: {WHERE}")
    if len(data) < (whole := MODELS.get(model.name, (0, ""))[0]):
        raise UserError(f"{model} has {len(data):,} of {whole:,} bytes, its download broke off: {WHERE}")
    return hashlib.sha256(data).hexdigest()
