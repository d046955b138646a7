"""manifest.json: how a prepared folder came about, and whether it holds what its owners published."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import PIL
import simplejpeg
from PIL import features

import simfle_jax
from simfle_jax.data.bad_list import printable
from simfle_jax.data.listing import entries
from simfle_jax.data.photographs.alignment import LIST
from simfle_jax.data.prepare.plan import SPLITS, Item, Plan, Published
from simfle_jax.data.prepare.writer import UNLABELLED
from simfle_jax.data.read_back import parse_json
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError
from simfle_jax.writing import write_whole, writing_whole

NAME = "manifest.json"
Counts = dict[str, dict[str, int]]


def begin(plan: Plan, out: Path, source: Path) -> bool:
    """Claims `out` for this plan, before anything is written into it; whether it was prepared from another folder.

    Raises:
        UserError: `out` holds something else, or was prepared by other rules.
    """
    settings = {"dataset": plan.dataset, "rules": plan.rules}
    path = out / NAME
    if path.is_file():
        return _refuse_other(path, settings).get("source", _place(plan, source)) != _place(plan, source)
    if out.exists() and (not out.is_dir() or entries(os.fsencode(out))):
        raise UserError(f"{out} holds something else (it has no {NAME} of a preparation): choose an empty --out")
    out.mkdir(parents=True, exist_ok=True)
    _save(path, {**settings, "complete": False, "source": _place(plan, source)})
    return False


def between(out: Path) -> None:
    """Notes that `out` has images of two folders for the time being, as a run that is stopped now leaves them."""
    _save(out / NAME, parse_json((out / NAME).read_text(encoding="utf-8")) | {"complete": False, "source": ""})


def finish(plan: Plan, out: Path, items: list[Item], link: str, source: Path, facts: dict | None = None) -> dict:
    """Writes the manifest of the finished folder, with further facts, and returns it."""
    counts = count(items)
    manifest = {
        "dataset": plan.dataset,
        "rules": plan.rules,
        "complete": True,
        "counts": {**counts, UNLABELLED: sum(item.split == "train" for item in items)},
        "published": plan.published,
        "agrees": {split: agrees(counts[split], published) for split, published in plan.published.items()},
        "differences": differences(counts, plan.published),
        "skipped": plan.skipped.as_json(),
        **subset_counts(items),
        "link": link,
        "source": _place(plan, source),
        **(facts or {}),
        "versions": versions(),
        "listing_sha256": {folder: listing_hash(out, folder) for folder in (*SPLITS, UNLABELLED)},
    }
    _save(out / NAME, manifest)
    return manifest


def _place(plan: Plan, source: Path) -> str:
    """The folder of the images by a digest of its path, which is nobody else's business."""
    paths = [os.path.dirname(os.path.abspath(item.path)) for item in plan.items if item.path]
    return hashlib.sha256(os.fsencode(os.path.commonpath(paths or [os.path.abspath(source)]))).hexdigest()[:16]


def write_votes(plan: Plan, out: Path, items: list[Item]) -> None:
    """votes.csv, where people voted: a line for each labelled image, with the votes for each choice."""
    lines = [(f"{item.split}/{item.label}/{item.name}", *item.votes) for item in items if item.votes and item.label]
    if not lines:
        return
    with (
        writing_whole(out / "votes.csv") as part,
        part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # names of other encodings
    ):
        csv.writer(file, lineterminator="\n").writerows([("name", *plan.choices), *sorted(lines)])


def count(items: Iterable[Item]) -> Counts:
    """Images per split and class, in sorted order."""
    found = Counter((item.split, item.label) for item in items if item.label is not None)
    return {split: {label: found[s, label] for s, label in sorted(found) if s == split} for split in SPLITS}


def subset_counts(items: Iterable[Item]) -> dict[str, dict[str, int]]:
    """Under `subsets`, how many images are in each of the owners' subsets; nothing where there are none."""
    found = Counter(name for item in items for name in item.subsets)
    return {"subsets": {name: found[name] for name in sorted(found)}} if found else {}


def agrees(counts: dict[str, int], published: dict[str, int] | int) -> bool:
    """Whether the counts are the published ones: of every class, or only the sum where no more is published."""
    return sum(counts.values()) == published if isinstance(published, int) else counts == published


def differences(counts: Counts, published: Published) -> dict[str, dict[str, list[int]]]:
    """[found, published] of every class (or sum) that differs, by split."""
    result: dict[str, dict[str, list[int]]] = {}
    for split, wanted in published.items():
        found = counts[split]
        pairs = (
            {"all": [sum(found.values()), wanted]}
            if isinstance(wanted, int)
            else {label: [found.get(label, 0), wanted.get(label, 0)] for label in sorted({*found, *wanted})}
        )
        result[split] = {label: pair for label, pair in pairs.items() if pair[0] != pair[1]}
    return {split: pairs for split, pairs in result.items() if pairs}


def listing_hash(out: Path, folder: str) -> str | None:
    """SHA-256 over the names and sizes below a folder: the fingerprint that training records for it."""
    return FolderSource(out, split=folder).fingerprint if (out / folder).is_dir() else None


def versions() -> dict[str, str | None]:
    """What decoded and resized the images that had to be."""
    return {
        "simfle_jax": simfle_jax.__version__,
        "decoder": f"Pillow {PIL.__version__}",
        "jpeg_library": f"libjpeg-turbo {features.version('libjpeg_turbo')}",
        "simplejpeg": simplejpeg.__version__,
        "resizer": f"Pillow {PIL.__version__} bilinear, antialiased",
    }


def table(manifest: dict) -> str:
    """The counts beside the published ones, and what was skipped, to be read."""
    lines = [f"{manifest['dataset']}: {', '.join(f'{key} {value}' for key, value in manifest['rules'].items())}"]
    for split in SPLITS:
        lines += _split_lines(split, manifest["counts"][split], manifest["published"].get(split))
    lines.append(f"  {UNLABELLED:<22}{manifest['counts'][UNLABELLED]:>9,}")
    lines += [_line(f"subset {name}", count, None) for name, count in manifest.get("subsets", {}).items()]
    for reason, entry in manifest["skipped"].items():
        lines.append(f"  skipped {entry['count']:,}: {reason} ({', '.join(entry['first'])})")
    if manifest.get("faces_not_found"):
        lines.append(f"  no face found in {manifest['faces_not_found']:,}: listed in {LIST}")
    return "\n".join(map(printable, lines))


def _split_lines(split: str, counts: dict[str, int], published: dict[str, int] | int | None) -> list[str]:
    lines = []
    for label in sorted({*counts, *(published if isinstance(published, dict) else ())}):
        wanted = published.get(label, 0) if isinstance(published, dict) else None
        lines.append(_line(f"{split}/{label}", counts.get(label, 0), wanted))
    total = sum(published.values()) if isinstance(published, dict) else published
    return lines + [_line(split, sum(counts.values()), total)]


def _line(name: str, found: int, published: int | None) -> str:
    line = f"  {name:<22}{found:>9,}"
    if published is None:
        return line
    return line + (f"   published {published:,}" if found != published else "   as published")


def _refuse_other(path: Path, settings: dict) -> dict:
    """What the manifest holds; raises UserError where it is of other rules."""
    try:
        old = parse_json(path.read_text(encoding="utf-8"))
        before = {"dataset": old["dataset"], **old["rules"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the manifest of a preparation: choose another --out") from None
    now = {"dataset": settings["dataset"], **settings["rules"]}
    changed = [
        f"{key} {before.get(key)} -> {now.get(key)}" for key in {**before, **now} if before.get(key) != now.get(key)
    ]
    if changed:
        raise UserError(f"{path.parent} was prepared otherwise ({'; '.join(changed)}): choose another --out")
    return dict(old)


def _save(path: Path, content: dict) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")
