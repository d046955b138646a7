import threading
import time

import numpy as np
import pytest
from images import damaged, encode, smooth, write_classes, write_folder

from simfle_jax.data import pipeline
from simfle_jax.data.decode import decode
from simfle_jax.data.order import global_batch
from simfle_jax.data.pipeline import TrainBatches, eval_batches
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError

NO_IMAGE = "not a JPEG, PNG or WebP image"
SETTINGS = {"seed": 5, "batch_size": 6, "canvas": 16, "threads": 2}


def take(source, steps, **settings):
    with TrainBatches(source, **SETTINGS | settings) as batches:
        return [next(batches) for _ in range(steps)]


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return FolderSource(write_folder(tmp_path_factory.mktemp("faces"), 20))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled")
    return FolderSource(write_classes(root, {"angry": 7, "happy": 9, "sad": 4}), labelled=True)


def spoil(folder, *numbers):
    for number, (_, data) in zip(numbers, damaged().items()):
        (folder / f"{number:03d}.jpg").write_bytes(data)


def test_a_batch_holds_the_decoded_images_of_the_order(source):
    for step, batch in enumerate(take(source, 7)):
        wanted = global_batch(20, 5, step, 6)
        np.testing.assert_array_equal(batch["index"], wanted)
        np.testing.assert_array_equal(batch["image"], [decode(source[i].data, 16) for i in wanted])
        assert batch["image"].dtype == np.uint8 and batch["index"].dtype == np.int32
        assert "label" not in batch


def test_labels_are_those_of_the_images(labelled):
    for batch in take(labelled, 4):
        assert batch["label"].dtype == np.int32
        assert [labelled[i].label for i in batch["index"]] == batch["label"].tolist()


@pytest.mark.parametrize("start", [1, 3, 8])
def test_starting_at_a_step_equals_having_come_there(source, start):
    assert_same(take(source, 4, start_step=start), take(source, start + 4)[start:])


def test_a_far_step_is_reached_at_once(source):
    (batch,) = take(source, 1, start_step=10**9)
    np.testing.assert_array_equal(batch["index"], global_batch(20, 5, 10**9, 6))


@pytest.mark.parametrize("threads", [1, 5, 0])
def test_the_number_of_threads_changes_nothing(source, threads):
    assert_same(take(source, 8, threads=threads), take(source, 8, threads=2))


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_the_parts_of_the_processes_make_the_global_batch(labelled, processes):
    parts = [take(labelled, 4, process_index=p, process_count=processes) for p in range(processes)]
    joined = [{key: np.concatenate([p[s][key] for p in parts]) for key in parts[0][s]} for s in range(4)]
    assert_same(joined, take(labelled, 4))


def test_a_batch_larger_than_the_data_names_both(source):
    with pytest.raises(UserError, match=r"batch_size=21 is larger than the data, 20 images"):
        TrainBatches(source, **SETTINGS | {"batch_size": 21})


def test_a_batch_that_the_processes_do_not_divide_is_refused(source):
    with pytest.raises(UserError, match=r"batch_size=6 .* 4 processes"):
        TrainBatches(source, **SETTINGS, process_count=4)


def test_unreadable_images_are_replaced_by_the_next_readable_and_noted_once(tmp_path):
    write_folder(tmp_path, 20)
    spoil(tmp_path, 3, 4, 19)
    source = FolderSource(tmp_path)
    replaced = {3: 5, 4: 5, 19: 0}
    with TrainBatches(source, **SETTINGS) as batches:
        for step in range(9):
            batch = next(batches)
            wanted = [replaced.get(i, i) for i in global_batch(20, 5, step, 6).tolist()]
            assert batch["index"].tolist() == wanted
            np.testing.assert_array_equal(batch["image"], [decode(source[i].data, 16) for i in wanted])
        assert batches.bad == {"003.jpg": "empty file", "004.jpg": NO_IMAGE, "019.jpg": NO_IMAGE}


def test_replacement_does_not_depend_on_where_a_run_starts(tmp_path):
    write_folder(tmp_path, 20)
    spoil(tmp_path, 0, 1, 2, 9, 10)
    source = FolderSource(tmp_path)
    assert_same(take(source, 3, start_step=5, threads=1), take(source, 8)[5:])


def test_a_link_to_nowhere_is_a_bad_image(tmp_path):
    write_folder(tmp_path, 12)
    (tmp_path / "zzz.jpg").symlink_to(tmp_path / "nowhere.jpg")
    bad = {}
    *_, last = eval_batches(FolderSource(tmp_path), batch_size=13, canvas=16, bad=bad)
    assert last["valid"].sum() == 12
    assert bad == {"zzz.jpg": "a link to nowhere"}


def test_too_many_bad_images_stop_the_run_within_the_epoch(tmp_path):
    write_folder(tmp_path, 18)
    spoil(tmp_path, 2, 7, 11, 13)
    with pytest.raises(UserError, match=r"4 of 18 images .* data.max_bad_fraction=0.2: 0") as caught:
        take(FolderSource(tmp_path), 3, max_bad_fraction=0.2)
    assert str(caught.value).count(".jpg (") == 3 and "\n" not in str(caught.value)


def test_a_tolerated_share_of_bad_images_does_not(tmp_path):
    write_folder(tmp_path, 18)
    spoil(tmp_path, 2, 7, 11, 13)
    assert len(take(FolderSource(tmp_path), 9, max_bad_fraction=0.25)) == 9


def test_a_large_folder_is_judged_long_before_its_end(tmp_path):
    data = encode(smooth(16, 16))
    for number in range(300):
        (tmp_path / f"{number}.jpg").write_bytes(b"broken" if number % 6 else data)
    with pytest.raises(UserError, match=r"[0-9]+ of (300|[1-9][0-9]) images"):
        take(FolderSource(tmp_path), 50, max_bad_fraction=0.5)


def test_no_bad_image_is_tolerated_when_none_shall_be(tmp_path):
    write_folder(tmp_path, 18)
    spoil(tmp_path, int(global_batch(18, 5, 0, 6)[2]))
    with pytest.raises(UserError, match=r"1 of 18 images"):
        take(FolderSource(tmp_path), 1, max_bad_fraction=0.0)


def test_damage_in_a_row_is_no_more_than_its_share(tmp_path):
    """Each bad image that is drawn is replaced by its next readable neighbour, past all the bad ones."""
    data = encode(smooth(16, 16))
    for number in range(1000):
        (tmp_path / f"{number:04d}.jpg").write_bytes(b"broken" if 500 <= number < 540 else data)
    source, settings = FolderSource(tmp_path), SETTINGS | {"batch_size": 20}
    take(source, 50, **settings, max_bad_fraction=0.04)
    with pytest.raises(UserError, match=r"40 of 1000 images"):
        take(source, 50, **settings, max_bad_fraction=0.039)


def test_one_percent_of_twelve_kinds_among_two_thousand(tmp_path):
    data, kinds = encode(smooth(16, 16)), damaged()
    for number in range(1980):
        (tmp_path / f"{number:04d}.jpg").write_bytes(data)
    for number in range(20):
        name = list(kinds)[number % 12]
        (tmp_path / f"{99 * number:04d}-{name}").write_bytes(kinds[name])
    source, settings = FolderSource(tmp_path), SETTINGS | {"batch_size": 200}
    with TrainBatches(source, **settings, max_bad_fraction=0.01) as batches:
        for _ in range(10):
            next(batches)
        assert sorted(batches.bad) == [n for n in map(source.name, range(2000)) if "-" in n]
    with pytest.raises(UserError, match=r"data.max_bad_fraction=0.005: .*; mend or remove them, or raise the limit"):
        take(source, 10, **settings, max_bad_fraction=0.005)


def test_no_readable_image_at_all(tmp_path):
    for name, data in damaged().items():
        (tmp_path / name).write_bytes(data)
    source = FolderSource(tmp_path)
    with pytest.raises(UserError, match=r"none of the 12 images can be read: .*\(.*\); .*\(.*\); .*\("):
        take(source, 1)
    with pytest.raises(UserError, match=r"none of the 12 images"):
        list(eval_batches(source, batch_size=4, canvas=16))


def test_evaluation_sees_every_image_once_in_order(labelled):
    batches = list(eval_batches(labelled, batch_size=8, canvas=16, threads=2))
    assert [b["image"].shape for b in batches] == [(8, 16, 16, 3)] * 3
    valid = np.concatenate([b["valid"] for b in batches])
    np.testing.assert_array_equal(valid, np.arange(24) < 20)
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in batches])[valid], np.arange(20))
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in batches])[valid], labelled.labels)
    images = np.concatenate([b["image"] for b in batches])
    np.testing.assert_array_equal(images[:20], [decode(labelled[i].data, 16) for i in range(20)])
    assert not images[20:].any()


@pytest.mark.parametrize("batch_size", [12, 20, 40])
def test_a_batch_of_parts_is_that_of_one_thread(labelled, monkeypatch, batch_size):
    """Also when the last of its parts hold no image."""
    whole = list(eval_batches(labelled, batch_size=batch_size, canvas=16, threads=3))
    monkeypatch.setattr(pipeline, "PART", 4)
    assert_same(list(eval_batches(labelled, batch_size=batch_size, canvas=16, threads=3)), whole)


def test_the_parts_of_a_batch_are_decoded_at_the_same_time(labelled, monkeypatch):
    """One thread would decode them one after the other, and the first would wait in vain."""
    monkeypatch.setattr(pipeline, "PART", 12)
    together, original = threading.Barrier(2), FolderSource.__getitem__

    def read(self, index):
        if index in (0, 12):
            together.wait(timeout=20)
        return original(self, index)

    monkeypatch.setattr(FolderSource, "__getitem__", read)
    (batch,) = eval_batches(labelled, batch_size=24, canvas=16, threads=2)
    assert batch["valid"].sum() == 20


def test_evaluation_marks_unreadable_rows_and_limits_their_share(tmp_path):
    write_folder(tmp_path, 10)
    spoil(tmp_path, 0, 6)
    bad: dict[str, str] = {}
    batches = list(eval_batches(FolderSource(tmp_path), batch_size=5, canvas=16, max_bad_fraction=0.2, bad=bad))
    assert [np.flatnonzero(~b["valid"]).tolist() for b in batches] == [[0], [1]]
    assert list(bad) == ["000.jpg", "006.jpg"] and not batches[1]["image"][1].any()
    with pytest.raises(UserError, match=r"2 of 10 images"):
        list(eval_batches(FolderSource(tmp_path), batch_size=5, canvas=16, max_bad_fraction=0.1))


def wait_for_threads():
    """The decoding threads still alive five seconds later at most."""
    deadline = time.monotonic() + 5
    while (alive := decoding_threads()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return alive


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]


def test_closing_ends_the_threads(source):
    batches = TrainBatches(source, **SETTINGS | {"threads": 3})
    next(batches)
    evaluation = eval_batches(source, batch_size=3, canvas=16, threads=3)
    next(evaluation)
    assert decoding_threads()
    batches.close()
    evaluation.close()
    assert not wait_for_threads()


def test_an_error_in_a_thread_ends_the_others(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError):
        take(FolderSource(tmp_path), 1, batch_size=1)
    assert not wait_for_threads()


def test_reads_no_further_ahead_than_said(tmp_path, monkeypatch):
    (tmp_path / "1.png").write_bytes(encode(smooth(16, 16), "PNG"))
    (tmp_path / "2.png").write_bytes(encode(smooth(16, 16, 1), "PNG"))
    source, read = FolderSource(tmp_path), []
    original = FolderSource.__getitem__
    monkeypatch.setattr(FolderSource, "__getitem__", lambda self, i: read.append(i) or original(self, i))
    with TrainBatches(source, seed=0, batch_size=1, canvas=16, threads=1) as batches:
        next(batches)
        time.sleep(0.2)
        assert 1 <= len(read) <= 1 + 1 + pipeline.BATCHES_AHEAD
