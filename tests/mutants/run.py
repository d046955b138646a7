"""Breaks the program in one place after another, and sees whether the tests notice: `make mutants`.

    python tests/mutants/run.py                  # all of mutants.py, some forty minutes on two cores
    python tests/mutants/run.py blur seed        # those whose names hold one of these words
    python tests/mutants/run.py --check          # whether the list fits the tree, without running a test

Every mutant is one replacement in a copy of the tree, in which the test named for it is then run. First these tests
run in a copy that is left as it is, where they must pass. Prints a table; the status is 1 if a mutant survives or the list does
not fit the tree.
"""

import ast
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
LIMIT = 240  # seconds; a mutant that hangs is noticed too
LEFT_OUT = {".git", ".venv", ".versions", "runs", "build"}  # of the root: simfle_jax/runs/ is a part of the program
CACHES = shutil.ignore_patterns(".*_cache", "__pycache__", "*.egg-info")


class Unfit(Exception):
    """A mutant, in a line, that does not fit the tree."""


@functools.cache
def texts(folder: Path) -> dict[Path, str]:
    """The Python files below a folder."""
    return {path: path.read_text() for path in sorted(folder.rglob("*.py"))}


def place(mutant: Mutant) -> Path:
    """The one file of this name that holds the text to replace, exactly once; relative to the tree. Raises Unfit."""
    named = {path: text for path, text in texts(ROOT / "simfle_jax").items() if path.match(mutant.file)}
    counts = {str(path.relative_to(ROOT)): text.count(mutant.old) for path, text in named.items() if mutant.old in text}
    if list(counts.values()) != [1]:
        raise Unfit(f"{mutant.name}: {mutant.old!r} must be in one {mutant.file} once, not in {counts or 'none'}")
    return Path(*counts)


def broken(mutant: Mutant) -> str:
    """The file with the text replaced, which must still be Python: an error of syntax every test would notice."""
    text = texts(ROOT / "simfle_jax")[ROOT / place(mutant)].replace(mutant.old, mutant.new)
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise Unfit(f"{mutant.name}: {mutant.new!r} makes no Python ({error})") from None
    return text


def node(test: str) -> str:
    """What pytest calls a test that is given as NAME or FILE::NAME, wherever its file lies. Raises Unfit."""
    file, _, name = test.rpartition("::")
    found = [
        path
        for path, text in texts(ROOT / "tests").items()
        if path.match(file or "test_*.py") and f"def {name.partition('[')[0]}(" in text
    ]
    if len(found) != 1:
        raise Unfit(f"the test {test} must be in one file, not in {list(map(str, found)) or 'none'}")
    return f"{found[0].relative_to(ROOT)}::{name}"


def misfits(mutants: list[Mutant]) -> list[str]:
    """A line for each mutant that does not fit the tree."""
    lines = []
    for mutant in mutants:
        for fits in (lambda: broken(mutant), lambda: node(mutant.test)):  # noqa: B023
            try:
                fits()
            except Unfit as error:
                lines.append(str(error))
    return lines


def passes(tree: Path, tests: list[str]) -> bool:
    """Whether the tests pass in this tree; whatever hangs does not."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *map(node, tests)]
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


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """A copy of the tree, for as long as it is used."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        return CACHES(folder, names) | (LEFT_OUT & set(names) if Path(folder) == ROOT else set())

    with tempfile.TemporaryDirectory() as folder:
        yield shutil.copytree(ROOT, Path(folder) / "tree", ignore=left_out)


def survives(mutant: Mutant) -> bool:
    """Whether the test passes though the program is broken."""
    with copied() as tree:
        (tree / place(mutant)).write_text(broken(mutant))
        return passes(tree, [mutant.test])


def pass_unbroken(tests: set[str]) -> bool:
    """Whether the tests pass in a copy as mutants get it: those that fail there would notice everything."""
    with copied() as tree:
        return passes(tree, sorted(tests))


def main(words: list[str]) -> int:
    """Prints the table of the chosen mutants."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    if lines := misfits(chosen):
        print(*lines, sep="\n", file=sys.stderr)
        return 1
    if "--check" in sys.argv:
        print(f"{len(chosen)} mutants fit the tree")
        return 0
    if not pass_unbroken({mutant.test for mutant in chosen}):
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
    sys.exit(main([word for word in sys.argv[1:] if not word.startswith("-")]))
