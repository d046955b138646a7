"""launch/ under a real Slurm and a real mpirun on this machine: `pytest -m cluster tests/distributed`.

Needs root, Debian's slurm-wlm, munge and openmpi-bin.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import small

ROOT = processes.ROOT
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return small.write_images(tmp_path_factory.mktemp("data") / "images", 40)


def steps(workdir: Path) -> list[int]:
    log = workdir / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def wait_until(what, state=lambda: "") -> None:
    end = time.monotonic() + 150
    while not what():
        assert time.monotonic() < end, f"it did not happen in time: {state()}"
        time.sleep(0.1)


@pytest.fixture
def slurm(tmp_path):
    if os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        pytest.skip("needs root, slurm-wlm and munge")
    script = str(ROOT / "tests/distributed/slurm.sh")
    started = subprocess.run([script, "start", tmp_path], capture_output=True, text=True, check=False)
    try:
        if started.returncode:
            pytest.skip(f"Slurm does not start here: {started.stderr.strip()}")
        yield processes.environment() | {"SLURM_CONF": f"{tmp_path}/slurm.conf", "PYTHON": sys.executable}
    finally:
        subprocess.run([script, "stop", tmp_path], check=True)


def test_slurm_is_preempted_requeued_and_goes_on(slurm, images, tmp_path):
    def call(*command: str) -> str:
        return subprocess.run(command, env=slurm, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    workdir, log = tmp_path / "run", tmp_path / "job.log"
    flags = processes.command(images, workdir, "--config.epochs=200")[2:]
    place = ("--gpus-per-node=0", "--nodes=1", "--ntasks=2", "--ntasks-per-node=2", f"--output={log}")
    job = call("sbatch", "--parsable", *place, "launch/slurm.sh", *flags).strip()

    def state() -> str:
        return call("scontrol", "show", "job", job) + (log.read_text() if log.exists() else "")

    wait_until(lambda: len(steps(workdir)) >= 3, state)
    call("scancel", "--signal=USR1", job)
    wait_until(lambda: "saved at step" in log.read_text(), state)
    saved = int(re.findall(r"saved at step (\d+)", log.read_text())[0])
    wait_until(lambda: max(steps(workdir)) > saved + 1, state)
    assert "Restarts=1" in state()
    call("scancel", job)
    text = log.read_text()
    assert text.count("distributed: on (Slurm step of 2 tasks)") == 4, text
    assert f"goes on from step {saved}" in text
    assert steps(workdir) == list(range(1, max(steps(workdir)) + 1)), "no step is missing or twice"


def test_mpirun_is_stopped_and_goes_on(images, tmp_path):
    if not shutil.which("mpirun"):
        pytest.skip("needs openmpi-bin")
    workdir = tmp_path / "run"
    flags = processes.command(images, workdir, "--config.epochs=200")[2:]
    environment = processes.environment() | {
        "PYTHON": sys.executable, "PROCESSES": "2", "MPIRUN_FLAGS": "--allow-run-as-root --oversubscribe",
    }  # fmt: skip
    for turn in range(2):
        before = max(steps(workdir), default=0)
        job = subprocess.Popen(
            ["launch/mpirun.sh", *flags], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda before=before: max(steps(workdir), default=0) >= before + 3)
        job.send_signal(signal.SIGUSR1)
        text = job.communicate(timeout=120)[1]
        assert "saved at step" in text and "distributed: on (mpirun of 2 processes)" in text, (turn, text)
    assert steps(workdir) == list(range(1, max(steps(workdir)) + 1))


def test_mpirun_in_a_shell_of_slurm_is_one_run_that_is_killed_and_goes_on(slurm, images, tmp_path):
    """The shell is a step of one task, and its variables are the ranks' too."""
    if not shutil.which("mpirun"):
        pytest.skip("needs openmpi-bin")
    workdir, log = tmp_path / "run", tmp_path / "job.log"
    flags = processes.command(images, workdir, "--config.epochs=200", "--config.checkpoint_steps=3")[2:]
    environment = slurm | {"PROCESSES": "2", "MPIRUN_FLAGS": "--allow-run-as-root --oversubscribe"}
    call = ["salloc", "--ntasks=2", "srun", "--ntasks=1", "--overlap", "launch/mpirun.sh", *flags]
    reached = 0
    for turn in range(2):
        with log.open("w") as out:
            job = subprocess.Popen(call, env=environment, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        wait_until(lambda reached=reached: max(steps(workdir), default=0) >= reached + 7, log.read_text)
        subprocess.run(["scancel", "--signal=KILL", "--full", "--me"], env=slurm, check=True)
        assert job.wait(timeout=60) != 0
        reached, text = max(steps(workdir)), log.read_text()
        said = re.findall(
            r"distributed: on \(mpirun of 2 processes, inside a Slurm step of 1 task\): process (\d) of 2", text
        )
        assert sorted(said) == ["0", "1"], text
        assert ("goes on from step" in text) == (turn == 1), text
        wait_until(lambda: not subprocess.run(["squeue", "-h"], env=slurm, capture_output=True, check=True).stdout)
    assert steps(workdir) == list(range(1, reached + 1)), "no step is missing or twice: the ranks are one run"
