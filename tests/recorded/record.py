"""Records what a version of this program writes: runs that were stopped half-way, a probe, and where each leads.

    PYTHONPATH=.:tests python tests/recorded/record.py VERSION
    tar --sort=name --owner=0 --group=0 -cJf tests/recorded/VERSION.tar.xz VERSION

The recordings that are here were made by the version that they are named after and are never made again: later
versions must go on from them (tests/integration/test_recorded.py).
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import small
from PIL import Image

from configs import probe as probe_config
from simfle_jax import load_encoder
from simfle_jax.config import pretraining
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing
from simfle_jax.training.loop import train
from simfle_jax.training.stop import Stop

COLOURS = {"blue": (100, 110, 150), "red": (150, 110, 100)}
STOPPED_AT = 6


def write_images(folder: Path, count: int, seed: int) -> None:
    """PNGs of noisy colours, which every decoder reads to the same bits: folder/COLOUR/NN.png."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(rng.normal(colour, 60, (6, 6, 3)), 0, 255).astype(np.uint8)
            image = Image.fromarray(pixels).resize((18, 18), Image.Resampling.BILINEAR)
            image.save(folder / name / f"{number:02d}.png", optimize=True)


def settings(method: str):
    """Nine steps of a tiny SimFLE by SGD, or of BYOL alone by Adam."""
    config = small.settings(epochs=3, checkpoint_steps=2, seed=5)
    config.data.canvas, config.data.threads = 18, 1
    if method == "byol":
        config.model.facemae, config.optimizer, config.lr, config.keep_checkpoints = False, "adam", 0.01, 1
    return config


def record(root: Path) -> None:
    """Writes data, the stopped runs, a probe, and `expected.json`, all by relative paths."""
    root.mkdir(parents=True)
    os.chdir(root)
    write_images(Path("data") / "train", 12, 1)
    write_images(Path("data") / "val", 6, 2)
    expected = {}
    for method in ("simfle", "byol"):
        config = settings(method)
        config.data.path = "data/train"
        asked = Stop.asked
        Stop.asked = lambda self, step: step >= STOPPED_AT
        with contextlib.suppress(SystemExit):
            train(pretraining(config), method)
        Stop.asked = asked
        images = np.stack([np.asarray(Image.open(path)) for path in sorted((Path("data") / "val").rglob("*.png"))])
        expected[method] = {"features": load_encoder(method)(images).round(7).tolist()}
        with tempfile.TemporaryDirectory() as folder:
            ended = shutil.copytree(method, Path(folder) / "run")
            train(pretraining(config), str(ended))
            expected[method]["metrics"] = [
                json.loads(line) for line in (ended / "metrics.jsonl").read_text().splitlines()
            ]
            expected[method]["features_at_end"] = load_encoder(ended)(images).round(7).tolist()
    probe = probe_config.get_config()
    probe.encoder, probe.epochs, probe.batch_size, probe.data.threads = "simfle", 6, 8, 1
    probe.data.path = "data"
    run_probe(probing(probe), "probe")
    expected["probe"] = json.loads(Path("probe/results.json").read_text())
    Path("expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
