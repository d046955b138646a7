"""What cannot be read for a moment changes no batch; what cannot be read at all stops, and never replaces an image."""

import errno

import numpy as np
import pytest
from images import write_folder

from simfle_jax.data import files, packing
from simfle_jax.data.cache import cached
from simfle_jax.data.files import patiently
from simfle_jax.data.pipeline import TrainBatches, eval_batches
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError

SETTINGS = {"seed": 5, "batch_size": 6, "canvas": 16, "threads": 2}


class Flaky:
    """A source of which some reads fail: `failures[index]` times with `error`."""

    def __init__(self, source, failures, error):
        self.source, self.failures, self.error = source, dict(failures), error
        self.classes, self.labels, self.fingerprint = None, None, source.fingerprint

    def __len__(self):
        return len(self.source)

    def name(self, index):
        return self.source.name(index)

    def __getitem__(self, index):
        if self.failures.get(index, 0) > 0:
            self.failures[index] -= 1
            raise self.error
        return self.source[index]


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.01))
    return FolderSource(write_folder(tmp_path / "faces", 20))


STALE, EIO = OSError(errno.ESTALE, "Stale file handle"), OSError(errno.EIO, "Input/output error")


def indices(source, steps=9):
    with TrainBatches(source, **SETTINGS) as batches:
        found = np.array([next(batches)["index"] for _ in range(steps)])
        assert batches.bad == {}
    return found


@pytest.mark.parametrize("error", [STALE, EIO])
def test_a_read_that_fails_for_a_moment_changes_no_batch(source, error):
    np.testing.assert_array_equal(indices(Flaky(source, {3: 2, 11: 1}, error)), indices(source))


@pytest.mark.parametrize(
    "error", [EIO, PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EMFILE, "Too many open files")]
)
def test_one_that_goes_on_failing_stops_and_is_named(source, error):
    with pytest.raises(UserError, match=rf"003.jpg cannot be read: {error.strerror}; .* the same command goes on"):
        indices(Flaky(source, {3: 10**9}, error))
    with pytest.raises(UserError, match=r"003.jpg cannot be read"):
        list(eval_batches(Flaky(source, {3: 10**9}, error), batch_size=4, canvas=16))


def test_a_cache_keeps_no_image_that_could_not_be_read_for_a_moment(source, tmp_path):
    with pytest.raises(UserError, match=r"003.jpg cannot be read"):
        cached(Flaky(source, {3: 10**9}, EIO), 16, str(tmp_path / "cache"))
    assert not list(tmp_path.glob("cache*"))
    kept = cached(Flaky(source, {3: 1}, EIO), 16, str(tmp_path / "cache"))
    np.testing.assert_array_equal(indices(kept), indices(source))


def test_a_pack_keeps_no_image_that_could_not_be_read_for_a_moment(source, tmp_path, monkeypatch):
    original = FolderSource.__getitem__

    def read(self, index):
        if index == 3:
            raise EIO
        return original(self, index)

    monkeypatch.setattr(FolderSource, "__getitem__", read)
    with pytest.raises(UserError, match=r"003.jpg cannot be read: Input/output error"):
        packing.pack(source.root, str(tmp_path / "pack"))
    assert not list(tmp_path.glob("pack*"))


def test_waiting_grows_and_is_told(monkeypatch, caplog):
    monkeypatch.setattr(files, "PAUSES", (0.25, 2.0))
    waited, tries = [], []

    def read():
        tries.append(1)
        raise EIO

    with pytest.raises(UserError, match="x cannot be read: Input/output error"):
        patiently(read, "x cannot be read", waited.append)
    assert waited == [0.25, 2.0] and len(tries) == 3
    assert "Input/output error; trying again in 2 s" in caplog.text
