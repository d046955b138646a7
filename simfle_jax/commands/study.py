"""A study: settings of pre-training x seeds x probes, one piece after the other, and one table with intervals.

    python -m simfle_jax.study configs/studies/ablations.py --workdir runs/ablations
    python -m simfle_jax.study ablations --workdir runs/ablations --only $SLURM_ARRAY_TASK_ID

STUDY.py ends in a function `get_study` (configs/studies/ has some). A piece is one arm with one seed. The same command
again goes on where it was stopped, within a pre-training too. Leaves table.md, table.csv, table.json, curves.png.
"""

import argparse
import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from simfle_jax.commands.ending import ended
from simfle_jax.commands.faces import write_faces
from simfle_jax.commands.presets import load_config, load_study
from simfle_jax.data.synthetic_faces import PRESETS
from simfle_jax.errors import UserError
from simfle_jax.progress import Progress
from simfle_jax.storage import on_disk
from simfle_jax.studies import Piece, Study, definition


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", metavar="STUDY", help="a file, or a name in configs/studies")
    parser.add_argument("--workdir", type=on_disk, required=True, help="holds all runs, probes and tables")
    parser.add_argument("--data", type=on_disk, metavar="DIR", help="holds train/ and val/; default: the study's faces")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="S", help="in place of the study's")
    parser.add_argument("--only", type=int, metavar="INDEX", help="one piece, counted from 0 as --list shows them")
    parser.add_argument("--list", action="store_true", help="show the pieces and which are done")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    ended(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    study = load_study(args.study)
    if args.seeds:
        study = dataclasses.replace(study, seeds=tuple(args.seeds))
    definition.check(study)
    pieces, usual = study.pieces(), load_config("probe")
    if args.only is not None and not 0 <= args.only < len(pieces):
        raise UserError(f"--only {args.only}: the study has the pieces 0 to {len(pieces) - 1} (--list shows them)")
    _check_data(study, args.data)
    definition.record(study, args.workdir, usual, args.data)  # faces are drawn later, where they are needed
    from simfle_jax import distributed  # from here on JAX is there
    from simfle_jax.studies import table, work

    distributed.refuse_several("a piece of a study", distributed.Options())
    if args.list:
        print(*(_line(piece, work.is_done(study, piece, args.workdir)) for piece in pieces), sep="\n")
        return
    chosen = pieces if args.only is None else [pieces[args.only]]
    _do(study, chosen, args.workdir, args.data, usual)
    found = table.write(study, args.workdir)
    print(table.as_markdown(found))
    print(args.workdir / "table.md")


def _do(study: Study, pieces: list[Piece], workdir: Path, data: Path | None, usual: Any) -> None:
    """The pieces that are not done; the table is written anew after each, and the end is told by epochs.

    Raises:
        UserError: at the end, where pieces could not be done; the others are.
    """
    from simfle_jax.studies import table, work

    done = [work.is_done(study, piece, workdir) for piece in pieces]
    costs = [study.epochs(piece.arm) for piece in pieces]
    spent = sum(cost for cost, is_done in zip(costs, done) if is_done)
    progress = Progress(sum(costs), "study, epochs", spent, every=0)
    failed = dict[Piece, str]()
    for piece, cost, is_done in zip(pieces, costs, done):
        if is_done:
            continue
        print(f"piece {piece.number}: {piece.arm}, seed {piece.seed}", flush=True)
        try:
            work.do_piece(study, piece, workdir, data or _faces(study, workdir, piece.seed), usual)
        except UserError as error:
            failed[piece] = str(error)
            print(f"piece {piece.number} could not be done: {error}", file=sys.stderr, flush=True)
        spent += cost
        table.write(study, workdir)
        progress.update(spent, pieces=f"{sum(work.is_done(study, p, workdir) for p in pieces)} of {len(pieces)}")
    if failed:
        numbers = ", ".join(str(piece.number) for piece in failed)
        raise UserError(
            f"{len(failed)} of {len(pieces)} pieces could not be done ({numbers}), the first because: "
            f"{next(iter(failed.values()))}; the table has the others, and the same command does what is missing"
        )


def _check_data(study: Study, data: Path | None) -> None:
    if data is None and study.faces is None:
        raise UserError("the study names no faces to generate: give --data DIR, which holds train/ and val/")
    missing = [data / name for name in ("train", "val") if not (data / name).is_dir()] if data else []
    if missing:
        raise UserError(f"no folder {missing[0]}: --data DIR holds train/ and val/")


def _faces(study: Study, workdir: Path, seed: int) -> Path:
    """The generated faces of a seed. Several processes may want them at once: whoever is first puts them there."""
    place, faces = workdir / "faces" / f"seed{seed}", study.faces
    assert faces is not None
    drawn = place if place.is_dir() else place.with_name(f".{place.name}.{os.getpid()}")
    write_faces(drawn, faces.count, faces.val_count, seed, faces.size, PRESETS[faces.preset])
    if drawn != place:
        try:
            drawn.rename(place)
        except OSError:  # somebody else was first, with the same faces
            shutil.rmtree(drawn)
    return place


def _line(piece: Piece, is_done: bool) -> str:
    return f"{piece.number:4d}  {piece.arm}, seed {piece.seed}{'  done' if is_done else ''}"
