"""Writes a data set of generated faces: ordinary folders of JPEGs, and the landmarks of every face.

    python -m simfle_jax.faces --out faces --count 8000 --seed 0 --size 48
    python -m simfle_jax.faces --sheet faces.png --preset wild       # only a contact sheet to look at

OUT/train/<class>/*.jpg and OUT/val/<class>/*.jpg (other identities), OUT/landmarks.npz with `name` [n] and `points`
[n, 68, 2] (x, y in pixels, the standard 68-point order), and OUT/faces.json with the settings.
"""

import argparse
import dataclasses
import functools
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import simplejpeg

from simfle_jax.commands.ending import ended
from simfle_jax.config import check_seed
from simfle_jax.data.read_back import parse_json
from simfle_jax.data.synthetic_faces import IMAGES_PER_IDENTITY, PRESETS, Strengths, contact_sheet, draw_face
from simfle_jax.errors import UserError
from simfle_jax.host import cores
from simfle_jax.progress import Progress
from simfle_jax.storage import on_disk
from simfle_jax.writing import writing_output

_DONE, _UNFINISHED = "faces.json", "unfinished.json"  # the settings, under the second name until all is written


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = _parser().parse_args(argv)
    ended(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    strengths = _strengths(args)
    check_seed(args.seed, "--seed")
    _check_size(args.size)
    if args.sheet:
        if args.sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise UserError(f"--sheet {args.sheet}: give a name that ends in .png or .jpg")
        with writing_output(args.sheet) as temporary:
            contact_sheet(args.seed, args.size, strengths).save(temporary)
        print(f"contact sheet in {args.sheet}")
    if args.out:
        write_faces(args.out, args.count, args.val_count, args.seed, args.size, strengths)
    if not args.out and not args.sheet:
        raise UserError("give --out DIR for a data set, or --sheet FILE for a contact sheet")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.faces", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=on_disk, metavar="DIR", help="folder to write; new, empty, or of the same settings"
    )
    parser.add_argument("--count", type=int, default=8000, help="training images (default %(default)s)")
    parser.add_argument("--val-count", type=int, help="validation images, of other identities (default: a quarter)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=112, help="side in pixels (default %(default)s)")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="demo", help="default %(default)s")
    parser.add_argument(
        "--sheet", type=on_disk, metavar="FILE", help="write a contact sheet: a row for each expression"
    )
    group = parser.add_argument_group("strengths, 0 (off) to 1 (full range), over those of the preset")
    for field in dataclasses.fields(Strengths):
        group.add_argument(f"--{field.name}", type=float)
    return parser


def _strengths(args: argparse.Namespace) -> Strengths:
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Strengths)}
    return dataclasses.replace(PRESETS[args.preset], **{name: v for name, v in given.items() if v is not None})


def write_faces(out: Path, count: int, val_count: int | None, seed: int, size: int, strengths: Strengths) -> None:
    """Writes the data set; does nothing when it is there already.

    Raises:
        UserError: too few images to hold two identities, or a folder that holds something else.
    """
    val_count = count // 4 if val_count is None else val_count
    if min(count, val_count) < IMAGES_PER_IDENTITY:
        raise UserError(
            f"--count {count} and --val-count {val_count} must be at least {IMAGES_PER_IDENTITY}: one identity"
        )
    _check_size(size)
    settings: dict[str, object] = {"count": count, "val_count": val_count, "seed": seed, "size": size}
    settings |= {"strengths": dataclasses.asdict(strengths), "images_per_identity": IMAGES_PER_IDENTITY}
    if _is_done(out, settings):
        print(f"{out} holds these faces already")
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / _UNFINISHED).write_text(json.dumps(settings, indent=2) + "\n")
    draw = functools.partial(_write_one, str(out), seed, size, strengths)
    jobs = [("train", i) for i in range(count)] + [("val", i) for i in range(val_count)]
    names, points = zip(*_in_parallel(draw, jobs), strict=True)
    np.savez_compressed(out / "landmarks.npz", name=np.array(names), points=np.stack(points))
    (out / _UNFINISHED).replace(out / _DONE)
    print(f"{count} training and {val_count} validation faces in {out}")


def _check_size(size: int) -> None:
    if not 16 <= size <= 1024:
        raise UserError(f"--size {size} must lie in 16..1024 pixels")


def _is_done(out: Path, settings: dict) -> bool:
    """Whether these faces are there; UserError if `out` holds others, or anything that this command did not write."""
    done = _note(out / _DONE)
    if done == settings:
        return True
    if isinstance(done, dict) and done.keys() == settings.keys():
        there, asked = _flat(done), _flat(settings)
        other = [f"{key} {there.get(key)}, not {value}" for key, value in asked.items() if there.get(key) != value]
        raise UserError(f"{out} holds faces of {'; '.join(other)}: take another folder, or remove it")
    # An interrupted run of the same settings is drawn again, file for file; nothing else is written over.
    if out.exists() and _note(out / _UNFINISHED) != settings and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} holds something else; take another folder, or remove it")
    return False


def _flat(settings: dict) -> dict[str, object]:
    return {key: value for key, value in settings.items() if key != "strengths"} | dict(settings["strengths"])


def _note(path: Path) -> object:
    try:
        return parse_json(path.read_text())
    except (OSError, ValueError):
        return None


def _in_parallel(draw: functools.partial, jobs: list[tuple[str, int]]) -> list[tuple[str, np.ndarray]]:
    progress = Progress(len(jobs), "drawing faces")
    results = []
    # spawn: a fork of a process with running threads can hang.
    with multiprocessing.get_context("spawn").Pool(cores()) as pool:
        for result in pool.imap(draw, jobs, chunksize=64):
            results.append(result)
            progress.update(len(results))
    return results


def _write_one(out: str, seed: int, size: int, strengths: Strengths, job: tuple[str, int]) -> tuple[str, np.ndarray]:
    split, index = job
    face = draw_face(seed, split, index, size, strengths)
    name = f"{split}/{face.expression}/{index:06d}_id{face.identity:05d}.jpg"
    path = os.path.join(out, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(simplejpeg.encode_jpeg(face.image, quality=92, colorsubsampling="444"))
    return name, face.landmarks
