"""Weights from one program to another. What to do is told by SOURCE and by how TARGET ends.

A published checkpoint becomes a run that train.py continues and probe.py probes:

    python -m simfle_jax.convert checkpoint_0003.pth.tar RUN --data FACES
    python train.py --config=configs/simfle_reference.py --config.data.path=FACES --workdir=RUN

A run becomes a checkpoint for the published program, its trunk alone under torchvision's or timm's names, the same as ONNX, or a
model card:

    python -m simfle_jax.convert RUN checkpoint.pth.tar
    python -m simfle_jax.convert RUN encoder.safetensors --branch target
    python -m simfle_jax.convert RUN encoder.onnx
    python -m simfle_jax.convert RUN encoder.onnx --with-preprocessing
    python -m simfle_jax.convert RUN MODEL_CARD.md --probe PROBE

A run, and a trained probe, become the folder that model hubs know (`python -m simfle_jax.push` uploads one):

    python -m simfle_jax.convert RUN DIR --probe PROBE

A trained probe becomes a whole classifier (torchvision's resnet50 with fc, timm's ViT with head), and such a file a probe again:

    python -m simfle_jax.convert PROBE model_best.pth.tar
    python -m simfle_jax.convert PROBE classifier.safetensors
    python -m simfle_jax.convert PROBE classifier.onnx
    python -m simfle_jax.convert model_best.pth.tar PROBE --classes anger disgust fear happiness neutral sadness surprise
    python probe.py --config=configs/probe.py --config.encoder=PROBE --config.data.path=DIR --workdir=PROBE --config.eval_only=True

Any file with a trunk, published checkpoints included, also becomes a safetensors file:

    python -m simfle_jax.convert checkpoint_0099.pth.tar encoder.safetensors
    python -m simfle_jax.convert moco_v3.pth.tar encoder.safetensors --prefix state_dict.module.base_encoder

SOURCE, TARGET and probes may lie in buckets, gs:// and s3://. Torch files need PyTorch (extra `torch`), ONNX files also extra `onnx`. Files are read without running code in them.
"""

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from simfle_jax.commands.convert_run import export_run, import_run
from simfle_jax.commands.ending import ended
from simfle_jax.errors import UserError
from simfle_jax.storage import place

TORCH = (".pth", ".pt", ".tar")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simfle_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=place, metavar="SOURCE", help="folder of a run or a probe, or a file")
    parser.add_argument("target", type=place, metavar="TARGET", help="a file that is made, or a new folder")
    parser.add_argument(
        "--branch", choices=("online", "target"), default="online", help="whose trunk (default %(default)s)"
    )
    parser.add_argument(
        "--data", default="", metavar="DIR", help="the images of the run: they give the steps of an epoch"
    )
    parser.add_argument(
        "--config", default="simfle_reference", metavar="FILE",
        help="settings of the run that a published checkpoint becomes (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="change these settings, e.g. epochs=50 trunk.width=32"
    )
    parser.add_argument(
        "--prefix", default="", help="which trunk of a file that holds several, e.g. module.base_encoder"
    )
    parser.add_argument("--encoder", default="", help="where the encoder of a probe is now, when it was moved")
    parser.add_argument("--classes", nargs="+", default=[], help="names in order, for a file that does not tell them")
    parser.add_argument(
        "--with-preprocessing", action="store_true",
        help="an ONNX file that takes uint8 images of any size, and gives probabilities where there are classes",
    )  # fmt: skip
    parser.add_argument("--probe", nargs="+", default=[], type=place, metavar="PROBE", help="probes for the model card")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    args = make_parser().parse_args(argv)
    ended(lambda: print(convert(args)))


def convert(args: argparse.Namespace) -> str:
    """Does what the arguments ask for and says in a line what was written; raises UserError."""
    from simfle_jax.runs.at_hand import borrowed, delivered
    from simfle_jax.runs.mirror import named, opened

    suffix = Path(args.target).suffix
    states = suffix in TORCH or args.branch == "target"  # what is made of a run's checkpoint
    with contextlib.ExitStack() as held:
        source = held.enter_context(borrowed(args.source, checkpoints=int(states)))
        probes = [held.enter_context(borrowed(probe)) for probe in args.probe]
        target = held.enter_context(delivered(args.target, new=True) if suffix else opened(args.target))
        here = vars(args) | {"source": source, "target": target, "probe": probes}
        return named(_convert(argparse.Namespace(**here)))


def _convert(args: argparse.Namespace) -> str:
    """The same of paths on this machine."""
    if not args.source.exists():
        raise UserError(f"no file or folder {args.source}")
    if args.target.is_file():
        raise UserError(f"{args.target} exists already: give another name, or remove it first")
    from simfle_jax import compilation

    compilation.require_device()
    kind = kind_of(args.source, args.target)
    refuse_unused(args, kind)
    return kind.make(args)


class Kind(NamedTuple):
    """What is made, what makes it, and which options say something to it."""

    what: str
    make: Callable[[argparse.Namespace], str]
    options: tuple[str, ...]


def kind_of(source: Path, target: Path) -> Kind:
    """What becomes of SOURCE, told by what it is and by how TARGET ends; raises UserError."""
    if (source / "probe.safetensors").is_file():
        kinds, otherwise = _of_probe(), f"{target} must end in .pth.tar, .pth, .safetensors or .onnx"
    elif source.is_dir():
        kinds = _of_run()
        otherwise = f"{target} must end in .pth.tar, .pth, .safetensors, .onnx or .md, or be a new folder"
    elif target.suffix in (*TORCH, ".md"):
        owner = "a run" if target.suffix == ".md" else "a run or a probe"
        raise UserError(f"{target} is made from the folder of {owner}, and {source} is a file")
    else:
        kinds = _of_file(source) if not target.suffix else _of_trunk("prefix", "branch")
        otherwise = f"{target}: know how to write .pth.tar .pth .safetensors .onnx .md or a folder without a dot"
    suffix = ".pth" if target.suffix in TORCH else target.suffix
    if suffix not in kinds:
        raise UserError(otherwise)
    return kinds[suffix]


def refuse_unused(args: argparse.Namespace, kind: Kind) -> None:
    """Raises UserError where an option was given that says nothing here: its user meant something else."""
    parser = make_parser()
    for name, value in vars(args).items():
        if name not in ("source", "target", *kind.options) and value != parser.get_default(name):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} says nothing where {args.target} becomes {kind.what}: leave it out")


def _of_probe() -> dict[str, Kind]:
    """What a probe's folder becomes, by the target's ending."""
    return {
        "": Kind("the hub's folder of a classifier", _write_hub_folder, ("encoder", "probe")),
        ".pth": Kind("a classifier", _export_classifier, ("encoder",)),
        ".safetensors": Kind("a classifier", _export_classifier, ("encoder",)),
        ".onnx": Kind("an ONNX classifier", _export_classifier, ("encoder", "with_preprocessing")),
    }


def _of_run() -> dict[str, Kind]:
    return _of_trunk("branch") | {
        "": Kind("the hub's folder of a trunk", _write_hub_folder, ("branch", "probe")),
        ".pth": Kind("a published checkpoint", export_run, ("data",)),
        ".md": Kind("a model card", _write_card, ("branch", "probe")),
    }


def _of_trunk(*options: str) -> dict[str, Kind]:
    return {
        ".safetensors": Kind("a file with a trunk", _export_trunk, options),
        ".onnx": Kind("an ONNX trunk", _export_trunk, (*options, "with_preprocessing")),
    }


def _of_file(source: Path) -> dict[str, Kind]:
    from simfle_jax.weights.files import read_arrays
    from simfle_jax.weights.trunk import is_published

    if is_published(read_arrays(source)[0]):
        return {"": Kind("a run", import_run, ("data", "config", "set"))}
    return {"": Kind("a probe", _import_classifier, ("classes", "prefix"))}


def _export_trunk(args: argparse.Namespace) -> str:
    from simfle_jax.encoder import load_encoder
    from simfle_jax.weights.files import write_safetensors

    encoder = load_encoder(args.source, args.branch, prefix=args.prefix)
    if args.target.suffix == ".onnx":
        return _onnx(args, encoder, encoder.torch_arrays(), encoder.metadata, encoder.apply, encoder.features)
    write_safetensors(args.target, encoder.torch_arrays(), encoder.metadata)
    return f"{args.target}: {encoder.metadata['branch']} trunk, {encoder.dim} features"


def _onnx(
    args: argparse.Namespace, encoder: Any, arrays: dict[str, Any], metadata: dict[str, str], ours: Callable,
    of_images: Callable,
) -> str:  # fmt: skip
    """ours: of normalised images; of_images: of uint8 images that are decoded."""
    import numpy as np

    from simfle_jax.data.decode import decode
    from simfle_jax.weights.onnx_export import export_onnx, export_with_preprocessing

    if args.with_preprocessing:
        canvas = int(metadata.get("canvas", 0)) or encoder.size
        error = export_with_preprocessing(
            args.target, arrays, encoder.trunk, metadata, canvas,
            lambda images: of_images(np.stack([decode(image, canvas) for image in images])),
        )  # fmt: skip
    else:
        error = export_onnx(args.target, arrays, encoder.trunk, metadata, lambda images: np.asarray(ours(images)))
    return f"{args.target}: ONNX Runtime agrees within {error:.1e} of the largest output"


def _export_classifier(args: argparse.Namespace) -> str:
    """A probe's folder to one file with trunk and fc."""
    from simfle_jax.evaluation import records
    from simfle_jax.evaluation.classifier import load_classifier, save_file

    classifier = load_classifier(args.source, args.encoder)
    if args.target.suffix == ".onnx":
        facts = classifier.torch_arrays(), classifier.metadata(), classifier.logits, classifier.probabilities
        return _onnx(args, classifier.encoder, *facts)
    results = records.read_results(args.source) or {}
    save_file(
        args.target, classifier, {"epoch": results.get("best_epoch", 0), "best_acc1": 100 * results.get("accuracy", 0)}
    )
    return f"{args.target}: classifier of {', '.join(classifier.classes)}"


def _import_classifier(args: argparse.Namespace) -> str:
    """A file with trunk and fc to a probe's folder."""
    from simfle_jax.evaluation.classifier import load_classifier, save_folder

    if args.target.exists() and any(args.target.iterdir()):
        raise UserError(f"{args.target} holds something already: give a new folder")
    classifier = load_classifier(args.source, classes=tuple(args.classes), prefix=args.prefix)
    save_folder(args.target, classifier)
    return f"{args.target}: probe and encoder, classes {', '.join(classifier.classes)}"


def _write_card(args: argparse.Namespace) -> str:
    from simfle_jax.encoder import load_encoder
    from simfle_jax.evaluation.hub_folder import card_facts
    from simfle_jax.weights.card import model_card
    from simfle_jax.writing import writing_output

    encoder = load_encoder(args.source, args.branch)
    config, probes = card_facts(args.source, encoder, args.probe)
    text = model_card(
        {"data_fingerprint": (config or {}).get("data_fingerprint", "unknown")} | encoder.metadata, config, probes
    )
    with writing_output(args.target) as temporary:
        temporary.write_text(text)
    return f"{args.target}: model card, {len(probes)} probes"


def _write_hub_folder(args: argparse.Namespace) -> str:
    from simfle_jax.evaluation.hub_folder import write_hub_folder

    return write_hub_folder(args.source, args.target, args.branch, args.probe, args.encoder)
