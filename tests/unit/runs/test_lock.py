"""One run a folder: who is refused, who is waited for, and whose lock is taken over."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from simfle_jax.errors import UserError
from simfle_jax.runs import lock as locks
from simfle_jax.runs.lock import Lock

ROOT = Path(__file__).parents[3]
HOLD = (
    "import sys, time, pathlib; from simfle_jax.runs.lock import Lock\n"
    "Lock(pathlib.Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(600)"
)


@pytest.fixture
def holder(tmp_path):
    """Another process of this machine that holds the lock of tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as held:
        assert held.stdout.readline() == "held\n"
        yield held
        held.kill()


def of_another_machine(folder: Path, **changes) -> Path:
    """The lock of a process on another host."""
    lock = Lock(folder)
    lock.me |= {"machine": "elsewhere", "host": "node7", "pid": 4711, "command": "train.py", **changes}
    assert lock._create()
    return folder / "lock.json"


def test_it_is_there_while_held_and_gone_after(tmp_path):
    with Lock(tmp_path / "run").acquire() as lock:
        lock.verify()
        told = json.loads((tmp_path / "run" / "lock.json").read_text())
        assert (
            told["pid"] == os.getpid()
            and told["since"]
            and [p.name for p in (tmp_path / "run").iterdir()] == ["lock.json"]
        )
    assert list((tmp_path / "run").iterdir()) == []


def test_a_living_process_is_named_and_the_second_one_refused_at_once(holder, tmp_path):
    began = time.monotonic()
    with pytest.raises(
        UserError, match=rf"is in use by process {holder.pid} on .* since \d{{4}}-.*give another --workdir"
    ):
        Lock(tmp_path).acquire()
    assert time.monotonic() - began < locks.STALE / 2


def test_a_suspended_process_still_holds_it(holder, tmp_path):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match="is in use"):
        Lock(tmp_path).acquire()


@pytest.mark.parametrize("buried", [True, False])
def test_that_of_a_killed_process_is_taken_at_once(buried, holder, tmp_path, capfd):
    holder.kill()
    if buried:
        holder.wait()
    else:
        end = time.monotonic() + 30
        while locks.process_start(holder.pid) != "":
            assert time.monotonic() < end
            time.sleep(0.01)
    with Lock(tmp_path).acquire() as lock:
        lock.verify()
    assert "waiting" not in capfd.readouterr().err


def test_a_process_number_that_another_process_got_is_no_holder(tmp_path):
    lock = Lock(tmp_path)
    lock.me["started"] = "1"
    assert lock._create()
    Lock(tmp_path).acquire().release()


@pytest.mark.parametrize("lacks", ["Windows", "no /proc and no ps"])
def test_where_nothing_tells_whether_a_process_lives_the_lock_itself_does(lacks, tmp_path, monkeypatch, capfd):
    """The number of a process that is gone may have been given to another one."""
    if lacks == "Windows":
        monkeypatch.setattr(locks, "WINDOWS", True)
        monkeypatch.setattr(locks.os, "kill", lambda *_: pytest.fail("that ends the process on Windows"))
    else:
        monkeypatch.setattr(locks, "process_start", lambda pid: None)
    gone = Lock(tmp_path)
    assert gone._create()
    with Lock(tmp_path, beat=0.1, stale=0.4).acquire():
        assert "to see whether it lives" in capfd.readouterr().err


@pytest.mark.skipif(not shutil.which("ps"), reason="no ps")
def test_ps_tells_when_a_process_began(holder):
    assert locks._by_ps(holder.pid) == locks._by_ps(holder.pid) != locks._by_ps(1)
    holder.kill()
    holder.wait()
    assert locks._by_ps(holder.pid) is None


def test_a_holder_elsewhere_that_lives_is_refused_when_it_is_heard(tmp_path, capfd):
    other = Lock(tmp_path, beat=0.05)
    other.me |= {"machine": "elsewhere", "host": "node7"}
    with other.acquire(), pytest.raises(UserError, match=r"is in use by process \d+ on node7"):
        Lock(tmp_path, beat=0.1, stale=30).acquire()
    assert "node7" in capfd.readouterr().err


def test_a_holder_elsewhere_that_is_silent_is_taken_over(tmp_path, capfd):
    of_another_machine(tmp_path)
    began = time.monotonic()
    with Lock(tmp_path, beat=0.1, stale=0.6).acquire() as lock:
        assert time.monotonic() - began >= 0.6
        lock.verify()
    assert "held by process 4711 on node7 (train.py)" in capfd.readouterr().err


def test_a_lock_that_a_power_cut_emptied_is_taken_over(tmp_path):
    (tmp_path / "lock.json").write_text("")
    with Lock(tmp_path, beat=0.1, stale=0.3).acquire() as lock:
        assert json.loads((tmp_path / "lock.json").read_text())["id"] == lock.me["id"]


def test_who_was_taken_over_is_stopped_before_it_writes(tmp_path):
    with Lock(tmp_path).acquire() as lock:
        (tmp_path / "lock.json").unlink()
        of_another_machine(tmp_path)
        with pytest.raises(UserError, match="was taken over by process 4711 on node7"):
            lock.verify()
    assert (tmp_path / "lock.json").exists(), "it removed the lock of another one"


def test_a_lock_removed_by_hand_is_made_again(tmp_path):
    with Lock(tmp_path, beat=0.05).acquire():
        (tmp_path / "lock.json").unlink()
        end = time.monotonic() + 20
        while not (tmp_path / "lock.json").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
    assert not (tmp_path / "lock.json").exists()


def test_a_slower_one_puts_back_the_lock_that_a_faster_one_took(tmp_path):
    slow, fast = Lock(tmp_path), Lock(tmp_path)
    gone = json.loads(of_another_machine(tmp_path).read_text())
    fast._remove(gone)
    assert fast._create()
    slow._remove(gone)
    fast.verify()
    assert fast._holder()["id"] == fast.me["id"] and not slow._create()


def test_without_hard_links_it_is_a_lock_too(tmp_path, monkeypatch):
    def unsupported(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    with Lock(tmp_path).acquire(), pytest.raises(UserError, match="is in use"):
        Lock(tmp_path).acquire()


def _try(folder: Path, barrier, queue) -> None:
    barrier.wait()
    try:
        Lock(folder, beat=0.1, stale=0.3).acquire()
        queue.put("held")
    except UserError:
        queue.put("refused")
    time.sleep(3)


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_many_at_once_one_gets_it(left_behind, tmp_path):
    if left_behind:
        of_another_machine(tmp_path)
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(6), context.Queue()
    started = [context.Process(target=_try, args=(tmp_path, barrier, queue)) for _ in range(6)]
    for process in started:
        process.start()
    found = [queue.get(timeout=60) for _ in started]
    for process in started:
        process.kill()
        process.join()
    assert found.count("held") == 1, found


def test_threads_of_one_process_are_two_runs(tmp_path):
    refused = []

    def second():
        try:
            Lock(tmp_path).acquire()
        except UserError as error:
            refused.append(error)

    with Lock(tmp_path).acquire():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
