"""How far bfloat16's losses are from float32's over the first steps of the demo.

    python benchmarks/bfloat16.py --images DIR [--config configs/demo.py] [--steps 200] [--json]

A run in float32 is the yardstick; all see the same images, views and draws. Compared with it are, by each term's mean
over windows of 20 steps (the largest relative difference of any window is shown):

- `same state`: the losses of the same batches in bfloat16 at every state of the float32 run, which is what the type
  itself changes;
- `own run`: a run in bfloat16;
- `control`: a run in float32 from parameters that differ by one part in 10^7. Training multiplies such differences, and
  a patch that is masked in one run alone is another task, so runs of different rounding part in any type.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import timing
from benchmarks.train_step import jitted, prepare, settings
from simfle_jax import canvases, compilation
from simfle_jax.config import Config
from simfle_jax.data.opening import open_source
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.errors import UserError
from simfle_jax.training.step import Statistics, TrainStep
from simfle_jax.views import image_keys

WINDOW = 20
Losses = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200, help=f"a multiple of {WINDOW}")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    try:
        found = measure(options)
    except UserError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    yardstick = found.pop("float32")
    differences = {
        name: {term: float(np.max(np.abs(values / yardstick[term] - 1))) for term, values in terms.items()}
        for name, terms in found.items()
    }
    windows = {"float32": yardstick} | found
    result = {"config": options.config, "steps": options.steps, "machine": timing.machine()}
    result |= {"largest_relative_difference": differences}
    result |= {"windows": {name: {term: v.tolist() for term, v in terms.items()} for name, terms in windows.items()}}
    print(json.dumps(result, indent=2) if options.json else table(differences))


def measure(options: argparse.Namespace) -> dict[str, Losses]:
    """Every run's terms, as means over windows."""
    config, narrow = (settings(options, dtype) for dtype in ("float32", "bfloat16"))
    train_step, state, _ = prepare(config)
    # All three start from this one: the compiled steps give the state's memory away.
    start = jax.device_get(state)
    step, narrow_step = jitted(train_step), jitted(TrainStep(narrow, steps_per_epoch=1000))
    only_losses = losses_of(TrainStep(narrow, steps_per_epoch=1000))
    found: dict[str, list[Any]] = {name: [] for name in ("float32", "same state", "own run", "control")}
    states = {"own run": start, "control": perturbed(start)}
    for images in batches(options, config):
        found["same state"].append(only_losses(state, images))
        state, metrics = step(state, images)
        found["float32"].append(metrics)
        for name, call in (("own run", narrow_step), ("control", step)):
            states[name], metrics = call(states[name], images)
            found[name].append(metrics)
    return {name: windowed(jax.device_get(rows)) for name, rows in found.items()}


def losses_of(train_step: TrainStep) -> Any:
    """The loss terms of one batch at one state."""

    def call(state: Any, images: jax.Array) -> Any:
        keys = image_keys(train_step.config.seed, state.step, len(images))
        stats = Statistics(state.stats, state.target_stats)
        return train_step.gradients_of_images(state, stats, keys, images)[0][1]

    return jax.jit(call, compiler_options=compilation.training_options())


def perturbed(state: Any) -> Any:
    """The state with every trained parameter changed by up to one part in 10^7."""
    random = np.random.default_rng(0)

    def change(x: np.ndarray) -> np.ndarray:
        return (x * (1 + 1e-7 * random.uniform(-1, 1, x.shape))).astype(x.dtype)

    return state.replace(params=jax.tree.map(change, state.params))


def batches(options: argparse.Namespace, config: Config) -> Iterator[Any]:
    """The batches that training sees, one for each step."""
    source = open_source("folder", options.images)
    sides = {"canvas": config.canvas, "least": config.least_side}
    with TrainBatches(source, seed=config.seed, batch_size=options.batch_size, **sides) as stream:
        for _ in range(options.steps):
            yield canvases.of_batch(next(stream))


def windowed(rows: list[dict[str, Any]]) -> Losses:
    names = [name for name in rows[0] if name.startswith("loss/")]
    return {name: np.reshape([float(row[name]) for row in rows], (-1, WINDOW)).mean(1) for name in names}


def table(differences: dict[str, dict[str, float]]) -> str:
    """The differences, one line for each term."""
    lines = ["".join(f"{name:>12}" for name in differences)]
    for term in next(iter(differences.values())):
        lines.append("".join(f"{100 * row[term]:10.2f} %" for row in differences.values()) + f"  {term}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
