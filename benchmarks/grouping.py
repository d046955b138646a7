"""Which start of the channel grouping forms groups, and with which weight of its loss (beta), over seeds.

    python benchmarks/grouping.py --images DIR [--config configs/demo.py] [--steps 200] [--seeds 3] [--json]

Separation (0: there are no groups) and agreement (1: all groups mask alike, .14: unrelated) after some steps of training, as
mean and range over seeds of the initial parameters. Images and views are the same for all.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import timing
from benchmarks.train_step import settings
from simfle_jax import compilation
from simfle_jax.config import Config
from simfle_jax.data.opening import open_source
from simfle_jax.data.pipeline import eval_batches
from simfle_jax.errors import UserError
from simfle_jax.training.step import TrainStep

STARTS, BETAS = ("constant", "he", "grouped"), (0.003, 0.03, 0.3)
SHOWN = ("grouping/separation", "masking/agreement", "loss/similarity", "loss/reconstruction")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    compilation.use_cache()
    config = settings(options, "float32")
    try:
        images = first_images(options.images, config, options.steps)
    except UserError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    rows = []
    for beta in BETAS:
        weighted = dataclasses.replace(config, facemae=dataclasses.replace(config.facemae, beta=beta))
        step = jax.jit(TrainStep(weighted, options.steps).__call__, donate_argnums=0)
        for start in STARTS:
            begun = dataclasses.replace(weighted, facemae=dataclasses.replace(weighted.facemae, grouping_init=start))
            fresh = [
                TrainStep(dataclasses.replace(begun, seed=seed), options.steps).fresh_state()
                for seed in range(options.seeds)
            ]
            found = [trained(step, state, images) for state in fresh]
            rows.append({"beta": beta, "start": start, "seeds": found})
            print(row(rows[-1]), file=sys.stderr, flush=True)
    result = {"config": options.config, "images": len(images) * config.batch_size, "steps": options.steps}
    result |= {"machine": timing.machine(), "rows": rows}
    print(json.dumps(result, indent=1) if options.json else "\n".join(map(row, rows)))


def first_images(folder: str, config: Config, steps: int) -> np.ndarray:
    """Batches [n, B, S, S, 3] in an order by chance: of the whole folder, or as many as there are steps."""
    source = open_source("folder", folder)
    size = config.batch_size
    batches = eval_batches(source, batch_size=size, canvas=config.canvas)
    images = np.concatenate([batch["image"][batch["valid"]] for batch in batches])
    chosen = np.random.default_rng(0).permutation(len(images))[: min(steps, len(images) // size) * size]
    if not len(chosen):
        raise UserError(f"{folder} holds {len(images)} images, less than a batch of {size}")
    return images[chosen].reshape(-1, size, *images.shape[1:])


def trained(step: Any, state: Any, images: np.ndarray) -> dict[str, dict[str, float]]:
    """The metrics of the first step and of the last; one step for each batch."""
    found: list[dict[str, float]] = []
    for batch in images:
        state, metrics = step(state, batch)
        if not found:
            found.append({name: float(metrics[name]) for name in SHOWN})
    return {"first": found[0], "last": {name: float(metrics[name]) for name in SHOWN}}


def row(found: dict[str, Any]) -> str:
    """One start and beta as a line: mean and range over the seeds."""
    text = f"beta {found['beta']:<6g}{found['start']:9s}"
    for when in ("first", "last"):
        for name in SHOWN[:2]:
            values = [seed[when][name] for seed in found["seeds"]]
            text += f" {name.split('/')[1]} {np.mean(values):.2f} ({min(values):.2f}-{max(values):.2f})"
        text += " |" if when == "first" else ""
    return text


if __name__ == "__main__":
    main()
