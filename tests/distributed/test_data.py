"""Two processes and the data they share: one cache, one look at the sizes, one stop."""

import os
import signal
import time

import numpy as np
import processes
import pytest
import simplejpeg
import small

STOPPED = 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return small.write_images(tmp_path_factory.mktemp("data") / "images", 40)


@pytest.fixture
def slow_images(tmp_path):
    """Six hundred names of one image that takes some hundredths of a second to decode."""
    folder = tmp_path / "slow"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), np.uint8)
    (folder / "000.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, quality=95))
    for number in range(1, 600):
        os.link(folder / "000.jpg", folder / f"{number:03d}.jpg")
    return folder


def test_one_process_builds_the_cache_of_both(images, tmp_path):
    kept = tmp_path / "canvases"
    ended = processes.finish(processes.start(images, tmp_path / "run", f"--config.data.cache={kept}"))
    assert [status for status, _ in ended] == [0, 0], ended
    assert kept.exists() and not list(tmp_path.glob("canvases?*"))
    assert sum("decoding into the cache" in text for _, text in ended) == 1, ended


@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_one_stops_both_while_the_cache_is_built(slow_images, tmp_path, signalled):
    kept = tmp_path / "canvases"
    started = processes.start(slow_images, tmp_path / "run", f"--config.data.cache={kept}")
    end = time.monotonic() + 120
    while not list(tmp_path.glob("canvases.*.partial")):
        assert all(process.poll() is None for process in started), processes.finish(started)
        assert time.monotonic() < end
        time.sleep(0.02)
    started[signalled].send_signal(signal.SIGTERM)
    ended = processes.finish(started)
    assert [status for status, _ in ended] == [STOPPED, STOPPED], ended
    assert "stopped while the cache of decoded images was built" in ended[0][1], ended
    assert not list(tmp_path.glob("canvases*"))
