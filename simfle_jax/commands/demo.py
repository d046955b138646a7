"""The whole way in minutes on a CPU: faces, pre-training with and without FaceMAE, probes, one table.

    python -m simfle_jax.demo --workdir runs/demo

Generated faces stand in for a data set; the probe is scored on identities that no training saw. SimFLE and BYOL alone
train side by side, one on each half of the processor's cores, as two ordinary runs of train.py.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simfle_jax.commands.ending import ended
from simfle_jax.commands.faces import write_faces
from simfle_jax.config import check_seed
from simfle_jax.data.synthetic_faces import DEMO, EXPRESSIONS
from simfle_jax.errors import UserError
from simfle_jax.storage import on_disk

if TYPE_CHECKING:  # at run time they would bring JAX along, before its processes have their cores
    from simfle_jax.config import Config
    from simfle_jax.encoder import Encoder
    from simfle_jax.training.state import TrainState

FACES, HELD_OUT, SIZE = 8000, 1600, 40
METHODS = {"SimFLE": ["--config=demo"], "BYOL": ["--config=demo_byol"]}
FEW_LABELS, RETRIEVED = 400, 256
PICTURE, SHOWN = "reconstructions.png", 3  # in the workdir: what FaceMAE makes of so many held-out faces
Running = dict[str, tuple[subprocess.Popen, Path]]  # by method: a run of train.py and its log


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir", default="runs/demo", type=on_disk, help="folder for faces, runs and results (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the faces, the runs and the probes (default %(default)s)"
    )
    args = parser.parse_args(argv)
    ended(lambda: run(args.workdir, args.seed))


def run(workdir: Path, seed: int) -> None:
    """Faces, both runs, evaluation; results.json and the table. What is done already is not done again."""
    check_seed(seed, "--seed")
    began = time.monotonic()
    write_faces(workdir / "faces", FACES, HELD_OUT, seed, SIZE, DEMO)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    running = pretrain(workdir, seed)
    try:
        results = evaluate(workdir, seed, running)
    finally:
        for process, _ in running.values():
            process.terminate()
    results["minutes"] = round((time.monotonic() - began) / 60, 1)
    (workdir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    print(f"{SHOWN} masked faces and their reconstructions: {workdir / PICTURE}")


def pretrain(workdir: Path, seed: int) -> Running:
    """Starts train.py once for each method, side by side, each on its share of the cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = max(1, len(cores) // len(METHODS))
    running: Running = {}
    for i, (method, flags) in enumerate(METHODS.items()):
        mine = {cores[(i * share + j) % len(cores)] for j in range(share)} if cores else set()
        log = workdir / f"{method.lower()}.log"
        command = [
            sys.executable,
            "-m",
            "simfle_jax",
            "train",
            *flags,
            f"--config.data.path={(workdir / 'faces' / 'train').absolute()}",
        ]
        command += [f"--config.seed={seed}", f"--workdir={(workdir / method.lower()).absolute()}"]
        running[method] = start(command, mine, None if i == 0 else log), log
    return running


def finished(method: str, running: Running) -> None:
    """Waits for a method's run.

    Raises:
        UserError: one of the runs failed; names its log.
    """
    while running[method][0].poll() is None or any(process.poll() for process, _ in running.values()):
        for name, (process, log) in running.items():
            if process.poll():
                raise UserError(f"the {name} run ended with status {process.returncode}; see above or {log}")
        time.sleep(0.2)


def start(command: list[str], cores: set[int], log: Path | None) -> subprocess.Popen:
    """A process on some cores; its output goes to `log`, or to ours."""
    out = log.open("w") if log else None
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    if cores:
        os.sched_setaffinity(process.pid, cores)
    return process


def evaluate(workdir: Path, seed: int, running: Running) -> dict:
    """Every number of the table, for an untrained encoder, both methods, and the supervised ceiling.

    BYOL's run ends first; what does not need SimFLE's is done beside its end.
    """
    from threadpoolctl import threadpool_limits

    from simfle_jax.encoder import load_encoder, untrained_encoder
    from simfle_jax.evaluation.supervised import train_supervised
    from simfle_jax.training.restore import run_config, run_state

    finished("BYOL", running)
    train, test = (load_faces(workdir / "faces", split) for split in ("train", "val"))
    views = two_views(run_config(workdir / "byol"), test[0])

    def without_simfle() -> dict[str, dict[str, float]]:
        byol = load_encoder(workdir / "byol")
        fresh = untrained_encoder(byol, seed)
        supervised = train_supervised(fresh, *train, classes=len(EXPRESSIONS), epochs=4, batch_size=32, seed=seed)
        encoders = {"untrained": fresh, "BYOL": byol, "supervised": supervised}
        return {name: score(encoder, views, train, test, seed) for name, encoder in encoders.items()}

    # Two threads are enough for two cores: those of numpy's products would wait for each other all the time.
    with threadpool_limits(1), ThreadPoolExecutor(1) as beside:
        others = beside.submit(without_simfle)
        finished("SimFLE", running)
        simfle = score(load_encoder(workdir / "simfle"), views, train, test, seed)
        trained = run_state(workdir / "simfle")
        restored = reconstruction(*trained, train[0], test[0])
        picture(*trained, test[0], workdir / PICTURE)
        rows = others.result() | {"SimFLE": simfle}
    return {
        "rows": {name: rows[name] for name in ("untrained", *METHODS, "supervised")},
        "reconstruction": restored,
        "metrics": {method: first_and_last(workdir / method.lower()) for method in METHODS},
        "seed": seed,
    }


def load_faces(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All faces of a split, uint8 [n, S, S, 3], and their labels [n]."""
    from simfle_jax.data.opening import open_source
    from simfle_jax.data.pipeline import load_labelled

    return load_labelled(open_source("folder", str(folder), labelled=True, split=split), canvas=SIZE)


def two_views(config: "Config", images: np.ndarray) -> tuple:
    """Two augmented views of 256 of the images, normalised, as training makes them."""
    import jax

    from simfle_jax import compilation
    from simfle_jax.views import image_keys, make_views

    chosen = images[np.random.default_rng(0).permutation(len(images))[:RETRIEVED]]
    made = jax.jit(lambda x: make_views(image_keys(0, 0, len(x)), x, config)[:2], compiler_options=compilation.once())
    return made(chosen)


def score(
    encoder: "Encoder", views: tuple, train: tuple[np.ndarray, ...], test: tuple[np.ndarray, ...], seed: int
) -> dict[str, float]:
    """Linear probe with all and with few labels (balanced accuracy), and retrieval of the other view, top-1."""
    from simfle_jax.evaluation.logistic import logistic_probe
    from simfle_jax.evaluation.nearest import view_retrieval
    from simfle_jax.evaluation.scores import balanced_accuracy

    known = encoder(train[0]), train[1]
    asked = encoder(test[0]), test[1]
    few = np.random.default_rng(seed).permutation(len(train[0]))[:FEW_LABELS]
    all_labels = logistic_probe(known, asked, len(EXPRESSIONS), seed)
    few_labels = logistic_probe((known[0][few], known[1][few]), asked, len(EXPRESSIONS), seed)
    return {
        "probe": float(balanced_accuracy(all_labels)),
        "probe_few": float(balanced_accuracy(few_labels)),
        "retrieval": view_retrieval(*(np.asarray(encoder.apply(view)) for view in views)),
    }


def reconstruction(config: "Config", state: "TrainState", train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """FaceMAE on held-out faces beside the mean of the training faces."""
    from simfle_jax.evaluation.reconstruction import reconstruction_errors

    return reconstruction_errors(config, state, test[:512], train[:2000])


def picture(config: "Config", state: "TrainState", images: np.ndarray, file: Path) -> None:
    """Some of the images [n, S, S, 3], what FaceMAE sees of them, what it makes of the rest, and the error of its pixels."""
    from simfle_jax.evaluation.looking import look
    from simfle_jax.reporting import atlas
    from simfle_jax.reporting.images import spread_rows

    seen = look(config, state, images[spread_rows(len(images), SHOWN + 2)[1:-1]])
    assert seen is not None, config.method
    atlas.reconstructions(seen, side=144).save(file)


def first_and_last(run: Path) -> dict[str, dict[str, float]]:
    """The first and the last line of a run's metrics; the last with every value averaged over ten lines."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    late = {key: float(np.mean([line[key] for line in lines[-10:]])) for key in lines[-1] if key in lines[0]}
    return {"start": lines[0], "end": late | {key: lines[-1][key] for key in ("step", "epoch", "seconds")}}


def table(results: dict) -> str:
    """The results as text."""
    lines = ["", "Training                        start        end"]
    for method, metrics in results["metrics"].items():
        start, end = metrics["start"], metrics["end"]
        lines.append(f"{method}, step {start['step']} and {end['step']}, {end['seconds'] / 60:.1f} min")
        for key in start:
            if key.startswith(("loss/", "grouping/", "masking/", "features/")):
                lines.append(f"  {key:25s}{start[key]:11.4g}{end[key]:11.4g}")
    error = results["reconstruction"]
    lines += [
        "",
        f"Masked patches of held-out faces: squared error {error['facemae']:.3f}, by the mean face {error['mean_image']:.3f}",
        "",
        "On held-out identities   probe, all labels   probe, 400 labels   view retrieval",
    ]
    for name, row in results["rows"].items():
        gain = "" if name == "untrained" else f"({100 * (row['probe'] - results['rows']['untrained']['probe']):+.1f})"
        lines.append(
            f"  {name:22s}{100 * row['probe']:9.1f} {gain:9s}{100 * row['probe_few']:16.1f}{100 * row['retrieval']:18.1f}"
        )
    lines.append("Probe: logistic regression on frozen features, balanced accuracy in %. Retrieval: top-1 of 256 in %.")
    if "minutes" in results:
        lines.append(f"{results['minutes']} minutes in all, seed {results['seed']}.")
    return "\n".join(lines)
