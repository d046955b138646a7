"""A small network on photographs for some hundred updates: what it learns, by method, and what is done against shortcuts.

    python -m benchmarks.photographs --data DIR --workdir runs/photographs
    python -m benchmarks.photographs --data DIR --workdir runs/longer --epochs 20 --arms BYOL SimFLE

DIR holds train/CLASS/IMAGE and val/CLASS/IMAGE. Settings are those of configs/small.py with fewer epochs; runs come one after
the other. Some arms train and are scored on changed copies of the images: histograms equalised, local contrast normalised, or all
but an oval in the middle grey. Scores of logistic regression on frozen features of val, and beside them what the last lines of
metrics say of shortcuts; FILE also has their 95 % intervals over images. The same command goes on where it was stopped.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from scipy.ndimage import gaussian_filter

from benchmarks import arms
from simfle_jax import compilation
from simfle_jax.commands.ending import ended
from simfle_jax.config import check_seed
from simfle_jax.data.opening import open_source
from simfle_jax.data.pipeline import eval_batches
from simfle_jax.encoder import Encoder, load_encoder, untrained_encoder
from simfle_jax.evaluation.logistic import logistic_probe
from simfle_jax.evaluation.nearest import knn
from simfle_jax.evaluation.scores import SUMMARY, confusion, intervals

BASE = ["--config=small", "--config.log_steps=25", "--config.checkpoint_steps=0"]
Arm = tuple[str, str, list[str]]  # whose untrained encoder it is compared with, the copy that it sees, its settings
BYOL, IMAGE = ["--config.method=byol"], ["--config.views.standardise=image"]
PUBLISHED = ["--config.facemae.tie=published"]
ARMS: dict[str, Arm] = {
    "BYOL": ("untrained", "", BYOL),
    "SimFLE": ("untrained", "", []),
    "SimFLE, random masking": ("untrained", "", ["--config.facemae.masking=random"]),
    "SimFLE, published tie": ("untrained", "", PUBLISHED),
    "SimFLE, published tie and start": ("untrained", "", [*PUBLISHED, "--config.facemae.grouping_init=constant"]),
    "MoCo v3": ("untrained", "", ["--config.method=moco_v3"]),
    "BYOL, each view standardised": ("untrained, each view standardised", "", [*BYOL, *IMAGE]),
    "SimFLE, each view standardised": ("untrained, each view standardised", "", IMAGE),
    "BYOL, light from a side": ("untrained", "", [*BYOL, "--config.views.light=0.5"]),
    "BYOL, equalised": ("untrained, equalised", "equalised", BYOL),
    "SimFLE, equalised": ("untrained, equalised", "equalised", []),
    "BYOL, local contrast": ("untrained, local contrast", "contrast", BYOL),
    "BYOL, oval": ("untrained, oval", "oval", BYOL),
}
KEYS = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "knn/balanced_accuracy": "k-NN",
    "two_largest": "two largest classes",
}
SHORTCUTS = ("shortcut/brightness", "shortcut/colour", "shortcut/place", "features/pooled_rank", "tie/agreement")
KEPT = (*SHORTCUTS, "step", "seconds")


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--workdir", type=Path, default=Path("runs/photographs"), help="default %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of runs and probes")
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="default %(default)s")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM", help="default: all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: WORKDIR/scores.json")
    args = parser.parse_args(argv)
    out = args.out or args.workdir / "scores.json"
    ended(lambda: run(args.data, args.workdir, args.seeds, args.epochs, args.arms, out))


def run(data: Path, workdir: Path, seeds: Sequence[int], epochs: int, chosen: Sequence[str], out: Path) -> None:
    """Every chosen arm of every seed and the untrained encoders they are compared with, then the table."""
    for seed in seeds:
        check_seed(seed, "--seeds")
    compilation.use_cache()
    workdir.mkdir(parents=True, exist_ok=True)
    base = [*BASE, f"--config.epochs={epochs}"]
    images = {split: open_source("folder", str(data), split=split).fingerprint for split in ("train", "val")}
    table = arms.Table(out, {"settings": base, "arms": ARMS, "images": images})
    # An untrained encoder has the trunk and the preprocessing of the first arm that is compared with it.
    untrained = {ARMS[arm][0]: arm for arm in reversed(chosen)}

    def found(name: str, seed: int) -> arms.Scores:
        return scores(data, workdir, base, untrained.get(name, name), name in untrained, seed)

    arms.measure(table, seeds, [*chosen, *untrained], found, "photographs, arms")
    print(told(table))


def scores(data: Path, workdir: Path, base: Sequence[str], arm: str, untrained: bool, seed: int) -> arms.Scores:
    """Trains an arm and scores its encoder, or the untrained one of the same trunk and preprocessing."""
    metrics = dict[str, float]()
    _, how, settings = ARMS[arm]
    faces = changed(data, workdir / "copies" / how, how) if how else data
    folder = workdir / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}"
    if not untrained:
        flags = [f"--config.seed={seed}", f"--config.data.path={(faces / 'train').absolute()}"]
        metrics = arms.trained([*base, *settings, *flags], folder, folder.with_suffix(".log"))
        encoder = load_encoder(folder)
    else:
        encoder = untrained_encoder(load_encoder(folder), seed)
    return scored(encoder, faces, seed) | {key: metrics[key] for key in KEPT if key in metrics}


def scored(encoder: Encoder, faces: Path, seed: int) -> arms.Scores:
    """Logistic regression and k-NN on frozen features of all classes, and logistic regression between the two largest.

    The first two with 95 % intervals over images. Where nearly all images are of two classes, the rare ones decide the first
    two and have few images to be told by; the third has most of them.
    """
    (known, labels), (asked, truth) = (load(faces, split) for split in ("train", "val"))
    features, queries, classes = encoder(known), encoder(asked), int(labels.max()) + 1
    matrix = logistic_probe((features, labels), (queries, truth), classes, seed)
    near = confusion(truth, knn(features, labels, queries, classes), classes)
    found = arms.Scores()
    for kind, counts in (("", matrix), ("knn/", near)):
        found |= {f"{kind}{key}": float(score(counts)) for key, score in SUMMARY.items()}
        for key, (low, high) in intervals(counts, seed).items():
            found |= {f"{kind}{key}/low": low, f"{kind}{key}/high": high}
    two = np.argsort(np.bincount(labels))[-2:]
    parts = ((x[np.isin(y, two)], y[np.isin(y, two)] == two[1]) for x, y in ((features, labels), (queries, truth)))
    train, test = ((x, y.astype(np.int32)) for x, y in parts)
    found["two_largest"] = float(SUMMARY["balanced_accuracy"](logistic_probe(train, test, 2, seed)))
    return found | directions(queries, asked, truth)


def directions(features: np.ndarray, images: np.ndarray, labels: np.ndarray) -> arms.Scores:
    """The three first principal components of features [n, D]: their shares of the variance, and what explains them.

    The adjusted R^2 of least squares on light (mean, slopes and spread of the luma of images [n, H, W, 3]) and on the classes.
    """
    luma = images.mean(-1, dtype=np.float32) / 255
    ramp = np.linspace(-1, 1, luma.shape[1], dtype=np.float32)
    light = np.stack(
        [luma.mean((1, 2)), (luma * ramp).mean((1, 2)), (luma * ramp[:, None]).mean((1, 2)), luma.std((1, 2))], 1
    )
    known = {"light": light, "class": np.eye(labels.max() + 1)[labels][:, 1:]}
    left, sizes, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    found = arms.Scores()
    for number in range(3):
        found[f"direction{number + 1}/share"] = float(sizes[number] ** 2 / (sizes**2).sum())
        for name, columns in known.items():
            centred = columns - columns.mean(0)
            rest = left[:, number] - centred @ np.linalg.lstsq(centred, left[:, number], rcond=None)[0]
            free = (len(labels) - 1) / (len(labels) - 1 - columns.shape[1])
            found[f"direction{number + 1}/{name}"] = float(1 - free * (rest**2).sum())
    return found


def changed(data: Path, folder: Path, how: str) -> Path:
    """A copy of all images as PNG, each changed by CHANGES[how]; made once."""
    if not folder.is_dir():
        unfinished = folder.with_suffix(".part")
        for file in sorted(data.glob("*/*/*")):
            place = unfinished / file.relative_to(data).with_suffix(".png")
            place.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(file) as image:
                CHANGES[how](image.convert("RGB")).save(place)
        unfinished.rename(folder)
    return folder


def local_contrast(image: Image.Image) -> Image.Image:
    """Each pixel less the mean around it, over the deviation around it; the window's deviation is a twelfth of the side."""
    pixels = np.asarray(image, np.float32)
    smooth = partial(gaussian_filter, sigma=(image.width / 12, image.width / 12, 0))
    centred = pixels - smooth(pixels)
    scaled = centred / (np.sqrt(smooth(centred**2)) + 4)
    return Image.fromarray(np.clip(128 + 48 * scaled, 0, 255).astype(np.uint8))


def oval(image: Image.Image) -> Image.Image:
    """Grey beside an oval that most of an aligned face lies in."""
    mask = Image.new("L", image.size)
    width, height = image.size
    ImageDraw.Draw(mask).ellipse((0.12 * width, 0.04 * height, 0.88 * width, 0.98 * height), fill=255)
    return Image.composite(image, Image.new("RGB", image.size, (128, 128, 128)), mask)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "equalised": ImageOps.equalize,
    "contrast": local_contrast,
    "oval": oval,
}


@cache
def load(data: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, uint8 [n, 112, 112, 3], and their labels [n]."""
    batches = list(eval_batches(open_source("folder", str(data), True, split), batch_size=400, canvas=112))
    images, labels, valid = (np.concatenate([batch[key] for batch in batches]) for key in ("image", "label", "valid"))
    return images[valid], labels[valid]


def told(table: arms.Table) -> str:
    """Mean and range of every arm, with the means of its instruments; then the gains over the untrained encoders."""
    found = table.arms()
    lines = [
        f"{'mean of the seeds (range)':34s}" + "".join(f"{x:>24s}" for x in KEYS.values()) + "   " + " ".join(KEPT)
    ]
    for arm in found:
        runs = list(table.of(arm).values())
        beside = "".join(f"{np.mean([one.get(key, np.nan) for one in runs]):8.2f}" for key in KEPT)
        lines.append(f"{arm:34s}" + "".join(f"{arms.spread(table, arm, key):>24s}" for key in KEYS) + beside)
    lines.append("less the untrained encoder of the same preprocessing, 95 % interval")
    for arm, (other, _, _) in ARMS.items():
        if arm in found and other in found:
            pairs = [arms.interval(arms.differences(table, arm, other, key)) for key in KEYS]
            lines.append(f"{arm:34s}" + "".join(f"{pair!s:>24s}" for pair in pairs))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
