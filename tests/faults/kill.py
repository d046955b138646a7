"""Kills runs at random moments and starts them again until they are done; compares their ends; prints the tally so far.

    python tests/faults/kill.py --kills=35
    python tests/faults/kill.py --kills=15 --processes=2

Every start must go on from the newest whole checkpoint. Every end - all arrays of the last checkpoint, the metrics of
all steps, the encoder's file - must be equal to the bit to that of an uninterrupted run of as many processes. Of two
processes one is killed, and the other must end by itself and say why. Exits with 1 otherwise.
"""

import argparse
import collections
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[i]) for i in (2, 1)] + [str(Path(__file__).parents[1] / "distributed")]
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import processes  # noqa: E402
import small  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

from simfle_jax.training.restore import run_state  # noqa: E402

STEPS, EVERY, KILLS_A_RUN = 30, 3, 6
TIMES = ("seconds", "images_per_second")
SAYS_WHY = ("lost another process", "saw no step for", "Terminating process because", "not all processes were there")


class Wrong(Exception):
    """A run that did not do what it must."""


def saved(workdir: Path) -> int:
    """The step of the newest whole checkpoint."""
    return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()), default=0)


def writing(workdir: Path) -> set[str]:
    """Checkpoints that are being written, or never will be."""
    return {path.name for path in workdir.glob("checkpoints/*tmp*")}


def lines(workdir: Path) -> list[dict]:
    log = workdir / "metrics.jsonl"
    found = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in found if line.endswith("\n")]


class Starts:
    """Starts one run again and again, with as many processes, of one device each."""

    def __init__(self, images: Path, workdir: Path, count: int):
        self.images, self.workdir, self.count = images, workdir, count

    def start(self) -> list:
        # Two processes do BYOL alone: everything is traced twice.
        method = f"--config.model.facemae={self.count == 1}"
        flags = (f"--config.epochs={STEPS // 5}", f"--config.checkpoint_steps={EVERY}", method)
        self.before, self.remains, self.old = saved(self.workdir), writing(self.workdir), len(lines(self.workdir))
        waits = ("--peer_timeout=40", "--init_timeout=60")
        return processes.start(self.images, self.workdir, *flags, *waits, count=self.count, devices=1)

    def went_on(self, text: str) -> None:
        """Raises Wrong unless the start, if it came so far, took the newest checkpoint."""
        steps = re.findall(r"goes on from step (\d+)", text)
        if "is damaged" in text or any(int(step) != self.before for step in steps):
            raise Wrong(f"it did not go on from step {self.before}: {text}")
        if self.before and not steps and len(lines(self.workdir)) > self.old:
            raise Wrong(f"it began anew, with a checkpoint of step {self.before} there")

    def finish(self) -> float:
        """Lets it run to its end; seconds until the first step."""
        began, started, first = time.monotonic(), self.start(), 0.0
        while not first and started[0].poll() is None:
            first = time.monotonic() - began if lines(self.workdir) else 0.0
            time.sleep(0.01)
        ended = processes.finish(started)
        if any(status for status, _ in ended):
            raise Wrong(f"it did not finish: {ended}")
        self.went_on(ended[0][1])
        return first

    def kill(self, moment: str, delay: float) -> str | None:
        """Kills one of its processes; says what it was doing then, or None if it was done before."""
        started = self.start()
        victim = random.choice(started)
        try:
            self._wait_for(moment, victim)
            time.sleep(delay)
            victim.send_signal(signal.SIGKILL)
            ended = dict(zip(started, processes.finish(started, timeout=120), strict=True))
        except subprocess.TimeoutExpired:
            raise Wrong("the other one hangs") from None
        finally:
            for process in started:
                process.kill()
        self.went_on("".join(text for _, text in ended.values()))
        status, text = ended.pop(victim)
        if status == 0:
            return None
        if status != -signal.SIGKILL:
            raise Wrong(f"it ended by itself with {status}: {text}")
        for status, text in ended.values():
            if status == 0 or not any(why in text for why in SAYS_WHY):
                raise Wrong(f"the other one ended with {status} and said {text}")
        if writing(self.workdir) - self.remains:
            return "writing a checkpoint"
        return "between steps" if len(lines(self.workdir)) > self.old else "before its first step"

    def _wait_for(self, moment: str, victim: subprocess.Popen) -> None:
        """Until the process has begun, done a step, or begun to save."""
        end = time.monotonic() + 240
        while victim.poll() is None and not self._there(moment):
            if time.monotonic() > end:
                raise Wrong("it hangs")
            time.sleep(0.002)

    def _there(self, moment: str) -> bool:
        if moment == "start":
            return True
        if moment == "step":
            return len(lines(self.workdir)) > self.old
        return bool(writing(self.workdir) - self.remains)


def end(workdir: Path) -> dict[str, object]:
    """What a run came to: metrics, the encoder, all arrays of its last checkpoint."""
    encoder = workdir / "encoder.safetensors"
    with safe_open(encoder, "np") as file:
        metadata = file.metadata()
    state = jax.tree_util.tree_flatten_with_path(jax.device_get(run_state(workdir)[1]))[0]
    arrays = {jax.tree_util.keystr(path): np.asarray(x) for path, x in state} | load_file(encoder)
    kept = [{key: value for key, value in line.items() if key not in TIMES} for line in lines(workdir)]
    found: dict[str, object] = {f"metrics of step {line['step']}": line for line in kept}
    return found | {"metadata": metadata} | {name: array.tobytes() for name, array in arrays.items()}


def differing(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return sorted(name for name in one | other if one.get(name) != other.get(name))


def killed_run(starts: Starts, kills: int, first_step: float, tally: collections.Counter) -> int:
    """Kills a run until it is done or has been killed often enough, and lets it finish; how often it was killed."""
    done = 0
    while done < kills:
        moment, delay = random.choice(
            [
                ("start", random.uniform(0, first_step)),
                ("step", random.expovariate(10)),
                ("save", random.uniform(0, 0.1)),
            ]
        )
        found = starts.kill(moment, delay)
        if found is None:
            break
        done += 1
        tally[found] += 1
        print(f"killed {found}; {saved(starts.workdir)} of {STEPS} steps are saved", file=sys.stderr, flush=True)
    starts.finish()
    return done


def main() -> None:
    """Kills, finishes, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    tally, runs, kills = collections.Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        images = small.write_images(Path(folder) / "images", 40)
        Starts(images, Path(folder) / "whole", args.processes).finish()
        first_step = Starts(images, Path(folder) / "again", args.processes).finish()  # compiled already
        whole = end(Path(folder) / "whole")
        while kills < args.kills:
            workdir = Path(folder) / f"killed{runs}"
            starts = Starts(images, workdir, args.processes)
            kills += killed_run(starts, min(KILLS_A_RUN, args.kills - kills), first_step, tally)
            runs += 1
            if names := differing(end(workdir), whole):
                raise Wrong(f"run {runs} differs from the uninterrupted one in {len(names)} things, e.g. {names[:5]}")
            found = {"kills": kills, "processes": args.processes, "runs equal to the bit": runs, "while": tally}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
