"""One page about runs and probes: curves, masks, reconstructions, confusions, features. It opens without a network.

    python -m simfle_jax.report RUN --probe PROBE --out report.html
    python -m simfle_jax.report RUN OTHER --out report.html --figures figures      # side by side; PNG and PDF for a paper

Images are embedded if they are generated faces; of other data only with --images, and never more than 200.
Runs, probes, images and the page may lie in buckets, gs:// and s3://. Needs Plotly: pip install 'simfle-jax[report]'.
"""

import argparse
import contextlib

from simfle_jax.commands.ending import ended
from simfle_jax.storage import place


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=place, metavar="RUN", help="folders of pre-training runs")
    parser.add_argument("--probe", nargs="+", type=place, default=[], metavar="PROBE", help="folders of probes")
    parser.add_argument("--data", type=place, metavar="DIR", help="where the images are now, when they were moved")
    parser.add_argument("--images", action=argparse.BooleanOptionalAction, help="whether the page may hold images")
    parser.add_argument("--out", type=place, required=True, metavar="FILE", help="the page, e.g. report.html")
    parser.add_argument("--figures", type=place, metavar="DIR", help="also write figures for a paper, as PNG and PDF")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    ended(lambda: report(args))


def report(args: argparse.Namespace) -> None:
    """Writes the page, and the figures where they are wanted; raises UserError."""

    from simfle_jax import compilation
    from simfle_jax.reporting.build import build, gather
    from simfle_jax.reporting.charts import plotly_script
    from simfle_jax.runs.at_hand import ALL, borrowed, delivered
    from simfle_jax.runs.mirror import shown
    from simfle_jax.writing import write_whole

    plotly_script()  # its absence is told before the work and not after
    compilation.use_cache()
    with contextlib.ExitStack() as held:
        runs = [held.enter_context(borrowed(run, checkpoints=ALL)) for run in args.runs]
        probes = [held.enter_context(borrowed(probe)) for probe in args.probe]
        out = held.enter_context(delivered(args.out))
        out.parent.mkdir(parents=True, exist_ok=True)
        found = gather(runs, probes, args.data)
        page = build(found, args.images)
        write_whole(out, page)
        print(f"{shown(out)}: {len(page.encode()) / 1e6:.1f} MB")
        if args.figures:
            from simfle_jax.reporting.figures import write_figures

            for file in write_figures(found, held.enter_context(delivered(args.figures)), args.images):
                print(shown(file))
