"""train.py as two processes of two devices each over gloo: they agree, stop together, and go on in other numbers."""

import json
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import processes
import pytest
import small

LOST = ("lost another process of the run", "saw no step for", "Terminating process because")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "images"
    for size in (16, 24):  # so that the canvas, which is found from the data, holds images of their own sizes
        small.write_images(folder / f"{size}", 20, size)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory):
    """Ten steps of one process on one device, with checkpoints 4, 8 and 10; and its flags."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    flags = ("--config.checkpoint_steps=4", "--config.keep_checkpoints=9")
    ((status, text),) = processes.finish(processes.start(images, workdir, *flags, count=1, devices=1))
    assert status == 0, text
    return workdir, flags


def losses(workdir: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss/total"] for line in lines}


def wait_for(workdir: Path, lines: int, started) -> None:
    log, end = workdir / "metrics.jsonl", time.monotonic() + 240
    while not (log.exists() and log.read_text().count("\n") >= lines):
        assert all(process.poll() is None for process in started), processes.finish(started)
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_signal_to_one_stops_both_at_one_step_and_one_process_goes_on(images, tmp_path):
    workdir = tmp_path / "run"
    started = processes.start(images, workdir, "--config.epochs=40")
    wait_for(workdir, 3, started)
    started[1].send_signal(signal.SIGUSR1)
    (first, text), (second, _) = processes.finish(started)
    assert first == 128 + signal.SIGTERM and second in (128 + signal.SIGTERM, 128 + signal.SIGUSR1), text
    assert "saved at step" in text
    saved = int(text.split("saved at step")[1].split(";")[0])
    assert saved == max(losses(workdir))
    ((status, text),) = _few_more(images, workdir)
    assert status in (0, 128 + signal.SIGTERM), text
    assert min(step for step in losses(workdir) if step > saved) == saved + 1


def _few_more(images, workdir):
    """One process goes on for a few steps."""
    before = max(losses(workdir))
    (process,) = started = processes.start(images, workdir, "--config.epochs=40", count=1, devices=1)
    wait_for(workdir, before + 2, started)
    process.send_signal(signal.SIGTERM)
    return processes.finish(started)


@pytest.mark.parametrize("count, devices", [(1, 8), (2, 2)])
def test_the_next_step_on_other_devices_is_that_of_the_uninterrupted_run(
    count, devices, uninterrupted, images, tmp_path
):
    workdir, flags = tmp_path / "run", uninterrupted[1]
    shutil.copytree(uninterrupted[0], workdir)
    for newer in ("8", "10"):
        shutil.rmtree(workdir / "checkpoints" / newer)
    ended = processes.finish(processes.start(images, workdir, *flags, count=count, devices=devices))
    assert all(status == 0 for status, _ in ended) and "goes on from step 4" in ended[0][1], ended
    before, after = losses(uninterrupted[0]), losses(workdir)
    assert {step: after[step] for step in range(1, 5)} == {step: before[step] for step in range(1, 5)}
    # With other images, or the same ones augmented otherwise, it would be another loss.
    assert after[5] == pytest.approx(before[5], rel=1e-6)
    assert list(after) == list(range(1, 11))


def test_a_checkpoint_that_is_damaged_for_one_is_set_aside_by_both(uninterrupted, images, tmp_path):
    workdir, flags = tmp_path / "run", uninterrupted[1]
    shutil.copytree(uninterrupted[0], workdir)
    for file in (workdir / "checkpoints" / "10").rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    ended = processes.finish(processes.start(images, workdir, *flags))
    assert all(status == 0 for status, _ in ended) and "goes on from step 8" in ended[0][1], ended
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "4", "8", "damaged-10"]


def test_a_second_run_of_two_processes_is_refused_by_both(images, tmp_path):
    workdir = tmp_path / "run"
    first = processes.start(images, workdir, "--config.epochs=200", count=1, devices=1)
    wait_for(workdir, 1, first)
    ended = processes.finish(processes.start(images, workdir, "--config.epochs=200"))
    first[0].kill()
    processes.finish(first)
    assert all(status == 2 and f"is in use by process {first[0].pid} on" in text for status, text in ended), ended


def test_different_settings_stop_both_and_are_named(images, tmp_path):
    ended = processes.finish(processes.start(images, tmp_path / "run", own={1: ["--config.lr=0.1"]}))
    for status, text in ended:
        assert status == 2
        assert "process 1 has config.optimizer.lr = 0.1, process 0 has 0.05: start all processes with the same" in text


def test_other_data_of_one_stops_both(images, tmp_path):
    other = small.write_images(tmp_path / "other", 41)
    ended = processes.finish(processes.start(images, tmp_path / "run", own={1: [f"--config.data.path={other}"]}))
    assert all(status == 2 and "process 1 has other images than process 0" in text for status, text in ended), ended


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_dead_or_hung_process_ends_the_other_with_a_message(number, images, tmp_path):
    workdir = tmp_path / "run"
    started = processes.start(images, workdir, "--config.epochs=40", "--peer_timeout=25")
    wait_for(workdir, 2, started)
    started[1].send_signal(number)
    started[0].wait(timeout=90)
    started[1].kill()
    (status, text), _ = processes.finish(started)
    assert status != 0 and any(message in text for message in LOST), text


PROCESS_1_ENDS = """
import os, signal, sys
import jax
from simfle_jax.commands.train import main
from simfle_jax.training import loop

def opened(config, open_data=loop.open_data):
    if jax.process_index():
        {end}
    return open_data(config)

loop.open_data = opened
main()
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "raise KeyError('a fault of the program')"])
def test_a_process_that_ends_before_the_run_begins_is_told_at_once(end, images, tmp_path):
    call = [sys.executable, "-c", PROCESS_1_ENDS.format(end=end)]
    call += processes.command(images, tmp_path / "run", "--peer_timeout=120")[2:]
    began = time.monotonic()
    (status, text), (other, said) = processes.finish(processes.launch(call))
    assert status == 2 and "error: process 0 lost another process of the run" in text, text
    assert other != 0 and ("KeyError: 'a fault of the program'" in said or other == -signal.SIGKILL), said
    assert time.monotonic() - began < 110  # JAX itself would wait for --peer_timeout


def test_an_unreachable_coordinator_is_told_in_time(images, tmp_path):
    flags = (f"--coordinator=127.0.0.1:{processes.free_port()}", "--processes=2", "--process=1", "--init_timeout=3")
    ((status, text),) = processes.finish(processes.start(images, tmp_path / "run", *flags, count=1))
    assert status == 2 and "error: not all processes were there within 3 s" in text, text


def test_a_port_in_use_is_told(images, tmp_path):
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = (f"--coordinator=127.0.0.1:{port}", "--processes=2", "--process=0", "--init_timeout=20")
        ((status, text),) = processes.finish(processes.start(images, tmp_path / "run", *flags, count=1))
    assert status == 2 and "is in use on this host" in text, text


def test_process_0_monitors_and_the_others_wait(uninterrupted, images, tmp_path):
    """The losses are those of one process without a monitor; a bad path of the monitor ends both before they begin."""
    for seed, place in enumerate(("train/a", "train/b", "val/a", "val/b"), 1):
        small.write_images(tmp_path / "faces" / place, 6, seed=seed)
    flags = (f"--config.monitor.path={tmp_path / 'faces'}", "--peer_timeout=60")
    (first, text), (second, other) = processes.finish(processes.start(images, tmp_path / "run", *flags))
    assert (first, second) == (0, 0), text + other
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "monitor/accuracy" in line] == [5, 10]
    expected = losses(uninterrupted[0])
    assert losses(tmp_path / "run") == pytest.approx(expected, rel=1e-3)

    (first, text), (second, other) = processes.finish(
        processes.start(images, tmp_path / "bad", f"--config.monitor.path={tmp_path / 'nowhere'}")
    )
    assert (first, second) == (2, 2) and not (tmp_path / "bad").exists()
    assert "monitor.path: no folder" in text and "monitor.path: no folder" in other
