"""The list of mutants fits the tree as it is now; `make mutants` alone tells whether each is noticed."""

import subprocess
import sys
from pathlib import Path


def test_every_mutant_has_its_place_and_its_test():
    check = [sys.executable, str(Path(__file__).parents[1] / "mutants" / "run.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
