"""simfle: every command of SimFLE-JAX by its name.

simfle train --config=simfle --config.data.path=FACES --workdir=RUN
simfle probe --config=probe --config.encoder=RUN --config.data.path=DIR --workdir=PROBE
simfle COMMAND --help
simfle --version
"""

import importlib
import sys

from simfle_jax import __version__
from simfle_jax.commands.ending import ended

COMMANDS = {
    "train": "pre-train an encoder",
    "probe": "probe a frozen encoder",
    "compare": "two probes, image by image",
    "predict": "expressions of faces, by a trained probe",
    "embed": "features of images as one file",
    "video": "expressions over the time of a video",
    "report": "curves, masks, confusions and features on one page",
    "masks": "what each group of channels keeps of an image, as a picture",
    "prepare": "prepare, check or pack a data set",
    "convert": "weights in and out of PyTorch, ONNX, model cards",
    "push": "an encoder or a classifier to a model hub",
    "faces": "write a data set of generated faces",
    "demo": "the whole way in minutes on a CPU",
    "study": "settings x seeds x probes, one table with intervals",
    "plan": "compile a step for hardware that is not there",
    "tfds_build": "hand a folder to TensorFlow Datasets",
}


def main(argv: list[str] | None = None) -> None:
    """Runs the command that the first argument names; without one, or with --help, lists them."""
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        ended(lambda: print(f"simfle-jax {__version__}"))
        raise SystemExit
    if not argv or argv[0] in ("-h", "--help", "help"):
        ended(lambda: print(usage()))
        raise SystemExit(0 if argv else 2)
    name = argv[0].replace("-", "_")
    if name not in COMMANDS:
        print(f"error: there is no command {argv[0]}; give one of {', '.join(COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    sys.argv = [f"simfle {name}", *argv[1:]]
    importlib.import_module(f"simfle_jax.commands.{name}").main(argv[1:])


def usage() -> str:
    """What the commands are."""
    lines = [f"  {name:12s}{what}" for name, what in COMMANDS.items()]
    return "\n".join([(__doc__ or "").strip(), "", "Commands:", *lines])
