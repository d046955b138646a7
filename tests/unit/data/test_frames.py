"""Frames of videos that OpenCV wrote and that were damaged then."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simfle_jax.data.photographs.frames import frames_of
from simfle_jax.errors import UserError

cv2 = pytest.importorskip("cv2")
FRAMES, RATE = 60, 30


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A function of a codec and an ending to a video of 2 seconds, 64 x 48 pixels."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("clips")
    pictures = rng.integers(0, 256, (FRAMES, 48, 64, 3), np.uint8)

    def write(codec, ending):
        path = folder / f"{codec}{ending}"
        if not path.exists():
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), RATE, (64, 48))
            if not writer.isOpened():
                pytest.skip("this OpenCV writes no such video")
            for picture in pictures:
                writer.write(picture)
            writer.release()
        return path

    return write


KINDS = [("mp4v", ".mkv"), ("MJPG", ".avi"), ("mp4v", ".mp4")]


@pytest.mark.parametrize(("codec", "ending"), KINDS)
def test_every_frame_has_its_time(clip, codec, ending):
    path = clip(codec, ending)
    times = [frame.time for frame in frames_of(path)]
    np.testing.assert_allclose(times, np.arange(FRAMES) / RATE, atol=1e-3)
    assert [frame.time for frame in frames_of(path, fps=10)] == [number / 10 for number in range(FRAMES)]


def test_a_frame_without_a_time_of_its_own_follows_the_one_before(clip):
    times = [frame.time for frame in frames_of(clip("MPG1", ".mpg"))]  # its last frame says 0
    np.testing.assert_allclose(times, np.arange(FRAMES) / RATE, atol=1.01 / RATE)
    assert (np.diff(times) >= 0).all()


def test_a_video_that_breaks_off_gives_its_frames_until_there(clip, tmp_path, caplog):
    for codec, ending in KINDS[:2]:
        data, half = clip(codec, ending).read_bytes(), tmp_path / f"half{ending}"
        half.write_bytes(data[: len(data) // 2])
        found = list(frames_of(half))
        assert 10 < len(found) < 40 and all(frame.pixels is not None for frame in found)
        assert f"{half} breaks off or is damaged: {len(found)} of 60 frames could be read" in caplog.messages[-1]


def test_after_frames_that_are_lost_the_others_keep_their_times(clip, tmp_path):
    data, holed = clip("mp4v", ".mkv").read_bytes(), tmp_path / "holed.mkv"
    hole = slice(len(data) * 4 // 10, len(data) * 5 // 10)
    holed.write_bytes(data[: hole.start] + bytes(hole.stop - hole.start) + data[hole.stop :])
    times = [frame.time for frame in frames_of(holed)]
    assert 30 < len(times) < FRAMES and times[-1] == pytest.approx((FRAMES - 1) / RATE, abs=1e-3)


def test_what_is_wrong_with_a_video_is_told_by_us_alone(clip, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip("mp4v", ".mp4").read_bytes()[:-300])
    program = f"""from pathlib import Path
from simfle_jax.data.photographs.frames import frames_of
try:
    list(frames_of(Path({str(path)!r})))
except Exception as error:
    print(error)"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert "breaks off before its index" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (lambda data: data[:-300], "breaks off before its index"),
        (lambda data: data[:40], "breaks off before its index"),
        (lambda data: data[: data.find(b"mdat") + 4] + bytes(200), "breaks off before its index"),
        (lambda data: b"no video at all", "is no video that OpenCV can read"),
        (lambda data: b"", "is no video that OpenCV can read"),
    ],
)
def test_an_mp4_without_its_index_is_told_in_one_line(clip, tmp_path, left, message):
    path = tmp_path / "cut.mp4"
    path.write_bytes(left(clip("mp4v", ".mp4").read_bytes()))
    with pytest.raises(UserError, match=message) as told:
        list(frames_of(path))
    assert "\n" not in str(told.value) and str(path) in str(told.value)
