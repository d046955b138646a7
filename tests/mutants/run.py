"""Breaks the program in one place after another, and sees whether the tests notice: `make mutants`.

    python tests/mutants/run.py                  # all of mutants.py, some twenty minutes on two cores
    python tests/mutants/run.py blur seed        # those whose names hold one of these words

Every mutant is one replacement in a copy of the tree, in which the tests named for it are then run. First these tests
run in a copy that is left as it is, where they must pass. Prints a table; the status is 1 if a mutant survives, and 2
if the list does not fit the tree.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
LIMIT = 240  # seconds; a mutant that hangs is noticed too
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "runs", "build", ".*_cache", "__pycache__", "*.egg-info")


def place(tree: Path, mutant: Mutant) -> Path:
    """The one file of this name that holds the text to replace, exactly once."""
    found = [path for path in sorted(tree.rglob(mutant.file)) if mutant.old in path.read_text()]
    if len(found) != 1 or found[0].read_text().count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: {mutant.old!r} must be in one {mutant.file} once, not in {found}")
    return found[0]


def node(tree: Path, test: str) -> str:
    """What pytest calls a test that is given as NAME or FILE::NAME, wherever its file lies."""
    file, _, name = test.rpartition("::")
    found = [
        path
        for path in sorted((tree / "tests").rglob(file or "test_*.py"))
        if f"def {name.partition('[')[0]}(" in path.read_text()
    ]
    if len(found) != 1:
        raise SystemExit(f"the test {test} must be in one file, not in {found}")
    return f"{found[0].relative_to(tree)}::{name}"


def passes(tree: Path, tests: list[str]) -> bool:
    """Whether the tests pass in this tree; whatever hangs does not."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *(node(tree, test) for test in tests)]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    running = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        told = running.communicate(timeout=LIMIT * max(1, len(tests) // 4))[0]
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        return False
    if running.returncode > 1:
        raise SystemExit(f"pytest could not run {tests}:\n{told[-3000:]}")
    if running.returncode and "-v" in sys.argv:
        print(told[-3000:])
    return running.returncode == 0


def survives(mutant: Mutant) -> bool:
    """Whether the tests pass though the program is broken."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(shutil.copytree(ROOT, Path(folder) / "tree", ignore=LEFT_OUT))
        path = place(tree / "simfle_jax", mutant)
        path.write_text(path.read_text().replace(mutant.old, mutant.new))
        return passes(tree, [mutant.test])


def main(words: list[str]) -> int:
    """Prints the table of the chosen mutants."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    for mutant in chosen:
        place(ROOT / "simfle_jax", mutant)
    if not passes(ROOT, sorted({mutant.test for mutant in chosen})):
        raise SystemExit("the tests do not all pass before anything is broken: see with -v")
    print("| mutant | test | caught | seconds |\n|---|---|---|---|", flush=True)
    survivors = 0
    for mutant in chosen:
        began = time.monotonic()
        survived = survives(mutant)
        survivors += survived
        told = "**no**" if survived else "yes"
        print(f"| {mutant.name} | `{mutant.test}` | {told} | {time.monotonic() - began:.0f} |", flush=True)
    print(f"\n{len(chosen) - survivors} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main([word for word in sys.argv[1:] if word != "-v"]))
