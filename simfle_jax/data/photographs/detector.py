"""Who finds faces: one small interface, and OpenCV's YuNet behind it."""

import hashlib
import math
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from simfle_jax.data.photographs.crop import aligned, similarity
from simfle_jax.errors import UserError, lacks

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
TURNS = (30, -30)  # degrees: how a photograph without a face is looked at again
LOOKS = 2  # closer ones at a face that was found
CLOSE, WIDER = 160, 1.4  # pixels of such a look, and how much wider than the crop it is


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
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        faces = self.look(np.asarray(small))
        for degrees in TURNS:
            if not faces:
                turned, linear, start = _turned(small, degrees)
                faces = [_mapped(face, linear, start) for face in self.look(turned)]
        across = np.diag([width / size[0], height / size[1]])
        faces = [self._closer(image, _mapped(face, across, np.zeros(2))) for face in faces]
        return sorted(faces, key=lambda face: -face.area)

    def look(self, image: np.ndarray) -> list[Face]:
        """What the network finds in an image as it is."""
        size = image.shape[1::-1]
        try:
            if not hasattr(self._own, "network"):
                self._own.network = self._cv2.FaceDetectorYN.create(str(self.model), "", size, SURE, OVERLAP, MOST)
            self._own.network.setInputSize(size)
            rows = self._own.network.detect(np.ascontiguousarray(image[..., ::-1]))[1]
        except (self._cv2.error, SystemError) as error:
            reason = " ".join(str(error).split()).rpartition("error: ")[2]  # without the place in OpenCV's sources
            raise UserError(f"{self.model} is damaged, or no YuNet ({reason[:100]}): {WHERE}") from None
        return [] if rows is None or not np.isfinite(rows).all() else [_face(row) for row in rows]

    def _closer(self, image: np.ndarray, face: Face) -> Face:
        """The face with the eyes that two more looks find in its crop.

        YuNet takes a turned face for less turned than it is. In the crop it is turned less, and its error is smaller.
        """
        for _ in range(LOOKS):
            middle = similarity(face.eyes, 1) @ [0.5, 0.5, 1]  # of the crop
            matrix = similarity(wide := middle + WIDER * (face.eyes - middle), CLOSE)
            expected = (face.eyes - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
            found = [each.eyes for each in self.look(aligned(image, wide, CLOSE)) if _same(each.eyes, expected)]
            if not found:
                break
            nearest = min(found, key=lambda eyes: float(np.abs(eyes - expected).sum()))
            face = face._replace(eyes=nearest @ matrix[:, :2].T + matrix[:, 2])
        return face


def _same(eyes: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two pairs of eyes [2, 2] can be those of one face."""
    across, wanted = (float(np.hypot(*(pair[1] - pair[0]))) for pair in (eyes, expected))
    return 0.7 < across / wanted < 1.4 and float(np.hypot(*(eyes.mean(0) - expected.mean(0)))) < wanted / 2


def _turned(image: Image.Image, degrees: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image turned clockwise around its middle, all of it in view; and what takes its points back: linear [2, 2], start [2]."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    linear, size = np.array([[cosine, sine], [-sine, cosine]]), np.array(image.size)
    wide, high = (math.ceil(side) for side in np.abs(linear) @ size)
    start = size / 2 - linear @ [wide / 2, high / 2]
    data = (*linear[0], start[0], *linear[1], start[1])
    return (
        np.asarray(image.transform((wide, high), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)),
        linear,
        start,
    )


def _mapped(face: Face, linear: np.ndarray, start: np.ndarray) -> Face:
    """A face whose points went through linear [2, 2] and start [2]; its box stays upright."""
    low, size = np.array(face.box[:2]), np.array(face.box[2:])
    scale = np.hypot(*linear)
    middle, size = linear @ (low + size / 2) + start, size * scale
    return face._replace(box=(*(middle - size / 2).tolist(), *size.tolist()), eyes=face.eyes @ linear.T + start)


def _face(row: np.ndarray) -> Face:
    """From OpenCV's row: x, y, width, height, five points (the person's right eye first), score."""
    x, y, width, height = (float(value) for value in row[:4])
    return Face((x, y, width, height), row[4:8].reshape(2, 2).astype(np.float64), float(row[14]))


def import_cv2() -> Any:
    """OpenCV, or a UserError that says what needs it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # nothing; it is asked for when the first video is opened
    try:
        import cv2
    except ImportError:
        raise lacks("finding faces, or reading videos,", "OpenCV", "align") from None
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
