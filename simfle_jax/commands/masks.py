"""What each group of a run's channels keeps of any image, as one picture: the mask atlas.

    python -m simfle_jax.masks FACES --encoder RUN --out masks.png
    python -m simfle_jax.masks face.jpg --encoder RUN OTHER --out masks.png     # two runs side by side

A row for each image, a column for each group; the patches that the group would hide are dark. RUN is the folder of a
run with its checkpoints: the groups are not in encoder.safetensors. Images must be cropped to the face. All may lie in
buckets, gs:// and s3://.
"""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from simfle_jax.commands.ending import ended
from simfle_jax.errors import UserError
from simfle_jax.storage import place

MOST = 16  # images of one picture
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.masks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help=f"files or folders; at most {MOST} are shown")
    parser.add_argument("--encoder", nargs="+", type=place, required=True, metavar="RUN", help="folders of runs")
    parser.add_argument("--step", type=int, help="of an older checkpoint, where the run keeps it")
    parser.add_argument("--out", type=place, required=True, metavar="FILE", help="the picture, ending in .png or .jpg")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    ended(lambda: masks(args.images, args.encoder, args.out, args.step))


def masks(images: list[str], runs: Sequence[str | Path], out: str | Path, step: int | None = None) -> None:
    """Writes the picture; raises UserError."""
    from simfle_jax.runs.at_hand import ALL, borrowed, delivered

    if not str(out).lower().endswith(ENDINGS):
        raise UserError(f"--out {out} must end in {' or '.join(ENDINGS)}")
    with contextlib.ExitStack() as held:
        copied = 1 if step is None else ALL
        folders = [held.enter_context(borrowed(str(run), copied)) for run in runs]
        shown = _masks(images, folders, held.enter_context(delivered(str(out))), step)
    print(f"{out}: {shown} images, {len(runs)} runs")


def _masks(images: list[str], runs: list[Path], out: Path, step: int | None) -> int:
    """Writes the picture and tells how many images it shows."""
    from simfle_jax import compilation
    from simfle_jax.data.image_list import ImageList
    from simfle_jax.evaluation.looking import look
    from simfle_jax.reporting import atlas
    from simfle_jax.reporting.images import sample, spread_rows
    from simfle_jax.reporting.read import names_of
    from simfle_jax.training.restore import run_state
    from simfle_jax.writing import writing_output

    compilation.use_cache()
    source = ImageList(images)
    blocks = []
    for folder in runs:
        config, state = run_state(folder, step)
        chosen = sample(source, spread_rows(len(source), MOST), config.canvas)
        found = look(config, state, chosen.images)
        if found is None:
            raise UserError(f"{folder} is a run of {config.method}, which has no masks")
        blocks.append(atlas.mask_atlas(found))
    with writing_output(out) as temporary:
        atlas.beside(blocks, names_of(runs)).save(temporary)
    return len(chosen.images)
