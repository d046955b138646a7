"""Prepares a data set as its owners ship it, checks any folder of images, or packs one into ArrayRecord shards.

python -m simfle_jax.prepare rafdb --source RAF-DB/basic --out data/rafdb
python -m simfle_jax.prepare folder --source PHOTOGRAPHS --out data/faces --align
python -m simfle_jax.prepare --check data/rafdb
python -m simfle_jax.prepare --pack data/rafdb --out data/rafdb_packed
python -m simfle_jax.prepare --pack data/rafdb --out gs://BUCKET/rafdb
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

from simfle_jax.commands.ending import ended
from simfle_jax.data import packing
from simfle_jax.data.photographs.alignment import CHOICES, Alignment
from simfle_jax.data.photographs.detector import YuNet
from simfle_jax.data.prepare import affectnet, check, ferplus, folder, manifest, rafdb, sfew, w300, w300vw, wflw
from simfle_jax.data.prepare.plan import Plan
from simfle_jax.data.prepare.run import check_apart, prepare
from simfle_jax.errors import UserError
from simfle_jax.storage import is_bucket, joined, on_disk, refuse_bucket

PLANS: dict[str, tuple[Callable[..., Plan], tuple[str, ...]]] = {
    "affectnet": (affectnet.plan, ("classes", "margin")),
    "rafdb": (rafdb.plan, ("alignment",)),
    "ferplus": (ferplus.plan, ("labels", "test_split")),
    "sfew": (sfew.plan, ("alignment",)),
    "300w": (w300.plan, ("margin",)),
    "300vw": (w300vw.plan, ("margin",)),
    "wflw": (wflw.plan, ("margin",)),
    "folder": (folder.plan, ()),
}
ALIGN = ("align", "not_found", "detector")
RULES = ("classes", "margin", "alignment", "labels", "test_split")
OPTIONS = {"dataset": ("source", "out", "link", *RULES, *ALIGN), "check": ("json",), "pack": ("out",)}


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    options = make_parser().parse_args(argv)
    ended(lambda: _run(options))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", nargs="?", choices=tuple(PLANS), help="layout of --source")
    parser.add_argument("--source", type=on_disk, metavar="DIR", help="the unpacked data set; it is only read")
    parser.add_argument(
        "--out", metavar="DIR", help="the folder to write, not inside the source; of a pack also in a bucket"
    )
    parser.add_argument("--link", choices=("hard", "copy"), help="how unchanged files get there (hard)")
    parser.add_argument(
        "--check", type=on_disk, metavar="DIR", help="examine a folder instead: counts, duplicates, leaks"
    )
    parser.add_argument("--json", type=on_disk, metavar="FILE", help="where --check reports (check.json)")
    parser.add_argument(
        "--pack", type=on_disk, metavar="DIR", help="write the images of a folder as shards to --out instead"
    )
    faces = parser.add_argument_group("faces in photographs, of any data set")
    faces.add_argument("--align", action="store_true", default=None, help="write each image's face, its eyes in place")
    faces.add_argument(
        "--not-found", choices=CHOICES, help="images without a face: leave out, cut the centre, keep (drop)"
    )
    faces.add_argument("--detector", metavar="FILE", help="the face detector (SIMFLE_FACE_DETECTOR)")
    rules = parser.add_argument_group("rules of the data sets")
    rules.add_argument("--classes", type=int, choices=(7, 8), help="affectnet: without or with contempt (8)")
    rules.add_argument(
        "--margin",
        type=_share,
        help="widening of the face box per edge: affectnet, older (0.1), 300w, 300vw and wflw (0.2)",
    )
    rules.add_argument("--alignment", choices=("aligned", "original"), help="rafdb (aligned), sfew (as found)")
    rules.add_argument("--labels", choices=("majority", "argmax"), help="ferplus: from votes to a class (majority)")
    rules.add_argument("--test-split", choices=("test", "valid"), help="ferplus: which part becomes val (test)")
    return parser


def _run(options: argparse.Namespace) -> None:
    chosen = [name for name in ("dataset", "check", "pack") if getattr(options, name) is not None]
    if len(chosen) != 1:
        raise UserError(f"give one of a data set ({', '.join(PLANS)}), --check DIR or --pack DIR; see --help")
    for name in ("source", "out", "link", "json", *RULES, *ALIGN):
        if getattr(options, name) is not None and name not in OPTIONS[chosen[0]]:
            raise UserError(
                f"{_flag(name)} is not an option of {'a data set' if chosen[0] == 'dataset' else _flag(chosen[0])}"
            )
    {"dataset": _prepare, "check": _check, "pack": _pack}[chosen[0]](options)


def _prepare(options: argparse.Namespace) -> None:
    if options.source is None or options.out is None:
        raise UserError(f"{options.dataset} needs --source DIR and --out DIR")
    refuse_bucket(options.out, "--out")
    options.out = Path(options.out)
    make_plan, known = PLANS[options.dataset]
    given = {name: getattr(options, name) for name in RULES if getattr(options, name) is not None}
    for name in given.keys() - set(known):
        raise UserError(f"{_flag(name)} is not an option of {options.dataset}")
    made, alignment = functools.partial(make_plan, **given), _alignment(options)
    result = prepare(made, options.source, options.out, options.link or "hard", alignment)
    print(manifest.table(result), f"written: {options.out} (details in {manifest.NAME})", sep="\n")


def _alignment(options: argparse.Namespace) -> Alignment | None:
    if not options.align:
        for name in ("not_found", "detector"):
            if getattr(options, name) is not None:
                raise UserError(f"{_flag(name)} is an option of --align, which is not given")
        return None
    detector = YuNet(options.detector or "")
    return Alignment(detector, detector.name, options.not_found or "drop")


def _check(options: argparse.Namespace) -> None:
    _require_folder(options.check, "--check")
    target = options.json or Path("check.json")
    check.require_free(target)  # before the minutes that a check may take
    report = check.check(options.check)
    check.save(report, target)  # before it is shown: whoever reads may stop at the first line
    print(check.table(report), f"written: {target}", sep="\n")


def _pack(options: argparse.Namespace) -> None:
    if options.out is None:
        raise UserError("--pack DIR needs --out DIR for the shards")
    _require_folder(options.pack, "--pack")
    if not is_bucket(options.out):
        check_apart(options.pack, Path(options.out))
    packed = packing.pack(str(options.pack), options.out)
    places = {split: joined(options.out, split) if split else options.out for split in packed}
    print(*(f"packed {count:,} images: {places[split]}" for split, count in packed.items()), sep="\n")


def _require_folder(folder: Path, flag: str) -> None:
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: give {flag} an existing folder of images")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 2")
    return value
