"""Features of images, from a frozen encoder, as one file.

    python -m simfle_jax.embed FACES --encoder RUN --out features.npz
    python -m simfle_jax.embed a.jpg b.png --encoder RUN/encoder.safetensors --out features.parquet

features.npz holds `features` float32 [n, D] and `names` [n]; the parquet file has the columns `name` and `feature`.
Images that cannot be read are left out and listed in OUT.bad.txt. The shorter side of an image is resized to the
encoder's size and the centre cut out.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from simfle_jax.errors import UserError


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.embed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, or folders that are searched for images")
    parser.add_argument("--encoder", required=True, help="folder of a run, safetensors, or a published checkpoint")
    parser.add_argument("--branch", choices=("online", "target"), default="online", help="(default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ending in .npz or .parquet")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    try:
        embed(args.images, args.encoder, args.branch, args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def embed(images: list[str], encoder: str, branch: str, out: Path) -> None:
    """Writes the features of all readable images to `out`; raises UserError."""
    if out.suffix not in (".npz", ".parquet"):
        raise UserError(f"--out {out} must end in .npz or .parquet")
    if out.exists():
        raise UserError(f"--out {out} exists already: give another name, or remove it first")
    from simfle_jax import compilation
    from simfle_jax.data.image_list import ImageList
    from simfle_jax.evaluation.features import Extractor
    from simfle_jax.weights.encoder import load_encoder

    compilation.use_cache()
    source = ImageList(images)
    extractor = Extractor(load_encoder(encoder, branch))
    began = time.monotonic()
    found = extractor.plain(source, "images")
    seconds = time.monotonic() - began
    names = [source.names[number] for number in np.asarray(found.labels)]
    _write(out, np.asarray(found.features), names)
    print(f"{len(names)} images, {len(names) / seconds:.1f} images/s: {out}")
    _list_bad(out, {name.removeprefix("images/"): reason for name, reason in extractor.bad.items()})


def _write(out: Path, features: np.ndarray, names: list[str]) -> None:
    from simfle_jax.weights.files import replacing

    with replacing(out) as temporary:
        if out.suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, features=features, names=np.array(names))
        else:
            _write_parquet(temporary, features, names)


def _write_parquet(path: Path, features: np.ndarray, names: list[str]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            "a parquet file needs pyarrow: pip install -c requirements.txt -e '.[parquet]', or give --out FILE.npz"
        ) from None
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
    told = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]  # a column must be UTF-8
    pq.write_table(pa.table({"name": told, "feature": column}), path)


def _list_bad(out: Path, bad: dict[str, str]) -> None:
    from simfle_jax.data.bad_list import write_bad_list

    path = out.with_name(out.name + ".bad.txt")
    write_bad_list(path, bad)
    if not bad:
        return
    print(f"{len(bad)} images could not be read and were left out: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
