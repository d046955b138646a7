"""A few of the kills of kill.py, at other moments each time. tests/integration/test_train.py has one for `make test`."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_runs_go_on_to_the_bit():
    seed = random.randrange(10**6)
    command = [sys.executable, str(Path(__file__).with_name("kill.py")), "--kills=3", f"--seed={seed}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, (seed, done.stderr[-3000:])
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == 3 and found["runs equal to the bit"] >= 1
