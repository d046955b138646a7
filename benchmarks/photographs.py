"""A small network on photographs for some hundred updates: what it learns, by method and by how views are normalised.

    python -m benchmarks.photographs --data DIR --workdir runs/photographs

DIR holds train/CLASS/IMAGE and val/CLASS/IMAGE. Settings are those of configs/small.py with fewer epochs; runs come one after
the other. Scores of logistic regression on frozen features of val, and beside them what the last lines of metrics say of shortcuts.
The same command goes on where it was stopped.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import arms
from simfle_jax import compilation
from simfle_jax.commands.ending import ended
from simfle_jax.config import check_seed
from simfle_jax.data.opening import open_source
from simfle_jax.data.pipeline import eval_batches
from simfle_jax.encoder import load_encoder, untrained_encoder
from simfle_jax.evaluation.logistic import logistic_probe
from simfle_jax.evaluation.nearest import knn
from simfle_jax.evaluation.scores import accuracy, balanced_accuracy, confusion, macro_f1

EPOCHS = 5
BASE = ["--config=small", f"--config.epochs={EPOCHS}", "--config.log_steps=25", "--config.checkpoint_steps=0"]
ARMS = {
    f"{name}, {how}": [f"--config.method={name.lower()}", f"--config.views.standardise={how}"]
    for how in ("dataset", "image")
    for name in ("BYOL", "SimFLE")
}
KEYS = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy", "knn": "k-NN"}
SHORTCUTS = ("shortcut/brightness", "shortcut/colour", "shortcut/place", "features/pooled_rank", "tie/agreement")
KEPT = (*SHORTCUTS, "step", "seconds")


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--workdir", type=Path, default=Path("runs/photographs"), help="default %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of runs and probes")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/small-cpu/photographs.json"), metavar="FILE"
    )
    args = parser.parse_args(argv)
    ended(lambda: run(args.data, args.workdir, args.seeds, args.out))


def run(data: Path, workdir: Path, seeds: Sequence[int], out: Path) -> None:
    """Every arm of every seed, then the table."""
    for seed in seeds:
        check_seed(seed, "--seeds")
    compilation.use_cache()
    workdir.mkdir(parents=True, exist_ok=True)
    table = arms.Table(out, {"settings": BASE, "arms": ARMS})
    names = [*ARMS, "untrained, dataset", "untrained, image"]
    arms.measure(table, seeds, names, lambda arm, seed: scores(data, workdir, arm, seed), "photographs, arms")
    print(told(table))


def scores(data: Path, workdir: Path, arm: str, seed: int) -> arms.Scores:
    """Trains an arm and scores its encoder; an untrained one has the preprocessing of its trained one."""
    (method, how), metrics = arm.split(", "), dict[str, float]()
    folder = workdir / f"{method}_{how}_{seed}"
    if arm in ARMS:
        flags = [f"--config.seed={seed}", f"--config.data.path={(data / 'train').absolute()}"]
        metrics = arms.trained([*BASE, *ARMS[arm], *flags], folder, folder.with_suffix(".log"))
        encoder = load_encoder(folder)
    else:
        encoder = untrained_encoder(load_encoder(workdir / f"BYOL_{how}_{seed}"), seed)
    (known, labels), (asked, truth) = (load(data, split) for split in ("train", "val"))
    features, queries, classes = encoder(known), encoder(asked), int(labels.max()) + 1
    matrix = logistic_probe((features, labels), (queries, truth), classes, seed)
    near = confusion(truth, knn(features, labels, queries, classes), classes)
    found = {"macro_f1": macro_f1(matrix), "balanced_accuracy": balanced_accuracy(matrix), "accuracy": accuracy(matrix)}
    found["knn"] = balanced_accuracy(near)
    return {key: float(value) for key, value in found.items()} | {key: metrics[key] for key in KEPT if key in metrics}


@cache
def load(data: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, uint8 [n, 112, 112, 3], and their labels [n]."""
    batches = list(eval_batches(open_source("folder", str(data), True, split), batch_size=400, canvas=112))
    images, labels, valid = (np.concatenate([batch[key] for batch in batches]) for key in ("image", "label", "valid"))
    return images[valid], labels[valid]


def told(table: arms.Table) -> str:
    """Mean and range of every arm, with the means of its instruments."""
    lines = [
        f"{'mean of the seeds (range)':26s}"
        + "".join(f"{title:>24s}" for title in KEYS.values())
        + "   "
        + " ".join(KEPT)
    ]
    for arm in table.arms():
        runs = list(table.of(arm).values())
        beside = "".join(f"{np.mean([one.get(key, np.nan) for one in runs]):8.2f}" for key in KEPT)
        lines.append(f"{arm:26s}" + "".join(f"{arms.spread(table, arm, key):>24s}" for key in KEYS) + beside)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
