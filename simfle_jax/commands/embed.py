"""Features of images, from a frozen encoder, as one file.

    python -m simfle_jax.embed FACES --encoder RUN --out features.npz
    python -m simfle_jax.embed a.jpg b.png --encoder RUN/encoder.safetensors --out features.parquet
    python -m simfle_jax.embed PHOTOGRAPHS --encoder RUN --out features.npz --align

features.npz holds `features` float32 [n, D] and `names` [n]; the parquet file has the columns `name` and `feature`;
features.npy holds the features alone, for numpy.load(..., mmap_mode="r"), beside features.names.npy with the names.
Images that cannot be read are left out and listed in OUT.bad.txt. Images must be cropped to the face as those of the
pre-training were. The shorter side of an image is resized to the encoder's size and the centre cut out. With --align faces
are looked for, and each is one row, named by photograph and box: `party.jpg#xywh=10,20,30,40`. Photographs without a face
are listed too.

Features go to the folder OUT.partial as they come, so memory does not grow with the images. The same command goes on
from there after an interruption; at the end they are written to OUT, and the folder is removed.
"""

import argparse
import sys
import time
from pathlib import Path

from simfle_jax.commands.aligning import add_align, asked_for, warn_of_crop
from simfle_jax.commands.ending import ended
from simfle_jax.errors import UserError
from simfle_jax.storage import place


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.embed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="files, folders that are searched for images, or packs in a bucket"
    )
    parser.add_argument("--encoder", required=True, help="folder of a run, safetensors, or a published checkpoint")
    parser.add_argument("--branch", choices=("online", "target"), default="online", help="(default %(default)s)")
    parser.add_argument(
        "--prefix", default="", help="which trunk of a file that holds several, e.g. module.base_encoder"
    )
    parser.add_argument("--out", type=place, required=True, metavar="FILE", help="ending in .npz, .parquet or .npy")
    add_align(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    ended(lambda: _embed_to(args))


def _embed_to(args: argparse.Namespace) -> None:
    from simfle_jax.runs.at_hand import delivered
    from simfle_jax.storage import is_bucket

    with delivered(args.out, new=True, kept=repr(vars(args))) as out:
        if not (is_bucket(args.out) and out.exists()):  # there it is whole, and was not copied
            embed(args.images, args.encoder, args.branch, out, args.prefix, align=args.align, detector=args.detector)
    if is_bucket(args.out):
        print(f"copied to {args.out}")


def embed(
    images: list[str], encoder: str, branch: str, out: Path, prefix: str = "", align: bool = False, detector: str = ""
) -> None:
    """Writes the features of all readable images to `out`, or goes on with it; raises UserError.

    align: the features of the faces in them. detector: where its file is.
    """
    from simfle_jax import compilation
    from simfle_jax.data.image_list import ImageList
    from simfle_jax.encoder import load_encoder
    from simfle_jax.evaluation.feature_file import ENDINGS, FeatureFile, import_parquet, require_new
    from simfle_jax.evaluation.features import Extractor, check_readable
    from simfle_jax.runs.mirror import shown

    if out.suffix not in ENDINGS:
        raise UserError(f"--out {out} must end in {' or '.join(ENDINGS)}")
    require_new(out)
    if out.suffix == ".parquet":
        import_parquet()  # its absence is told before the work and not after
    compilation.use_cache()
    photographs = ImageList(images)
    extractor = Extractor(load_encoder(encoder, branch, prefix=prefix))
    source, without = asked_for(photographs, align, detector)
    warn_of_crop(extractor.encoder.metadata, None if align else images)
    identity = {"encoder": extractor.encoder.hash, "images": source.fingerprint}
    with FeatureFile(out, source.names, extractor.encoder.dim, identity) as file:
        before, began = file.done, time.monotonic()
        if before:
            print(f"goes on from image {before} of {len(source)}", file=sys.stderr)
        for features, rows, bad, done in extractor.stream(source, before):
            file.append(features, rows, bad, done)
        seconds = time.monotonic() - began
        check_readable(source, file.bad)
        file.finish()
    print(f"{file.count} images, {(file.done - before) / seconds:.1f} images/s: {shown(out)}")
    _list_bad(out, without | {source.name(number): reason for number, reason in file.bad.items()})


def _list_bad(out: Path, bad: dict[str, str]) -> None:
    from simfle_jax.data.bad_list import write_bad_list
    from simfle_jax.data.photographs import NO_FACE
    from simfle_jax.runs.mirror import shown

    path = out.with_name(out.name + ".bad.txt")
    write_bad_list(path, bad)
    if not bad:
        return
    faceless = sum(reason == NO_FACE for reason in bad.values())
    for count, what in ((len(bad) - faceless, "images could not be read"), (faceless, "photographs have no face")):
        if count:
            print(f"{count} {what} and were left out: {shown(path)}", file=sys.stderr)
