"""Whether training on a GPU repeats to the bit: killed and resumed, and in a process that chose its algorithms anew.

    python benchmarks/gpu_laws.py FACES --work FOLDER --out laws.json

Three runs of three epochs on the images of FACES, with one seed: one goes through; one is killed by SIGKILL after its first
checkpoint and resumed, with the first one's compiled programs; one compiles, and measures which algorithms are fast, anew.
Told is how far their encoders and losses are apart. The results are complete only if the run was killed before its end and went
on from a checkpoint.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.parts_file import PartsFile

ROOT = Path(__file__).parents[1]
CHECKPOINT_STEPS = 10


def main() -> None:
    options = parse()
    out = PartsFile(options.out)
    whole = start(options, "whole", "cache")
    others = start(options, "anew", "cache_of_its_own")
    out.add(whole=whole.wait(), environment=json.loads((options.work / "whole" / "environment.json").read_text()))
    killed = start(options, "killed", "cache")
    while killed.poll() is None and not (options.work / "killed" / "checkpoints" / str(CHECKPOINT_STEPS)).exists():
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    out.add(killed=killed.wait(), lines_when_killed=len(lines(options.work / "killed")))
    out.add(resumed=start(options, "killed", "cache").wait(), resumption=differences(options.work, "whole", "killed"))
    went_on = re.findall(r"goes on from step (\d+)", (options.work / "killed.log").read_text())
    out.add(went_on_from=went_on[-1] if went_on else None)
    out.add(others=others.wait(), algorithms_chosen_anew=differences(options.work, "whole", "anew"))
    out.add(complete=out.found["killed"] == -signal.SIGKILL and bool(went_on))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--config", default="configs/simfle.py:resnet18")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, required=True, help="file for the results")
    return parser.parse_args()


def start(options: argparse.Namespace, name: str, cache: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "train.py", f"--config={options.config}", f"--config.data.path={options.faces}"]
    command += [
        f"--config.dtype={options.dtype}",
        "--config.epochs=3",
        "--config.batch_size=64",
        "--config.log_steps=1",
    ]
    command += ["--config.views.size=48", "--config.views.plain_size=64", f"--workdir={options.work / name}"]
    command += [f"--config.checkpoint_steps={CHECKPOINT_STEPS}"]
    options.work.mkdir(parents=True, exist_ok=True)
    with open(options.work / f"{name}.log", "ab") as log:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(options.work / cache)}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def differences(work: Path, one: str, other: str) -> dict[str, Any]:
    """How many arrays of the two encoders have other bits, how far they are apart, and which losses are not the same."""
    a, b = (load_file(work / name / "encoder.safetensors") for name in (one, other))
    apart = {name: float(np.abs(a[name] - b[name]).max()) for name in a if a[name].tobytes() != b[name].tobytes()}
    losses = [
        {line["step"]: line["loss/total"] for line in lines(work / name) if "loss/total" in line}
        for name in (one, other)
    ]
    other_losses = [step for step in losses[0] if losses[0][step] != losses[1].get(step)]
    return {
        "arrays": len(a), "of_other_bits": len(apart), "largest_difference": max(apart.values(), default=0.0),
        "steps": len(losses[0]), "first_step_of_another_loss": min(other_losses, default=None),
    }  # fmt: skip


if __name__ == "__main__":
    main()
