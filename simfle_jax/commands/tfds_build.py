"""Builds a TensorFlow Datasets data set from a folder of images; TensorFlow is not needed.

    python -m simfle_jax.tfds_build --folder FACES --data-dir DIR
    python train.py --config=configs/simfle.py --config.data.source=tfds:simfle_folder --config.data.path=DIR --workdir=RUN

FACES holds train/CLASS/IMAGE and val/CLASS/IMAGE; with --config unlabelled it is any folder of images. What is built
already stays as it is.
"""

import argparse
import os

from simfle_jax.commands.ending import ended
from simfle_jax.errors import UserError
from simfle_jax.storage import on_disk


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.tfds_build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--folder", type=on_disk, required=True, help="train/CLASS and val/CLASS, or any folder for unlabelled"
    )
    parser.add_argument("--data-dir", help="where TFDS keeps its data sets (~/tensorflow_datasets)")
    parser.add_argument("--config", choices=("labelled", "unlabelled"), default="labelled")
    options = parser.parse_args(argv)
    ended(lambda: _build(options))


def _build(options: argparse.Namespace) -> None:
    if not os.path.isdir(options.folder):
        raise UserError(f"no folder {options.folder}: give --folder an existing folder of images")
    from simfle_jax.data.tfds_builders import build  # takes a second, and --help need not wait for it

    builder = build(str(options.folder), options.data_dir, options.config)
    where = f" --config.data.path={options.data_dir}" if options.data_dir else ""
    for name, split in builder.info.splits.items():
        print(f"{split.num_examples:,} images: --config.data.source=tfds:{builder.name}/{options.config}:{name}{where}")
