"""The demo for longer: SimFLE, random masking and BYOL alone over several seeds, and the probe as they train.

    python -m simfle_jax.demo_long --workdir runs/long --seeds 0 1 2

Every run is an ordinary one of train.py with configs/demo_long.py, on a core of its own; on a GPU
(JAX_PLATFORMS=cuda) one after another. Writes results.json and curve.png, prints the table. The same command goes on
where it was stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from configs import demo_long
from simfle_jax.commands import demo
from simfle_jax.commands.ending import ended
from simfle_jax.commands.faces import write_faces
from simfle_jax.config import check_seed
from simfle_jax.data.synthetic_faces import DEMO, EXPRESSIONS
from simfle_jax.errors import UserError
from simfle_jax.storage import on_disk

TITLES = {
    "simfle": "SimFLE",
    "random": "random masking",
    "byol": "BYOL alone, equal updates",
    "byol_longer": "BYOL alone, equal time",
}
SCORES = ("probe", "probe_few", "retrieval")


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.demo_long", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=on_disk, default=Path("runs/long"), help="default %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of faces, runs and probes")
    args = parser.parse_args(argv)
    ended(lambda: run(args.workdir, args.seeds))


def run(workdir: Path, seeds: list[int]) -> None:
    """Faces and runs of every seed, then the curves."""
    for seed in seeds:
        check_seed(seed, "--seeds")
    for seed in seeds:
        write_faces(workdir / f"faces{seed}", demo.FACES, demo.HELD_OUT, seed, demo.SIZE, DEMO)
    pretrain(workdir, seeds)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    results = evaluate_all(workdir, seeds)
    (workdir / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, workdir / "curve.png")
    print(table(results))
    print(f"curves in {workdir / 'curve.png'}")


def pretrain(workdir: Path, seeds: list[int]) -> None:
    """Every method of every seed, as many at once as there are cores; one after another on another platform.

    Raises:
        UserError: a run failed; names its log.
    """
    on_cpu = os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu"
    free = (
        [{core} for core in sorted(os.sched_getaffinity(0))] if on_cpu and hasattr(os, "sched_getaffinity") else [set()]
    )
    waiting = [(seed, method) for seed in seeds for method in demo_long.METHODS]
    count, began = len(waiting), time.monotonic()
    running: dict[Path, tuple[subprocess.Popen, set[int]]] = {}
    while waiting or running:
        while waiting and free:
            seed, method = waiting.pop(0)
            cores, log = free.pop(), workdir / f"{method}{seed}.log"
            running[log] = (_start(workdir, seed, method, cores, log), cores)
        time.sleep(1)
        for log, (process, _) in list(running.items()):
            if process.poll() is None:
                continue
            if process.returncode:
                for other, _ in running.values():
                    other.terminate()
                raise UserError(f"a run ended with status {process.returncode}; see {log}")
            free.append(running.pop(log)[1])
            done = count - len(waiting) - len(running)
            minutes = (time.monotonic() - began) / 60
            print(
                f"runs {done}/{count}, {minutes:.0f} min, about {minutes / done * (count - done):.0f} to go", flush=True
            )


def _start(workdir: Path, seed: int, method: str, cores: set[int], log: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "simfle_jax", "train", f"--config=demo_long:{method}", f"--config.seed={seed}"]
    command += [f"--config.data.path={(workdir / f'faces{seed}' / 'train').absolute()}"]
    command += [f"--workdir={(workdir / f'{method}{seed}').absolute()}"]
    return demo.start(command, cores, log)


def evaluate_all(workdir: Path, seeds: list[int]) -> dict[str, dict]:
    """`evaluate` of every seed, as many side by side as there are cores."""
    from threadpoolctl import threadpool_limits

    from simfle_jax.compilation import cores

    with threadpool_limits(1), ThreadPoolExecutor(cores()) as pool:
        found = pool.map(lambda seed: evaluate(workdir, seed), seeds)
        return {str(seed): curves for seed, curves in zip(seeds, found, strict=True)}


def evaluate(workdir: Path, seed: int) -> dict[str, list[dict[str, float]]]:
    """For every method: scores at each checkpoint, with its step and seconds of training; 'untrained', 'supervised'."""
    from simfle_jax.encoder import load_encoder, untrained_encoder
    from simfle_jax.evaluation.supervised import train_supervised
    from simfle_jax.training.restore import checkpoint_steps, run_config

    train, test = (demo.load_faces(workdir / f"faces{seed}", split) for split in ("train", "val"))
    like = load_encoder(workdir / f"simfle{seed}")
    views = demo.two_views(run_config(workdir / f"simfle{seed}"), test[0])
    fresh = untrained_encoder(like, seed)
    best = train_supervised(fresh, *train, classes=len(EXPRESSIONS), epochs=4, batch_size=32, seed=seed)
    curves = {
        "untrained": [demo.score(fresh, views, train, test, seed)],
        "supervised": [demo.score(best, views, train, test, seed)],
    }
    for method in demo_long.METHODS:
        folder = workdir / f"{method}{seed}"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        steps, seconds = ([line[key] for line in lines] for key in ("step", "seconds"))
        curves[method] = [curves["untrained"][0] | {"step": 0, "seconds": 0.0}]
        for step in checkpoint_steps(folder):
            scores = demo.score(load_encoder(folder, step=step), views, train, test, seed)
            curves[method].append(scores | {"step": step, "seconds": float(np.interp(step, steps, seconds))})
        print(f"seed {seed}, {TITLES[method]}: {curves[method][-1]}", flush=True)
    return curves


def table(results: dict) -> str:
    """The last point of every curve, as mean and range over the seeds."""
    seeds = len(results)
    lines = ["", f"On held-out identities, mean of {seeds} seeds (lowest to highest)"]
    lines.append(
        "                            updates  minutes   probe, all labels   probe, 400 labels   view retrieval"
    )
    for name in ("untrained", *demo_long.METHODS, "supervised"):
        last = [curves[name][-1] for curves in results.values()]
        row = f"{TITLES.get(name, name):27s}"
        row += (
            f"{last[0]['step']:8d}{np.mean([p['seconds'] for p in last]) / 60:9.1f}" if "step" in last[0] else " " * 17
        )
        for key in SCORES:
            values = [100 * point[key] for point in last]
            row += f"   {np.mean(values):5.1f} ({min(values):.1f} to {max(values):.1f})"
        lines.append(row)
    return "\n".join(lines)


def draw(results: dict, path: Path) -> None:
    """The probe over updates and over minutes: every seed a thin line, their mean a thick one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for method in demo_long.METHODS:
        runs = [curves[method] for curves in results.values()]
        probes = 100 * np.array([[point["probe"] for point in points] for points in runs])
        minutes = np.mean([[point["seconds"] / 60 for point in points] for points in runs], 0)
        for axis, x in zip(axes, ([point["step"] for point in runs[0]], minutes), strict=True):
            (mean,) = axis.plot(x, probes.mean(0), marker="o", linewidth=2.5, label=TITLES[method])
            axis.plot(x, probes.T, color=mean.get_color(), linewidth=0.8, alpha=0.6)
    axes[0].set(xlabel="updates", ylabel="linear probe, balanced accuracy in %")
    axes[1].set(xlabel="minutes of training")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
