import contextlib
import errno
import os
import threading

import numpy as np
import pytest
from images import damaged, encode, smooth, write_classes, write_folder

from simfle_jax.data import cache
from simfle_jax.data.cache import CachedSource, Interrupted, cached
from simfle_jax.data.decode import decode
from simfle_jax.data.pipeline import TrainBatches, eval_batches
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "faces", 20)


def test_records_hold_the_canvases(folder, tmp_path):
    source = FolderSource(folder)
    kept = cached(source, 16, str(tmp_path / "cache"))
    assert isinstance(kept, CachedSource) and len(kept) == 20
    assert (kept.fingerprint, kept.classes, kept.name(7)) == (source.fingerprint, None, "007.jpg")
    for index in range(20):
        np.testing.assert_array_equal(kept[index].data, decode(source[index].data, 16))


def test_batches_are_those_of_the_source_with_its_bad_images(tmp_path):
    write_classes(tmp_path / "faces", {"angry": 12, "happy": 16})
    for number, data in enumerate(damaged().values()):
        (tmp_path / "faces" / "happy" / f"{number:03d}.jpg").write_bytes(data)
    source = FolderSource(tmp_path / "faces", labelled=True)
    kept = cached(source, 16, str(tmp_path / "cache"))
    settings = {"seed": 1, "batch_size": 5, "canvas": 16, "threads": 2}
    with TrainBatches(source, **settings) as expected, TrainBatches(kept, **settings) as got:
        for _ in range(12):
            one, other = next(expected), next(got)
            for key in ("image", "index", "label"):
                np.testing.assert_array_equal(one[key], other[key])
        assert got.bad == expected.bad and len(got.bad) == 12
    for one, other in zip(*(eval_batches(s, batch_size=7, canvas=16) for s in (source, kept))):
        np.testing.assert_array_equal(one["valid"], other["valid"])
        np.testing.assert_array_equal(one["image"], other["image"])


def test_a_second_start_decodes_nothing(folder, tmp_path, monkeypatch):
    path = str(tmp_path / "cache")
    cached(FolderSource(folder), 16, path)
    monkeypatch.setattr(cache, "_build", None)
    assert isinstance(cached(FolderSource(folder), 16, path), CachedSource)


def test_other_data_or_another_canvas_replace_the_cache(folder, tmp_path):
    path = str(tmp_path / "cache")
    cached(FolderSource(folder), 16, path)
    assert cached(FolderSource(folder), 24, path)[0].data.shape == (24, 24, 3)
    (folder / "000.jpg").write_bytes(encode(smooth(40, 40, 99)))
    np.testing.assert_array_equal(
        cached(FolderSource(folder), 24, path)[0].data, decode((folder / "000.jpg").read_bytes(), 24)
    )


@pytest.mark.parametrize("change", [-1, -5000, 3])
def test_a_cache_of_the_wrong_size_is_built_again(folder, tmp_path, change):
    path = tmp_path / "cache"
    cached(FolderSource(folder), 16, str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:change] if change < 0 else whole + bytes(change))
    kept = cached(FolderSource(folder), 16, str(path))
    assert path.read_bytes() == whole
    np.testing.assert_array_equal(kept[19].data, decode((folder / "019.jpg").read_bytes(), 16))


@pytest.mark.parametrize("content", [b"", b"precious results", b'{"format": "other"}', b"[1]"])
def test_a_file_of_another_kind_is_not_overwritten(folder, tmp_path, content):
    path = tmp_path / "cache"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cache is not a cache and will not be overwritten"):
        cached(FolderSource(folder), 16, str(path))
    assert path.read_bytes() == content


def test_a_folder_gets_a_file_for_each_data_set(folder, tmp_path):
    write_folder(tmp_path / "others", 3)
    for root in (folder, tmp_path / "others", folder):
        cached(FolderSource(root), 16, f"{tmp_path}/caches/")  # which is not there yet
    assert len(list((tmp_path / "caches").iterdir())) == 2


def full_after(writes):
    original, lock, left = os.pwrite, threading.Lock(), [writes]

    def pwrite(file, data, offset):
        with lock:
            left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(file, data, offset)

    return pwrite


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_disk_that_fills_up_leaves_the_run_going(folder, tmp_path, monkeypatch, caplog, writes):
    monkeypatch.setattr(cache.os, "pwrite", full_after(writes))
    source = FolderSource(folder)
    assert cached(source, 16, str(tmp_path / "caches" / "cache")) is source
    assert not list((tmp_path / "caches").iterdir())
    assert "No space left on device" in caplog.text


def test_a_disk_that_is_too_small_says_so_first(folder, tmp_path, monkeypatch, caplog):
    def refuse(file, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", refuse)
    monkeypatch.setattr(cache, "decoded_in_order", None)
    source = FolderSource(folder)
    assert cached(source, 16, str(tmp_path / "cache")) is source
    assert "No space left on device" in caplog.text


def test_a_path_that_cannot_be_a_file_leaves_the_run_going(folder, tmp_path, caplog):
    source = FolderSource(folder)
    assert cached(source, 16, str(folder / "000.jpg" / "cache")) is source
    assert "cannot write the cache" in caplog.text


def test_short_writes_are_continued(folder, tmp_path, monkeypatch):
    original = os.pwrite
    monkeypatch.setattr(cache.os, "pwrite", lambda file, data, at: original(file, data[:1000], at))
    kept = cached(FolderSource(folder), 16, str(tmp_path / "cache"))
    np.testing.assert_array_equal(kept[19].data, decode((folder / "019.jpg").read_bytes(), 16))


def test_two_runs_at_once_build_one_whole_cache(folder, tmp_path):
    results = []
    source, path = FolderSource(folder), str(tmp_path / "caches" / "cache")
    threads = [threading.Thread(target=lambda: results.append(cached(source, 16, path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and os.listdir(tmp_path / "caches") == ["cache"]
    for kept in results:
        for index in range(20):
            np.testing.assert_array_equal(kept[index].data, decode(source[index].data, 16))


def test_a_folder_without_a_readable_image_is_told_as_ever(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"")
    kept = cached(FolderSource(tmp_path), 16, str(tmp_path / "cache"))
    with pytest.raises(UserError, match="none of the 1 images can be read"):
        list(eval_batches(kept, batch_size=1, canvas=16))


def after(looks):
    """Says to stop at the look after so many."""
    left = [looks]

    def stopped():
        left[0] -= 1
        return left[0] < 0

    return stopped


def test_a_stop_is_heeded_while_it_is_built_and_nothing_stays(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "ROWS", 4)
    with pytest.raises(Interrupted):
        cached(FolderSource(folder), 16, str(tmp_path / "caches" / "cache"), stopped=after(2))
    assert not os.listdir(tmp_path / "caches")


def test_a_stop_is_heeded_while_another_builds_it(folder, tmp_path):
    path = str(tmp_path / "cache")
    with cache._alone(path, lambda: False), pytest.raises(Interrupted):
        cached(FolderSource(folder), 16, path, stopped=after(1))


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, MemoryError])
def test_nothing_half_built_stays_after_an_error(folder, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(cache, "_write_canvases", fail)
    with pytest.raises(error):
        cached(FolderSource(folder), 16, str(tmp_path / "caches" / "cache"))
    assert not os.listdir(tmp_path / "caches")


def test_what_a_killed_process_left_is_replaced(folder, tmp_path):
    (tmp_path / "cache.partial").write_bytes(bytes(10**6))
    (tmp_path / "cache.lock").touch()
    assert isinstance(cached(FolderSource(folder), 16, str(tmp_path / "cache")), CachedSource)
    assert sorted(os.listdir(tmp_path)) == ["cache", "faces"]


def test_one_of_several_processes_builds_and_the_others_take_it(folder, tmp_path, monkeypatch):
    builds, original, results = [], cache._build, []
    monkeypatch.setattr(cache, "_build", lambda *arguments: builds.append(1) or original(*arguments))
    source, path = FolderSource(folder), str(tmp_path / "cache")
    threads = [threading.Thread(target=lambda: results.append(cached(source, 16, path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1 and all(isinstance(kept, CachedSource) for kept in results) and len(results) == 4


def test_where_locks_do_not_reach_other_hosts_each_builds_its_own(folder, tmp_path, monkeypatch):
    """Else the first to end would put the file of another one in place, half written, which is killed then."""
    monkeypatch.setattr(cache.fcntl, "flock", lambda *_: None)
    path, source, write = str(tmp_path / "cache"), FolderSource(folder), cache._write_canvases
    began, killed = threading.Event(), threading.Event()

    def other():
        with contextlib.suppress(Interrupted):
            cached(source, 16, path)

    def of_other(*_):
        began.set()
        killed.wait(60)
        raise Interrupted

    host = threading.Thread(target=other)

    def of_first(*arguments):
        tail = write(*arguments)
        monkeypatch.setattr(cache, "_write_canvases", of_other)
        host.start()
        began.wait(60)
        return tail

    monkeypatch.setattr(cache, "_write_canvases", of_first)
    cached(source, 16, path)
    killed.set()
    host.join()
    monkeypatch.undo()
    kept = cached(source, 16, path)
    assert isinstance(kept, CachedSource)
    for index in range(20):
        np.testing.assert_array_equal(kept[index].data, decode(source[index].data, 16))
