"""How far bfloat16's losses are from float32's over the first steps of the demo.

    python benchmarks/bfloat16.py --images DIR [--config configs/demo.py] [--steps 200] [--json]

Both runs see the same images, views and draws. Shown is each term's mean over windows of 20 steps, and the largest relative
difference of any window: single steps differ more, because a patch that is masked in one run alone is another task.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import loop, timing

WINDOW = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    found = {dtype: losses(options, dtype) for dtype in ("float32", "bfloat16")}
    difference = {
        name: float(np.max(np.abs(found["bfloat16"][name] / found["float32"][name] - 1))) for name in found["float32"]
    }
    windows = {dtype: {name: values.tolist() for name, values in terms.items()} for dtype, terms in found.items()}
    result = {"config": options.config, "steps": options.steps, "machine": timing.machine()}
    result |= {"largest_relative_difference": difference, "windows": windows}
    print(json.dumps(result, indent=2) if options.json else table(difference))


def losses(options: argparse.Namespace, dtype: str) -> dict[str, np.ndarray]:
    """Every loss term's means over windows of steps."""
    with tempfile.TemporaryDirectory() as folder:
        lines = loop.run(argparse.Namespace(**vars(options) | {"dtype": dtype}), folder, log_steps=1)[: options.steps]
    names = [name for name in lines[0] if name.startswith("loss/")]
    return {name: np.reshape([line[name] for line in lines], (-1, WINDOW)).mean(1) for name in names}


def table(difference: dict[str, Any]) -> str:
    """The differences, one line each."""
    return "\n".join(f"{100 * value:6.2f} %  {name}" for name, value in difference.items())


if __name__ == "__main__":
    main()
