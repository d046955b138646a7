"""Expressions of faces, by a trained linear probe.

    python -m simfle_jax.predict face.jpg --probe PROBE
    python -m simfle_jax.predict FACES --probe model_best.pth.tar --classes anger fear happiness --json
    python -m simfle_jax.predict party.jpg --probe PROBE --align

Prints one line for each image: the classes with their probabilities, likeliest first. With --json the lines are JSON
objects of `name`, `label` and `probabilities`. Images that cannot be read are named on the error output; status 1 then.

Images must be cropped to the face as those that the probe was trained on: of a whole photograph the centre is taken, and
the answer is as sure as any. They are decoded at the canvas of the probe's training.

With --align faces are looked for, and each is one line, `party.jpg#xywh=10,20,30,40`: its photograph and its box (JSON: `name`
and `box`). Photographs without a face are named on the error output. Needs extra `align` and a detector's file; docs/data.md
says which and where.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator

import numpy as np

from simfle_jax.commands.aligning import add_align, asked_for, warn_of_crop
from simfle_jax.commands.ending import ended
from simfle_jax.data.bad_list import escaped
from simfle_jax.data.photographs import BOX, NO_FACE

CROPPED = "images must be cropped to the face as those of the probe's training were, or give --align"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, or folders that are searched for images")
    parser.add_argument("--probe", required=True, help="folder of a trained probe, or a file with a whole classifier")
    parser.add_argument("--encoder", default="", help="where the probe's encoder is now, when it was moved")
    parser.add_argument("--classes", nargs="+", default=[], help="names in order, for a file that does not tell them")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    add_align(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    ended(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    if predict(args):
        raise SystemExit(1)


def predict(args: argparse.Namespace) -> dict[int, str]:
    """Prints the predictions of all readable images; returns the reasons of the others by number. Raises UserError."""
    from simfle_jax import compilation
    from simfle_jax.data.image_list import ImageList
    from simfle_jax.evaluation.classifier import load_classifier
    from simfle_jax.evaluation.features import Extractor, check_readable

    compilation.use_cache()
    photographs = ImageList(args.images)
    classifier = load_classifier(args.probe, args.encoder, tuple(args.classes))
    source, without = asked_for(photographs, args.align, args.detector)
    if not args.align:
        print(CROPPED, file=sys.stderr)
    warn_of_crop(classifier.encoder.metadata, None if args.align else args.images)
    extractor = Extractor(classifier.encoder, canvas=classifier.canvas)
    bad: dict[int, str] = {}
    for found in extractor.stream(source):
        names = [source.name(number) for number in found.rows]
        for line in _lines(names, classifier.from_features(found.features), classifier.classes, args.json):
            print(line)
        bad |= found.bad
    check_readable(source, bad)
    for name, reason in (without | {source.name(number): reason for number, reason in bad.items()}).items():
        print(f"{escaped(name)}: {reason}", file=sys.stderr)
    return bad or {number: reason for number, reason in enumerate(without.values()) if reason != NO_FACE}


def _lines(names: list[str], probabilities: np.ndarray, classes: tuple[str, ...], as_json: bool) -> Iterator[str]:
    for name, row in zip(names, probabilities.tolist()):
        ranked = sorted(zip(classes, row), key=lambda pair: -pair[1])
        if as_json:
            place, _, box = (
                name.rpartition(BOX) if re.search(rf"{re.escape(BOX)}\d+(,\d+){{3}}$", name) else (name, "", "")
            )
            told = {"name": place, "label": ranked[0][0], "probabilities": dict(zip(classes, row))}
            yield json.dumps(told | ({"box": [int(value) for value in box.split(",")]} if box else {}))
        else:
            yield f"{escaped(name)}  " + "  ".join(f"{label} {share:.3f}" for label, share in ranked)
