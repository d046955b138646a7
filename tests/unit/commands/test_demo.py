"""The demo's runs side by side."""

import subprocess
import sys

import pytest

from simfle_jax.commands import demo
from simfle_jax.errors import UserError


def run(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code])


def test_one_run_is_waited_for_while_the_other_goes_on(tmp_path):
    slow = run("import time; time.sleep(60)")
    running = {"SimFLE": (slow, tmp_path / "simfle.log"), "BYOL": (run(""), tmp_path / "byol.log")}
    demo.finished("BYOL", running)
    assert slow.poll() is None
    slow.kill()
    slow.wait()


def test_a_failed_run_is_named_at_once_though_another_is_waited_for(tmp_path):
    slow = run("import time; time.sleep(60)")
    running = {"SimFLE": (run("raise SystemExit(3)"), tmp_path / "simfle.log"), "BYOL": (slow, tmp_path / "byol.log")}
    with pytest.raises(UserError, match=r"the SimFLE run ended with status 3; see above or .*simfle\.log"):
        demo.finished("BYOL", running)
    slow.kill()
    slow.wait()
