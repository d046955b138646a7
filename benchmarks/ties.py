"""What ties FaceMAE to the encoder, and what chooses its patches, where masks can follow the face.

    python -m benchmarks.ties --workdir runs/ties

The demo's network with views of 48 pixels and plain images of 56: the trunk's map of these has 4 x 4 cells, for 7 x 7 patches.
(The demo's own has 2 x 2, so that its groups choose quadrants.) All arms train with the same updates, rates and faces, one
after the other, each on all cores that the command has. Scores on held-out identities: linear probe by logistic regression
with all labels and with 400, k-NN, retrieval of the other view, and the mean error of 68 landmarks, by ridge regression from the
feature map, over the distance of the outer corners of the eyes. The same command goes on where it was stopped.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import arms
from simfle_jax import compilation
from simfle_jax.commands import demo
from simfle_jax.commands.ending import ended
from simfle_jax.commands.faces import write_faces
from simfle_jax.config import check_seed
from simfle_jax.data.opening import open_source
from simfle_jax.data.pipeline import eval_batches
from simfle_jax.data.synthetic_faces import DEMO, EXPRESSIONS
from simfle_jax.encoder import Encoder, load_encoder, untrained_encoder
from simfle_jax.evaluation.landmarks.errors import image_errors
from simfle_jax.evaluation.landmarks.frozen import chosen_ridge
from simfle_jax.evaluation.landmarks.schemes import flipped, scheme_of
from simfle_jax.evaluation.nearest import knn
from simfle_jax.evaluation.scores import balanced_accuracy, confusion
from simfle_jax.reporting.images import landmarks as landmarks_of
from simfle_jax.training.restore import run_config

FACES, HELD_OUT, SIZE = 4000, 1600, 56
EPOCHS = 8  # of 125 updates
BASE = [
    "--config=demo", f"--config.epochs={EPOCHS}", "--config.log_steps=25", "--config.checkpoint_steps=0",
    "--config.views.size=48", f"--config.views.plain_size={SIZE}", f"--config.data.canvas={SIZE}",
]  # fmt: skip


def tied(tie: str, alpha: float, masking: str = "semantic") -> list[str]:
    """The settings of SimFLE with a tie."""
    return [f"--config.facemae.{key}={value}" for key, value in (("tie", tie), ("alpha", alpha), ("masking", masking))]


ARMS = {
    "BYOL": ["--config.method=byol"],
    "published": tied("published", 0.3),
    "variance": tied("variance", 0.3),
    "target": tied("target", 0.3),
    "patch": tied("patch", 0.3),
    "patch, alpha 1": tied("patch", 1.0),
    "patch, random masks": tied("patch", 0.3, "random"),
    "patch, block masks": tied("patch", 0.3, "block"),
    "patch, landmark masks": tied("patch", 0.3, "random"),  # drawn by benchmarks/landmark_masks.py
    "published, random masks": tied("published", 0.3, "random"),
}
UNTRAINED = "untrained"
KEYS = {
    "probe": "all labels", "probe_few": "400 labels", "knn": "k-NN", "retrieval": "view retrieval", "landmarks": "landmark error",
}  # fmt: skip
KEPT = (
    "step",
    "seconds",
    "tie/agreement",
    "tie/spread",
    "features/pooled_rank",
    "masking/agreement",
    "loss/similarity",
)


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/ties"), help="default %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102], help="of faces, runs and probes")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM", help="default: all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: WORKDIR/scores.json")
    args = parser.parse_args(argv)
    ended(lambda: run(args.workdir, args.seeds, args.arms, args.out or args.workdir / "scores.json"))


def run(workdir: Path, seeds: Sequence[int], names: Sequence[str], out: Path) -> None:
    """Every arm of every seed, then the table."""
    for seed in seeds:
        check_seed(seed, "--seeds")
    compilation.use_cache()
    table = arms.Table(out, {"faces": FACES, "held_out": HELD_OUT, "size": SIZE, "settings": BASE, "arms": ARMS})
    for seed in seeds:
        write_faces(workdir / f"faces{seed}", FACES, HELD_OUT, seed, SIZE, DEMO)
        arms.measure(
            table, [seed], [*names, UNTRAINED], lambda arm, seed: scores(workdir, arm, seed), f"seed {seed}, arms"
        )
        faces.cache_clear()
    print(told(table))


def folder_of(workdir: Path, arm: str, seed: int) -> Path:
    return workdir / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}"


def scores(workdir: Path, arm: str, seed: int) -> arms.Scores:
    """Trains an arm and scores its encoder; an untrained one of the same preprocessing."""
    metrics = dict[str, float]()
    if arm == UNTRAINED:
        encoder = untrained_encoder(load_encoder(folder_of(workdir, "BYOL", seed)), seed)
    else:
        folder = folder_of(workdir, arm, seed)
        flags = [f"--config.seed={seed}", f"--config.data.path={(workdir / f'faces{seed}' / 'train').absolute()}"]
        program = ["benchmarks.landmark_masks", str(workdir / f"faces{seed}")] if "landmark" in arm else arms.TRAIN
        metrics = arms.trained([*BASE, *ARMS[arm], *flags], folder, folder.with_suffix(".log"), program)
        encoder = load_encoder(folder)
    kept = {key: value for key, value in metrics.items() if key in KEPT or key.startswith("shortcut/")}
    return scored(encoder, workdir, seed) | kept


def scored(encoder: Encoder, workdir: Path, seed: int) -> arms.Scores:
    """The demo's scores of an encoder, k-NN in balanced accuracy, and the error of landmarks from its map."""
    train, test = faces(workdir, seed)
    views = demo.two_views(run_config(folder_of(workdir, "BYOL", seed)), test.images)
    found = demo.score(encoder, views, train[:2], test[:2], seed)
    guessed = knn(encoder(train.images), train.labels, encoder(test.images), len(EXPRESSIONS))
    found["knn"] = float(balanced_accuracy(confusion(test.labels, guessed, len(EXPRESSIONS))))
    return found | {"landmarks": landmark_error(encoder, train, test, seed)}


def landmark_error(encoder: Encoder, train: "Faces", test: "Faces", seed: int) -> float:
    """The mean error over the outer eye corners, as the protocol `landmarks` has it with its linear head."""
    scheme = scheme_of(train.points.shape[1], "the faces")
    plain = encoder.feature_map(train.images), train.points
    mirrored = encoder.feature_map(train.images[:, :, ::-1]), flipped(train.points, scheme)
    head, _ = chosen_ridge(plain, mirrored, seed)
    guessed = head.points(encoder.feature_map(test.images))
    return float(image_errors(guessed, test.points, scheme)["outer_eyes"].mean())


class Faces(NamedTuple):
    """A split of generated faces."""

    images: np.ndarray  # uint8 [n, S, S, 3]
    labels: np.ndarray  # [n]
    points: np.ndarray  # [n, 68, 2], landmarks in shares of the side


@cache
def faces(workdir: Path, seed: int) -> tuple[Faces, Faces]:
    """A seed's faces for the probe, and those held out."""
    return load(workdir / f"faces{seed}", "train"), load(workdir / f"faces{seed}", "val")


def load(folder: Path, split: str) -> Faces:
    """All faces of a split, in the order of their names."""
    source = open_source("folder", str(folder), True, split)
    batches = list(eval_batches(source, batch_size=400, canvas=SIZE))
    images, labels, valid = (np.concatenate([batch[key] for batch in batches]) for key in ("image", "label", "valid"))
    points = landmarks_of(folder, [f"{split}/{source.name(i)}" for i in range(len(source))])
    assert points is not None, folder
    return Faces(images[valid], labels[valid], points)


def told(table: arms.Table) -> str:
    """Mean and range of every arm, its seconds, and its differences from BYOL alone."""
    found = table.arms()
    lines = [
        f"{'mean of the seeds (range)':26s}" + "".join(f"{title:>24s}" for title in KEYS.values()) + "   s, agreement"
    ]
    for arm in found:
        runs = list(table.of(arm).values())
        cost, agree = (np.mean([one.get(key, np.nan) for one in runs]) for key in ("seconds", "tie/agreement"))
        lines.append(
            f"{arm:26s}" + "".join(f"{arms.spread(table, arm, key):>24s}" for key in KEYS) + f"{cost:7.0f}{agree:6.2f}"
        )
    for arm in (name for name in found if name not in ("BYOL", UNTRAINED) and "BYOL" in found):
        pairs = [str(arms.interval(arms.differences(table, arm, "BYOL", key))) for key in KEYS]
        lines.append(f"{arm + ' - BYOL':26s}" + "".join(f"{text:>24s}" for text in pairs))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
