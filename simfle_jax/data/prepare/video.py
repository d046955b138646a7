"""Single frames of videos, which are asked for in their order by each thread: none reads a video twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image

from simfle_jax.data.files import BadImage
from simfle_jax.data.photographs.frames import Frame, frames_of


class _Reading(threading.local):
    """Where a thread is: in which video, and how many of its frames it has read."""

    path = ""
    done = 0
    frames: Iterator[Frame] = iter(())


_reading = _Reading()


def frame_of(path: str, number: int) -> Image.Image:
    """Frame `number` of a video, counted from 1.

    Raises:
        BadImage: the video ends before it.
        UserError: it is no video that OpenCV can read, or there is no OpenCV.
    """
    if path != _reading.path or number <= _reading.done:
        _reading.path, _reading.done, _reading.frames = path, 0, frames_of(Path(path))
    for frame in _reading.frames:
        _reading.done += 1
        if _reading.done == number and frame.pixels is not None:
            return Image.fromarray(frame.pixels)
    raise BadImage(f"the video ends before frame {number}")


@lru_cache(maxsize=1)
def video_size(path: str) -> tuple[int, int]:
    """Width and height of a video's frames; raises as `frame_of` does."""
    frames = frames_of(Path(path))
    pixels = next(frames).pixels
    assert pixels is not None  # of a video that can be read
    return pixels.shape[1], pixels.shape[0]
