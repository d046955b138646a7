"""The folder of a run in a bucket: its lock, its files, its checkpoints."""

import json
import os
import shutil
import sys
import threading
import time
import types

import pytest
import small

from simfle_jax.errors import UserError
from simfle_jax.reporting import live, refresh
from simfle_jax.runs import mirror as mirrors
from simfle_jax.runs.at_hand import borrowed
from simfle_jax.runs.bucket_lock import BucketLock
from simfle_jax.runs.mirror import Mirror, mirror_of, opened
from simfle_jax.runs.writers import optional_writers
from simfle_jax.storage import Bucket

both = pytest.mark.parametrize("kind", ["s3", "gs"])


def lock(kind: str, **me) -> BucketLock:
    made = BucketLock(Bucket(f"{kind}://bucket/run"), before=lambda: None, beat=0.2, stale=2.0)
    made.me |= me
    return made


@both
def test_one_run_holds_a_bucket(kind, server):
    with lock(kind).acquire() as held:
        with pytest.raises(UserError, match=f"{kind}://bucket/run is in use by process"):
            lock(kind).acquire()
        time.sleep(0.5)
        held.verify()
        assert int(json.loads(Bucket(f"{kind}://bucket/run").read("lock.json"))["count"]) >= 1
    assert Bucket(f"{kind}://bucket/run").names() == []


@both
def test_no_clock_is_believed(kind, server, monkeypatch):
    with lock(kind, machine="elsewhere", host="node7").acquire() as held:
        now = time.time()
        for clock in (now + 3600, now - 3600):  # of the machine that wants it
            monkeypatch.setattr(time, "time", lambda clock=clock: clock)
            with pytest.raises(UserError, match="is in use by process"):
                lock(kind).acquire()
        held.verify()


@both
def test_a_holder_elsewhere_is_waited_for_and_taken_over_from_by_one(kind, server):
    gone = lock(kind, machine="elsewhere", host="node7")
    assert gone._create()
    taken, refused = [], []

    def take() -> None:
        try:
            taken.append(lock(kind).acquire())
        except UserError as error:
            refused.append(str(error))

    both_at_once = [threading.Thread(target=take) for _ in range(2)]
    for one in both_at_once:
        one.start()
    for one in both_at_once:
        one.join()
    assert len(taken) == 1 and "is in use by" in refused[0], (taken, refused)
    gone._write_count(1)  # it had only slept
    with pytest.raises(UserError, match=f"{kind}://bucket/run was taken over by process"):
        gone.verify()
    gone.before = lambda: pytest.fail("it wrote into a run that is another's")
    gone._give_back()
    taken[0].verify()
    taken[0].release()


def test_files_are_copied_in_order_and_come_back(server, monkeypatch):
    written, write = [], Bucket.write
    monkeypatch.setattr(Bucket, "write", lambda self, name, data: (written.append(name), write(self, name, data))[1])
    with opened("s3://bucket/run") as folder:
        mirror = mirror_of(folder)
        for name in ("config.json", "metrics.jsonl", "a/results.json"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name)
            time.sleep(0.01)
        (folder / ".metrics.1").write_text("half")
        mirror.push()
        assert written == ["config.json", "metrics.jsonl", "a/results.json"]
        (folder / "bad_images.txt").write_text("a")
        mirror.push()
        (folder / "metrics.jsonl").write_text("more")
        (folder / "a/results.json").unlink()  # by somebody: the bucket keeps it
        (folder / "bad_images.txt").unlink()  # as the program does where nothing is left to list
    assert written[3:] == ["bad_images.txt", "metrics.jsonl"] and not folder.exists() and mirror_of(folder) is None
    with borrowed("s3://bucket/run") as copy:
        assert sorted(path.name for path in copy.iterdir()) == ["a", "config.json", "metrics.jsonl"]
        assert (copy / "metrics.jsonl").read_text() == "more"
    with borrowed("s3://bucket/run/metrics.jsonl") as copy:
        assert copy.read_text() == "more"


@pytest.mark.parametrize("lost", ["config.json", "metrics.jsonl", ""])
def test_what_cleans_the_copy_on_this_machine_costs_nothing_in_the_bucket(server, lost):
    with (
        pytest.raises(UserError, match=r"was removed from .* on this machine.* let SIMFLE_CACHE_DIR be one that stays"),
        opened("gs://bucket/run") as folder,
    ):
        for name in ("config.json", "metrics.jsonl", "environment.json"):
            (folder / name).write_text(name)
        mirror_of(folder).push()
        held = dict(server.buckets["bucket"])
        shutil.rmtree(folder) if not lost else (folder / lost).unlink()
        if lost == "metrics.jsonl":
            (folder / "config.json").write_text("another")
    assert server.buckets["bucket"] == held
    with borrowed("gs://bucket/run") as copy:
        assert (copy / "metrics.jsonl").read_text() == "metrics.jsonl"


def test_wandb_knows_the_run_by_its_name_in_the_bucket_and_its_files_get_there(server, monkeypatch):
    def init(**told):
        (told["dir"] / "wandb" / "offline-run").mkdir(parents=True)
        (told["dir"] / "wandb" / "offline-run" / "run.wandb").write_text(told["name"])
        return types.SimpleNamespace(log=lambda *_, **__: None)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    with opened("gs://bucket/runs/one") as folder:
        optional_writers(small.config(wandb=True), folder, 0)
    held = server.buckets["bucket"]
    assert held["runs/one/wandb/offline-run/run.wandb"].data == b"one" and "runs/one/wandb_id.txt" in held


@pytest.mark.skipif(os.name == "nt", reason="the program that stands in for Python here is for sh")
def test_the_page_of_a_run_that_goes_on_is_made_here_and_names_the_bucket(server, tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$@" > "$3/report.html"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with opened("gs://bucket/run") as folder:
        report = live.LiveReport(small.config(report_every=1))
        report.begin(folder)
        report.last()
    page = server.buckets["bucket"]["run/report.html"].data.decode().split()
    assert page == ["-m", "simfle_jax.reporting.refresh", str(folder), "--named", "gs://bucket/run"]
    with pytest.raises(SystemExit, match=r"^error: gs://bucket/run holds no config\.json"):
        refresh.main([str(tmp_path), "--named", "gs://bucket/run"])


def test_errors_name_the_bucket_and_its_files_are_left_as_they_were(server):
    with (
        pytest.raises(UserError, match=r"^s3://bucket/run/config.json is damaged$"),
        opened("s3://bucket/run") as folder,
    ):
        (folder / "config.json").write_text("{")
        raise UserError(f"{folder / 'config.json'} is damaged")
    assert server.buckets["bucket"] == {}
    Bucket("s3://bucket/run").write("notes.txt", b"1")
    with pytest.raises(UserError, match="s3://bucket/run holds something else than a run"), opened("s3://bucket/run"):
        pass


@pytest.fixture
def saved(server, tmp_path):
    """Checkpoints 3, 6 and 9 of which the newest two are kept."""
    mirror = Mirror("gs://bucket/run", tmp_path / "here")
    for step in (3, 6, 9):
        for name in ("state/d/1", "state/d/2", "meta"):
            path = mirror.folder / "checkpoints" / str(step) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % step * 99)
        mirror.push_checkpoint(step, keep=2)
    mirror.bucket.write("config.json", b"{}")
    return server.buckets["bucket"]


def reader(tmp_path) -> Mirror:
    mirror = Mirror("gs://bucket/run", tmp_path / "there", writes=False)
    mirror.folder.mkdir(exist_ok=True)
    mirror.fetch()
    return mirror


def test_the_newest_checkpoints_are_kept(saved, tmp_path):
    mirror = reader(tmp_path)
    assert mirror.steps == [9, 6] and mirror.fetch_checkpoint(9) == ""
    assert (mirror.folder / "checkpoints/9/state/d/2").read_bytes() == b"9" * 99
    assert len(saved) == 2 * 4 + 1 and not any("/3" in name for name in saved), sorted(saved)


def test_a_checkpoint_without_its_list_is_none_and_a_damaged_one_is_told(saved, tmp_path):
    (name,) = (name for name in saved if "/9-" in name and name.endswith("d/1"))
    saved[name] = saved[name]._replace(data=b"8" * 99)
    assert "state/d/1 is not what was written" in reader(tmp_path).fetch_checkpoint(9)
    del saved[name]
    mirror = reader(tmp_path)
    assert "it has no state/d/1" in mirror.fetch_checkpoint(9)
    mirror.set_aside(9)
    assert reader(tmp_path).steps == [6] and "run/checkpoints/damaged-9.json" in saved
    del saved["run/checkpoints/6.json"]
    assert reader(tmp_path).steps == []


def test_what_a_killed_copy_left_is_removed(saved, tmp_path, monkeypatch):
    writer = Mirror("gs://bucket/run", tmp_path / "writer")
    (writer.folder / "checkpoints/12/state").mkdir(parents=True)
    (writer.folder / "checkpoints/12/state/a").write_bytes(b"12")
    writer.fetch()
    with monkeypatch.context() as patch:

        def cut_short(self, name, data):
            if name.endswith(".json"):
                raise UserError("no network")
            return write(self, name, data)

        write = Bucket.write
        patch.setattr(Bucket, "write", cut_short)
        with pytest.raises(UserError, match="no network"):
            writer.push_checkpoint(12, keep=2)
    remains = {name for name in saved if "/12-" in name}
    assert remains
    other = Mirror("gs://bucket/run", tmp_path / "writer")  # the next start, which holds the lock
    (damaged,) = (name for name in saved if "/6-" in name and name.endswith("d/1"))
    other.fetch()
    other.set_aside(6)
    saved["run/checkpoints/9.json.bak"] = saved.pop("run/checkpoints/9.json")  # somebody's
    other.remove_remains()
    saved["run/checkpoints/9.json"] = saved.pop("run/checkpoints/9.json.bak")
    assert not remains & saved.keys() and damaged in saved and other.fetch_checkpoint(9) == ""
    writer.push_checkpoint(12, keep=2)
    assert len([name for name in saved if "/12-" in name]) == 1, "also of one that goes on itself"


def test_it_is_copied_now_and_then(server, monkeypatch):
    monkeypatch.setattr(mirrors, "EVERY", 0.05)
    with opened("gs://bucket/run") as folder:
        (folder / "config.json").write_text("1")
        end = time.monotonic() + 20
        while "run/config.json" not in server.buckets["bucket"]:
            assert time.monotonic() < end
            time.sleep(0.02)
        server.denied = True
        (folder / "config.json").write_text("more")
        while True:
            try:
                mirror_of(folder).check()
            except UserError as error:
                assert "no permission" in str(error)
                break
            assert time.monotonic() < end
            time.sleep(0.02)
        server.denied = False
