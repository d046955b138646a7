"""Gives damaged files to the parts of the program that read files: `make fuzz`.

    python tests/fuzz/fuzz.py --minutes 5 --seed 1          # ten images for one input of each other kind, as far as it gets
    python tests/fuzz/fuzz.py --minutes 90 --count 1000     # 10,000 images and 1,000 of each other kind, if time allows
    python tests/fuzz/fuzz.py --seed 1 --one packs 17       # one input again, with what it did

Allowed is success or one line. Not allowed are any other error, 10 seconds, 2 GB, a file changed outside of the
folder, a program that is started, and a sound checkpoint that is gone. Prints a table; the status is 1 if there was a fault.
"""

import argparse
import collections
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = (
    "images", "encoders", "torch", "checkpoints", "packs", "manifests", "labels", "configs", "metrics", "landmarks", "probes",
)  # fmt: skip
SECONDS = 10  # of its own work that an input may take; another machine load must not count
PATIENCE = 120  # seconds, where the machine has other work
TESTS = Path(__file__).parents[1]


class Worker:
    """A process that tries inputs, started anew when one killed it or kept it too long."""

    def __init__(self, seed: int):
        paths = [TESTS.parent, TESTS, TESTS / "unit", TESTS / "unit/data/prepare", TESTS / "fuzz"]
        self.command = [sys.executable, str(TESTS / "fuzz/worker.py"), str(seed)]
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, paths)), "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false",
        }  # fmt: skip
        self._start()

    def _start(self) -> None:
        with tempfile.TemporaryFile() as errors:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
            if self._line(600) != b"ready\n":
                errors.seek(0)
                raise SystemExit(f"the worker does not start:\n{errors.read()[-3000:].decode(errors='replace')}")

    def attempt(self, kind: str, number: int) -> dict[str, Any]:
        """What input `number` of a kind did."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind} {number}\n".encode())
        self.process.stdin.flush()
        began, worked = time.monotonic(), self._worked()
        while (line := self._line(1)) is None:
            if self._worked() - worked > SECONDS or time.monotonic() - began > PATIENCE:
                self.close()
                self._start()
                return {"told": "fault", "text": "hung", "megabytes": 0}
        if not line:
            status = self.process.wait()
            self._start()
            return {"told": "fault", "text": f"died with status {status}", "megabytes": 0}
        return json.loads(line)

    def _line(self, seconds: float) -> bytes | None:
        """The next line; b'' at the end, None if there is none yet."""
        assert self.process.stdout is not None
        return self.process.stdout.readline() if select.select([self.process.stdout], [], [], seconds)[0] else None

    def _worked(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


def inputs(kinds: list[str], count: int) -> Any:
    """Kinds and numbers: ten images for one input of each other kind."""
    for number in range(count):
        for kind in kinds:
            each = 10 if kind == "images" else 1
            yield from ((kind, each * number + further) for further in range(each))


def main() -> int:
    """Tries inputs until the time or the count is over, and prints the tally."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--count", type=int, default=10**6, help="inputs of each kind; of images ten times as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "NUMBER"), help="that input alone")
    options = parser.parse_args()
    worker = Worker(options.seed)
    if options.one:
        print(worker.attempt(*options.one))
        worker.close()
        return 0
    end = time.monotonic() + 60 * options.minutes
    tally: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    largest: collections.Counter = collections.Counter()
    faults: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    with contextlib.suppress(KeyboardInterrupt):  # it shows what was found so far
        for kind, number in inputs(options.kinds or list(NAMES), options.count):
            if time.monotonic() > end:
                break
            found = worker.attempt(kind, number)
            tally[kind][found["told"]] += 1
            largest[kind] = max(largest[kind], found["megabytes"])
            if found["told"] == "fault":
                faults[kind, found["text"]].append(number)
    worker.close()
    print(
        f"seed {options.seed}\n\n| kind | inputs | used | refused in a line | faults | peak MB so far |\n|---|---|---|---|---|---|"
    )
    for kind, counts in tally.items():
        cells = counts.total(), counts["sound"], counts["refused"], counts["fault"], largest[kind]
        print(f"| {kind} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    for (kind, text), numbers in faults.items():
        print(f"\n{len(numbers)} of {kind}, e.g. --one {kind} {numbers[0]}: {text}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
