"""An error output that nobody reads, or that is closed, costs no run. Each is train.py in a process of its own."""

import os
import subprocess

import processes
import pytest
import small

from simfle_jax.training.restore import checkpoint_steps


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return small.write_images(tmp_path_factory.mktemp("data") / "images", 40)


def closed_pipe() -> int:
    """The end for writing of a pipe that has no other end any more."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("output", ["a pipe that its reader closed", "a full disk", "closed"])
def test_training_outlives_its_error_output(output, images, tmp_path):
    command = processes.command(images, tmp_path / "run")
    number = {"a pipe that its reader closed": closed_pipe, "a full disk": lambda: os.open("/dev/full", os.O_WRONLY)}
    if output == "closed":
        command, stderr = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command], None
    else:
        stderr = number[output]()
    done = subprocess.run(command, env=processes.environment(1), cwd=processes.ROOT, stderr=stderr, timeout=240)
    if stderr is not None:
        os.close(stderr)
    assert done.returncode == 0
    assert checkpoint_steps(tmp_path / "run")[-1] == 10
