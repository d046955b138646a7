"""Times a 100-epoch linear probe: features computed once against the trunk in every epoch.

    python benchmarks/probe.py --data DIR [--encoder RUN] [--json]

DIR holds train/CLASS/IMAGE and val/CLASS/IMAGE. Without --encoder a --trunk with random weights is timed, on views of
--size pixels. The protocol of the paper is measured over --measured-epochs after one to warm up, and the rest
is reckoned at their median; with --measured-epochs 100 nothing is reckoned and its accuracy is the real one.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.random_encoder import random_encoder
from simfle_jax.config.trunks import TRUNKS
from simfle_jax.data.classes import with_classes
from simfle_jax.data.opening import open_source
from simfle_jax.data.sources import Source
from simfle_jax.encoder import load_encoder
from simfle_jax.evaluation import scores
from simfle_jax.evaluation.features import Extractor
from simfle_jax.evaluation.linear import Labelled, Sgd, fit_epochs, new_layer, start
from simfle_jax.evaluation.sets import Subset


def main() -> None:
    """Measures both protocols and prints them side by side."""
    options = parse()
    encoder = load_encoder(options.encoder) if options.encoder else random_encoder(options.trunk, options.size)
    train, val = (open_source("folder", options.data, True, split) for split in ("train", "val"))
    val = with_classes(val, train.classes or (), "val")
    sets = {split: limited(source, options.limit) for split, source in {"train": train, "val": val}.items()}
    extractor = Extractor(encoder)
    sgd = Sgd(1024, options.lr, 0.9, "none", 0)
    cached = time_cached(extractor, sets, sgd, options.epochs)
    paper = time_paper(extractor, sets, sgd, options.epochs, options.measured_epochs)
    result = {
        "machine": {"platform": platform.platform(), "devices": [d.device_kind for d in jax.devices()]},
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "images": {split: len(source) for split, source in sets.items()},
        "encoder": {"architecture": encoder.metadata["architecture"], "size": encoder.size},
        "epochs": options.epochs,
        "lr": options.lr,
        "cached": cached,
        "paper": paper,
        "ratio": paper["seconds"] / cached["seconds"],
    }
    print(json.dumps(result, indent=2) if options.json else table(result))


def table(result: dict[str, Any]) -> str:
    """The two protocols, one line each."""
    lines = [f"{'protocol':10}{'seconds':>10}{'accuracy':>10}{'macro-F1':>10}"]
    for name in ("paper", "cached"):
        row = result[name]
        found = "".join(f"{row[key]:10.3f}" if key in row else f"{'-':>10}" for key in ("accuracy", "macro_f1"))
        lines.append(f"{name:10}{row['seconds']:10.1f}{found}")
    reckoned = result["epochs"] - result["paper"]["measured_epochs"]
    lines.append(
        f"{result['ratio']:.0f} times faster" + (f"; {reckoned} epochs of the paper's reckoned" if reckoned else "")
    )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train/ and val/")
    parser.add_argument("--encoder", help="a run's folder or a file; default: a random --trunk")
    parser.add_argument("--trunk", choices=list(TRUNKS), default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="views' side of the random trunk")
    parser.add_argument("--limit", type=int, default=0, help="images per set, drawn at random; 0: all")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.5, help="for a batch of 256")
    parser.add_argument("--measured-epochs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args()


def limited(source: Source, limit: int) -> Source:
    """A random part of a source, or all of it."""
    if not limit or limit >= len(source):
        return source
    return Subset(source, np.sort(np.random.default_rng(0).permutation(len(source))[:limit]))


def time_cached(extractor: Extractor, sets: dict[str, Source], sgd: Sgd, epochs: int) -> dict[str, Any]:
    """Seconds of features and fit; compilation is warmed up by a run on the same shapes that does not count."""
    for source in sets.values():
        extractor.plain(Subset(source, np.arange(min(len(source), extractor.batch_size))), "warm-up")
    began = time.perf_counter()
    train, val = (extractor.plain(sets[split], split) for split in ("train", "val"))
    extracted = time.perf_counter()
    fit_seconds, values = [], {}
    for _ in range(4):  # the first compiles
        before = time.perf_counter()
        values = fitted(train, (val,), sgd, epochs, len(sets["train"].classes or ()))
        fit_seconds.append(time.perf_counter() - before)
    fit = statistics.median(fit_seconds[1:])
    features = extracted - began
    return {
        "seconds": features + fit,
        "feature_seconds": features,
        "fit_seconds": fit,
        "compile_seconds": fit_seconds[0] - fit,
        "images_per_second": (len(train.labels) + len(val.labels)) / features,
    } | values


def fitted(train: Labelled, apart: tuple[Labelled, ...], sgd: Sgd, epochs: int, n_classes: int) -> dict[str, float]:
    """Best accuracy and its macro-F1 after `epochs` on fixed features."""
    layer = start(new_layer(0, train.features.shape[1], n_classes))
    fit, _ = jax.block_until_ready(fit_epochs(layer, train, apart, sgd, epochs))
    return quality(fit, apart[0], n_classes)


def quality(fit: Any, val: Labelled, n_classes: int) -> dict[str, float]:
    """The scores of the best epoch."""
    predictions = np.asarray(fit.best.predict(jnp.asarray(val.features)))
    matrix = scores.confusion(np.asarray(val.labels), predictions, n_classes)
    low, high = scores.intervals(matrix, 0)["accuracy"]
    return {
        "accuracy": float(scores.accuracy(matrix)), "accuracy_low": low, "accuracy_high": high,
        "balanced_accuracy": float(scores.balanced_accuracy(matrix)), "macro_f1": float(scores.macro_f1(matrix)),
    }  # fmt: skip


def time_paper(extractor: Extractor, sets: dict[str, Source], sgd: Sgd, epochs: int, measured: int) -> dict[str, Any]:
    """Seconds of `epochs` epochs with the trunk in each, from `measured` of them; val's features are computed once."""
    n_classes = len(sets["train"].classes or ())
    before = time.perf_counter()
    val = extractor.plain(sets["val"], "val")
    val_seconds = time.perf_counter() - before
    fit, seconds = start(new_layer(0, extractor.encoder.dim, n_classes)), []
    extractor.augmented(
        Subset(sets["train"], np.arange(min(len(sets["train"]), extractor.batch_size))), 0, lambda _: None
    )
    for epoch in range(measured):
        before = time.perf_counter()
        train = extractor.augmented(sets["train"], epoch, lambda _: None)
        fit, _ = jax.block_until_ready(fit_epochs(fit, train, (val,), sgd, 1))
        seconds.append(time.perf_counter() - before)
    epoch_seconds = statistics.median(seconds)
    whole = {"measured_epochs": measured, "epoch_seconds": epoch_seconds}
    total = sum(seconds) + epoch_seconds * (epochs - measured) + val_seconds
    return {"seconds": total} | whole | (quality(fit, val, n_classes) if measured == epochs else {})


if __name__ == "__main__":
    main()
