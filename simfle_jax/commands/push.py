"""Uploads an encoder, or a whole classifier, to a model hub, with its card.

    python -m simfle_jax.push RUN OWNER/NAME --probe PROBE
    python -m simfle_jax.push PROBE OWNER/NAME --private

SOURCE becomes config.json, model.safetensors, preprocessor_config.json and README.md, as by `convert SOURCE DIR`; a folder
that `convert` wrote is uploaded as it is, with what you changed on its card. They may lie in buckets, gs:// and s3://. Needs extra `hub` and a token: `hf auth login`,
or HF_TOKEN. The repository is made where there is none. Read it back by load_encoder("hf://OWNER/NAME").
"""

import argparse
import contextlib
import tempfile
from pathlib import Path

from simfle_jax.commands.ending import ended
from simfle_jax.errors import UserError
from simfle_jax.storage import place


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=place, metavar="SOURCE", help="a run, a probe, a file, or a folder of convert")
    parser.add_argument("repository", metavar="OWNER/NAME", help="where to")
    parser.add_argument("--revision", default="", help="a branch; made where there is none (default: the main one)")
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument(
        "--branch", choices=("online", "target"), default="online", help="whose trunk (default %(default)s)"
    )
    parser.add_argument("--encoder", default="", help="where the encoder of a probe is now, when it was moved")
    parser.add_argument("--probe", nargs="+", default=[], type=place, metavar="PROBE", help="probes for the model card")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    ended(lambda: print(push(args)))


def push(args: argparse.Namespace) -> str:
    """Writes the folder, uploads it, and says where it is; raises UserError."""
    from simfle_jax.runs.at_hand import borrowed

    with contextlib.ExitStack() as held:
        source = held.enter_context(borrowed(args.source, checkpoints=int(args.branch == "target")))
        probes = [held.enter_context(borrowed(probe)) for probe in args.probe]
        return _push(argparse.Namespace(**vars(args) | {"source": source, "probe": probes}))


def _push(args: argparse.Namespace) -> str:
    """The same of paths on this machine."""
    from simfle_jax.weights import hub
    from simfle_jax.weights.hub import WEIGHTS

    if not args.source.exists():
        raise UserError(f"no file or folder {args.source}")
    if args.repository.count("/") != 1:
        raise UserError(f"{args.repository} is no name of a repository: give OWNER/NAME")
    if (args.source / WEIGHTS).is_file():
        if args.probe or args.encoder or args.branch != "online":
            raise UserError(
                f"{args.source} is uploaded as it is: leave --probe, --encoder and --branch out, or give them to convert, which wrote it"
            )
        return f"pushed: {hub.push(args.source, args.repository, args.private, args.revision)}"
    is_probe = (args.source / "probe.safetensors").is_file()
    if is_probe and args.branch != "online":
        raise UserError(f"--branch is of a run, and {args.source} is none: leave it out")
    if args.encoder and not is_probe:
        raise UserError(f"--encoder is of a probe, and {args.source} is none: leave it out")
    from simfle_jax.evaluation.hub_folder import write_hub_folder

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        said = write_hub_folder(args.source, folder, args.branch, args.probe, args.encoder)
        address = hub.push(folder, args.repository, args.private, args.revision)
    return f"pushed: {address}: {said.partition(': ')[2]}"
