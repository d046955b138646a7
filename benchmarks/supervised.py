"""The ceiling of the methods: a trunk of the config's size trained on the labels, then probed as the others are.

    python benchmarks/supervised.py --config configs/simfle.py --data DIR --epochs 20

DIR holds train/CLASS/IMAGE and val/CLASS/IMAGE. Prints one JSON object.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import timing
from benchmarks.train_step import prepare, settings
from simfle_jax.data.classes import with_classes
from simfle_jax.data.opening import open_source
from simfle_jax.data.pipeline import eval_batches
from simfle_jax.encoder import load_encoder
from simfle_jax.evaluation.logistic import logistic_probe
from simfle_jax.evaluation.scores import balanced_accuracy
from simfle_jax.evaluation.supervised import train_supervised
from simfle_jax.training.state import trunk_of
from simfle_jax.weights.encoder_file import export_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/simfle.py")
    parser.add_argument("--data", required=True, help="folder with train/ and val/")
    parser.add_argument("--workdir", required=True, help="folder for the untrained encoder")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    config = settings(options, "float32")
    _, state, _ = prepare(config)
    Path(options.workdir).mkdir(parents=True, exist_ok=True)
    export_encoder(Path(options.workdir, "untrained.safetensors"), trunk_of(state), config, {"step": "0"})
    fresh = load_encoder(Path(options.workdir, "untrained.safetensors"))
    names = open_source("folder", options.data, True, "train").classes or ()
    train, val = (load(options.data, split, names, config.views.size) for split in ("train", "val"))
    classes = len(names)
    trained = train_supervised(fresh, *train, classes, options.epochs, options.batch_size, seed=0)
    result = {"machine": timing.machine(), "epochs": options.epochs, "classes": classes}
    for name, encoder in {"untrained": fresh, "supervised": trained}.items():
        known, asked = ((encoder(images), labels) for images, labels in (train, val))
        result[name] = float(balanced_accuracy(logistic_probe(known, asked, classes, 0)))
    print(json.dumps(result, indent=2))


def load(folder: str, split: str, classes: tuple[str, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, uint8 [n, S, S, 3], and their labels in the order of `classes`."""
    source = with_classes(open_source("folder", folder, True, split), classes, split)
    batches = list(eval_batches(source, batch_size=256, canvas=size))
    images, labels, valid = (np.concatenate([batch[key] for batch in batches]) for key in ("image", "label", "valid"))
    return images[valid], labels[valid]


if __name__ == "__main__":
    main()
