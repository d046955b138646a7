"""Refreshes RUN/report.html; the process that `LiveReport` starts.

python -m simfle_jax.reporting.refresh RUN
"""

import argparse
import os
import sys
from pathlib import Path

POINTS = 500  # of the map of the features: fewer than a report has that nobody waits for


def main(argv: list[str] | None = None) -> None:
    """The process; a page that cannot be made ends in one line and status 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--named", default="", metavar="LOCATION", help="where in a bucket the run lies of which this is a copy"
    )
    parser.add_argument("--images", action="store_true", help="whatever they show, not of generated faces alone")
    parser.add_argument("--gently", action="store_true", help="take only what time the training leaves")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="also write masks.STEP.png and so on there")
    args = parser.parse_args(argv)
    if args.gently:
        give_way()
    from simfle_jax.errors import UserError
    from simfle_jax.runs.mirror import named_by

    try:
        with named_by(args.run, args.named or str(args.run)):
            refresh(args.run, args.images or None, args.pictures)
    except UserError as error:
        sys.exit(f"error: {error}")


def refresh(run: Path, show: bool | None, pictures: Path | None = None) -> None:
    """Writes RUN/report.html whole, and pictures of the newest checkpoint as NAME.STEP.png where they may be shown.

    Raises:
        UserError: the folder is no run, or Plotly is not installed.
    """
    from simfle_jax import compilation
    from simfle_jax.reporting import atlas
    from simfle_jax.reporting.build import build, gather, may_show
    from simfle_jax.writing import write_whole

    compilation.use_cache()
    found = gather([run], [], None, POINTS)
    write_whole(run / "report.html", build(found, show))
    if pictures is None or not may_show(found, show):
        return
    for seen in found.seen.values():
        last = seen.looks[-1]
        for name, image in {"masks": atlas.mask_atlas(last), "reconstructions": atlas.reconstructions(last)}.items():
            image.save(pictures / f"{name}.{last.step}.png")


def give_way() -> None:
    """The least of the processor: what no other process wants, where the system allows that, else low priority."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # not of this system, or not in this container
        if hasattr(os, "nice"):
            os.nice(19)


if __name__ == "__main__":
    main()
