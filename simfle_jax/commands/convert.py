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
import ast
import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simfle_jax.commands.ending import ended
from simfle_jax.commands.presets import load_config
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
    if args.with_preprocessing and suffix != ".onnx":
        raise UserError(f"--with-preprocessing is for ONNX files, and {args.target} does not end in .onnx")
    states = suffix in TORCH or args.branch == "target"  # what is made of a run's checkpoint
    with contextlib.ExitStack() as held:
        source = held.enter_context(borrowed(args.source, checkpoints=int(states)))
        probes = [held.enter_context(borrowed(probe)) for probe in args.probe]
        target = held.enter_context(delivered(args.target, new=True) if suffix else opened(args.target))
        here = vars(args) | {"source": source, "target": target, "probe": probes}
        return named(_convert(argparse.Namespace(**here)))


def _convert(args: argparse.Namespace) -> str:
    """The same of paths on this machine."""
    source = args.source
    if not source.exists():
        raise UserError(f"no file or folder {source}")
    if args.target.is_file():
        raise UserError(f"{args.target} exists already: give another name, or remove it first")
    from simfle_jax import compilation

    compilation.require_device()
    if (source / "probe.safetensors").is_file():
        return from_classifier(args)
    if source.is_dir():
        return from_run(args)
    if args.target.suffix in (*TORCH, ".md"):
        raise UserError(
            f"{args.target} is made from the folder of a run{' or a probe' if args.target.suffix != '.md' else ''}, and {source} is a file"
        )
    return from_file(args)


def from_run(args: argparse.Namespace) -> str:
    """A run's folder to a published checkpoint, a trunk, a model card or the folder that hubs know."""
    if args.target.suffix == ".md":
        return _write_card(args)
    if args.target.suffix in TORCH:
        return _export_run(args)
    return _export_trunk(args) if args.target.suffix else _write_hub_folder(args)


def from_file(args: argparse.Namespace) -> str:
    """A file to a trunk, to a run, or to a probe."""
    if args.target.suffix in (".safetensors", ".onnx"):
        return _export_trunk(args)
    if args.target.suffix:
        raise UserError(
            f"{args.target}: know how to write .pth.tar .pth .safetensors .onnx .md or a folder without a dot"
        )
    from simfle_jax.weights.files import read_arrays
    from simfle_jax.weights.trunk import is_published

    return _import_run(args) if is_published(read_arrays(args.source)[0]) else _import_classifier(args)


# -------------------------------------------------------------------- whole training states


def _import_run(args: argparse.Namespace) -> str:
    """A published checkpoint to the folder of a run."""
    from simfle_jax.runs import folder as folders
    from simfle_jax.runs.bucket_checkpoints import open_checkpoints
    from simfle_jax.training import published
    from simfle_jax.training.fitting import with_canvas
    from simfle_jax.training.loop import crop
    from simfle_jax.training.restore import identity, upgraded_identity
    from simfle_jax.training.state import trunk_of
    from simfle_jax.weights.encoder_file import export_encoder

    if args.target.exists() and any(args.target.iterdir()):
        raise UserError(f"{args.target} holds something already: give a new folder")
    config = run_settings(args.config, args.set, args.data)
    published.check_published(config)
    source = _data_of(config)
    steps, fingerprint = len(source) // config.batch_size, source.fingerprint
    config = with_canvas(config, source, args.target)
    found = published.read_published(args.source)
    state = published.to_state(found, config, steps, args.source)
    folder = folders.claim(args.target, identity(config, fingerprint), upgraded_identity)
    with open_checkpoints(folder, config.keep_checkpoints) as checkpoints:
        checkpoints.save(state, wait=True)
    facts = {"step": str(int(state.step)), "data_fingerprint": fingerprint, "crop": crop(config)}
    facts["converted_from"] = args.source.name
    export_encoder(folder / "encoder.safetensors", trunk_of(state), config, facts)
    buffers = "with its momentum" if found.optimizer else "without momentum buffers: there were none"
    return f"{folder}: goes on at epoch {found.epoch}, step {int(state.step)}, {buffers}"


def run_settings(file: str, changes: list[str], data: str) -> Any:
    """The checked settings in a config file with KEY=VALUE changes, and `data` as their images."""
    from simfle_jax.config import pretraining, today

    settings = load_config(file)
    settings.data.path = data or settings.data.path
    for change in changes:
        key, _, text = today(f"--config.{change}").removeprefix("--config.").partition("=")
        try:
            settings.update_from_flattened_dict({key: _value(text)})
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"--set {change}: {' '.join(str(error).split())[:200]}") from None
    return pretraining(settings)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _data_of(config: Any) -> Any:
    """A run's images; raises UserError."""
    from simfle_jax.training.loop import open_data

    if not (config.data.path or config.data.sources or config.data.source.startswith("tfds:")):
        raise UserError("give --data DIR, the images of the run: they give the steps of an epoch")
    return open_data(config)[0]


def _export_run(args: argparse.Namespace) -> str:
    """The newest checkpoint of a run to a published checkpoint."""
    from simfle_jax.training import published, restore
    from simfle_jax.weights.encoder_file import describe

    published.check_published(restore.run_config(args.source))
    config, state = restore.run_state(args.source)
    data = dataclasses.replace(config.data, path=args.data or config.data.path)
    source = _data_of(dataclasses.replace(config, data=data))
    steps, fingerprint = len(source) // config.batch_size, source.fingerprint
    facts, step = restore.recorded_facts(args.source, state), int(state.step)
    if facts["data_fingerprint"] not in ("unknown", fingerprint):
        raise UserError(
            f"the images in {data.path} are not those that {args.source} was trained on: give theirs by --data"
        )
    published.write_published(args.target, state, config, steps, describe(config) | facts)
    inside = (
        f"; {step % steps} steps of epoch {step // steps} are done, the published program repeats them"
        if step % steps
        else ""
    )
    lost = "" if config.optimizer.name == "sgd" else "; Adam's state has no place there"
    return f"{args.target}: epoch {step // steps}, step {step}{inside}{lost}"


# -------------------------------------------------------------------- trunks and classifiers


def _export_trunk(args: argparse.Namespace) -> str:
    from simfle_jax.encoder import load_encoder
    from simfle_jax.weights.files import write_safetensors

    encoder = load_encoder(args.source, args.branch, prefix=args.prefix)
    if args.target.suffix == ".onnx":
        return _onnx(args, encoder, encoder.torch_arrays(), encoder.metadata, encoder.apply, encoder.features)
    if args.target.suffix != ".safetensors":
        raise UserError(f"{args.target} must end in .pth.tar, .pth, .safetensors, .onnx or .md, or be a new folder")
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


def from_classifier(args: argparse.Namespace) -> str:
    """A probe's folder to one file with trunk and fc, or to the folder that hubs know."""
    if not args.target.suffix:
        return _write_hub_folder(args)
    from simfle_jax.evaluation import records
    from simfle_jax.evaluation.classifier import load_classifier, save_file

    classifier = load_classifier(args.source, args.encoder)
    if args.target.suffix == ".onnx":
        facts = classifier.torch_arrays(), classifier.metadata(), classifier.logits, classifier.probabilities
        return _onnx(args, classifier.encoder, *facts)
    if args.target.suffix not in (*TORCH, ".safetensors"):
        raise UserError(f"{args.target} must end in .pth.tar, .pth, .safetensors or .onnx")
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
