"""One preparation from its plan to its manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from simfle_jax.data.photographs.alignment import Alignment
from simfle_jax.data.prepare import landmarks, manifest
from simfle_jax.data.prepare.plan import Plan
from simfle_jax.data.prepare.writer import write
from simfle_jax.errors import UserError


def prepare(
    make_plan: Callable[[Path], Plan], source: Path, out: Path, link: str = "hard", alignment: Alignment | None = None
) -> dict:
    """Prepares `source` into `out`, or goes on where an earlier run stopped, and returns the manifest.

    alignment: each image becomes its face in the documented crop, which the manifest's rules then name.

    The source is only read. Raises UserError with what to do when the layout is not the expected one, when one folder
    lies in the other, or when `out` holds something else.
    """
    check_apart(source, out)
    plan = make_plan(source)
    _require_images(plan, source)
    plan.settle()
    if alignment and any(item.points for item in plan.items):
        raise UserError("--align turns and cuts faces, and their landmarks would no longer fit: leave it out here")
    plan.rules |= alignment.rules if alignment else {}
    other_source = manifest.begin(plan, out, source)
    if other_source:
        manifest.between(out)
    if alignment:
        alignment.begin(out)
    written = write(plan, out, link, alignment, other_source)
    landmarks.save(written, out)
    manifest.write_votes(plan, out, written)
    found = {"faces_not_found": alignment.finish()} if alignment else {}
    return manifest.finish(plan, out, written, link, source, found)


def _require_images(plan: Plan, source: Path) -> None:
    """Raises UserError, with the reasons, when a part of the data set has no image at all: it is still packed, or lost."""
    empty = [part for part in plan.published if all(item.split != part for item in plan.items)]
    if plan.items and not empty:
        return
    skipped = plan.skipped.as_json().items()
    reasons = "; ".join(f"{entry['count']:,} {reason}, first {entry['first'][0]}" for reason, entry in skipped)
    where = f" for {' and '.join(empty)}" if plan.items else ""
    raise UserError(
        f"{plan.dataset}: no usable image{where} in {source}" + (f" (skipped: {reasons})" if reasons else "")
    )


def check_apart(source: Path, out: Path) -> None:
    """Raises UserError when one of the folders is the other or lies in it."""
    one, other = source.resolve(), out.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise UserError(f"--out {out} overlaps {source}: choose an --out beside it, not in or around it")
