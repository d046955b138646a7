"""Two probes on the same images, compared image by image.

    python -m simfle_jax.compare PROBE_A PROBE_B              # also of buckets, gs:// and s3://

Reads predictions.csv of both folders and prints the scores, their differences (B - A), and 95 % intervals of the
differences by a paired bootstrap: images are drawn with replacement, for both probes the same ones. The intervals of
two probes may overlap where that of the difference leaves 0 out, because both find the same images hard.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from simfle_jax.commands.ending import ended
from simfle_jax.errors import UserError
from simfle_jax.storage import place

FILES = ("predictions.csv", "predictions_evaluation.csv")
LANDMARKS = "landmarks.safetensors"  # of a probe that predicts no classes


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", type=place, metavar="PROBE_A", help="folder of a finished probe")
    parser.add_argument("b", type=place, metavar="PROBE_B", help="another, of the same val images")
    parser.add_argument(
        "--evaluation",
        action="store_true",
        help="of the images that both were evaluated on last (--config.eval_only=True)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    ended(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from simfle_jax.runs.at_hand import borrowed

    with borrowed(args.a) as a, borrowed(args.b) as b:
        found = compare(a, b, args.evaluation) | {"a": args.a, "b": args.b}
        if not args.evaluation and all((folder / FILES[1]).is_file() for folder in (a, b)):
            print("of the training's own val; --evaluation compares what was evaluated later", file=sys.stderr)
    print(json.dumps(found, indent=2) if args.json else table(found))


def compare(a: Path, b: Path, evaluation: bool = False) -> dict[str, Any]:
    """Scores of both probes, their differences with intervals, and how many images only one of them gets right.

    evaluation: of what `--config.eval_only=True` wrote, and not of the training's val.

    Raises:
        UserError: a folder holds no predictions, or the two are of other images or other classes.
    """
    import numpy as np

    from simfle_jax.evaluation.scores import paired

    one, other = (_read(folder, FILES[1:] if evaluation else FILES) for folder in (a, b))
    _check_same(a, one, b, other)
    rows = [(*one[name], other[name][1]) for name in one]
    classes = sorted({label for row in rows for label in row})
    numbers = np.array([[classes.index(label) for label in row] for row in rows])
    labels, of_a, of_b = numbers.T
    right_a, right_b = of_a == labels, of_b == labels
    return {
        "a": str(a), "b": str(b), "count": len(rows), "scores": paired(labels, of_a, of_b, len(classes), seed=0),
        "only_a_right": int((right_a & ~right_b).sum()), "only_b_right": int((right_b & ~right_a).sum()),
    }  # fmt: skip


def _read(folder: Path, files: tuple[str, ...] = FILES) -> dict[str, tuple[str, str]]:
    """Class and predicted class of every image by its name."""
    from simfle_jax.evaluation.records import read_predictions

    file = next((folder / name for name in files if (folder / name).is_file()), None)
    if file is None and (folder / LANDMARKS).is_file():
        raise UserError(f"{folder} is a probe of landmarks: only classes are compared image by image")
    if file is None:
        raise UserError(
            f"{folder} holds no {files[0]}: probe.py with --config.eval_only=True writes the one of a probe"
        )
    return {row["name"]: (row["label"], row["predicted"]) for row in read_predictions(file)}


def _check_same(a: Path, one: dict[str, tuple[str, str]], b: Path, other: dict[str, tuple[str, str]]) -> None:
    for folder, lacking, more in ((b, other, one), (a, one, other)):
        missing = [name for name in more if name not in lacking]
        if missing:
            raise UserError(
                f"{folder} has no prediction for {missing[0]} ({len(missing)} in all): compare the same images"
            )
    for name, (label, _) in one.items():
        if other[name][0] != label:
            raise UserError(f"{name} is {label} in {a} and {other[name][0]} in {b}: compare the same classes")


def table(found: dict[str, Any]) -> str:
    """The comparison as text."""
    lines = [f"A {found['a']}", f"B {found['b']}", f"{found['count']} images", ""]
    lines.append(f"{'':20}{'A':>8}{'B':>8}{'B - A':>9}   95 % of the difference")
    for name, row in found["scores"].items():
        low, high = row["interval_95"]
        lines.append(
            f"{name.replace('_', ' '):20}{row['a']:8.4f}{row['b']:8.4f}{row['difference']:+9.4f}   {low:+.4f} to {high:+.4f}"
        )
    lines.append(f"right only in A: {found['only_a_right']} images, only in B: {found['only_b_right']}")
    return "\n".join(lines)
