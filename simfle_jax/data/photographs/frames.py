"""The frames of a video file or of a folder, one after the other: no more than one is in memory."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from simfle_jax.data.files import BadImage
from simfle_jax.data.image_list import ImageList
from simfle_jax.data.photographs.detector import import_cv2
from simfle_jax.data.photographs.finding import read_photograph
from simfle_jax.errors import UserError

FPS = 25.0  # frames a second where nobody says


class Frame(NamedTuple):
    """time: seconds from the first frame. pixels: uint8 [H, W, 3] RGB, None where the frame cannot be read."""

    time: float
    pixels: np.ndarray | None


def frames_of(path: Path, fps: float = 0.0) -> Iterator[Frame]:
    """The frames of a video in order, or the images of a folder by their names, numbers counted: frame2 before frame10.

    fps: frames a second; 0: each frame's own time in the video, which need not be even, and 25 of a folder. A video that breaks off
    or is damaged gives what can be read, and a warning says so.

    Raises:
        UserError: nothing there, or no video that OpenCV can read; needs OpenCV for a video.
    """
    if path.is_dir():
        return _of_folder(path, fps or FPS)
    if not path.is_file():
        raise UserError(f"no video or folder of frames {path}")
    return _of_video(path, fps)


def _of_folder(folder: Path, fps: float) -> Iterator[Frame]:
    images = ImageList([folder])
    for number, index in enumerate(sorted(range(len(images)), key=lambda index: _as_counted(images.name(index)))):
        try:
            pixels = read_photograph(images, index)
        except BadImage as error:
            logging.warning("%s: %s", images.name(index), error)
            pixels = None
        yield Frame(number / fps, pixels)


def _as_counted(name: str) -> list[tuple[int, str]]:
    """What sorts frame2 before frame10: numbers count, and the text between them."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _of_video(path: Path, fps: float) -> Iterator[Frame]:
    cv2 = import_cv2()
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            if _has_lost_its_index(path):
                raise UserError(
                    f"{path} breaks off before its index (moov), without which no frame can be found: copy it again, or give a "
                    "folder of its frames"
                )
            raise UserError(f"{path} is no video that OpenCV can read: convert it, or give a folder of its frames")
        told, count = float(video.get(cv2.CAP_PROP_FPS)), int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        rate = fps or (told if 0 < told < 1000 else FPS)
        number, first, last = 0, 0.0, 0.0
        while (read := video.read())[0]:
            stamp = float(video.get(cv2.CAP_PROP_POS_MSEC)) / 1000
            first = first if number else stamp
            if fps or stamp - first <= last:  # the first, and those of files without times
                last = max(last, number / rate)
            else:
                last = stamp - first
            yield Frame(last, np.ascontiguousarray(read[1][..., ::-1]))
            number += 1
        if number == 0:
            raise UserError(f"{path} holds no frame that can be read: its beginning is damaged")
        if number < count - 1:  # many files tell one too many
            logging.warning("%s breaks off or is damaged: %d of %d frames could be read", path, number, count)
    finally:
        video.release()


def _has_lost_its_index(path: Path) -> bool:
    """Whether an MP4 or MOV has no whole `moov`, which most programs write last."""
    length = path.stat().st_size
    with path.open("rb") as file:
        start, kinds = 0, list[bytes]()
        while start + 8 <= length:
            file.seek(start)
            size, kind = int.from_bytes(file.read(4)), file.read(4)
            size = int.from_bytes(file.read(8)) if size == 1 else size
            if size < 8 or start + size > length:  # to the end, or cut
                break
            kinds.append(kind)
            start += size
    return kinds[:1] == [b"ftyp"] and b"moov" not in kinds
