"""Config files, by their path or as a preset by name: `configs/simfle.py:resnet18`, or `simfle:resnet18` from anywhere."""

import difflib
import os
import re
import runpy
import sys
import types
from pathlib import Path
from typing import Any

from simfle_jax.errors import UserError

PACKAGE = Path(__file__).parents[1]
# In a wheel the presets lie inside of the package, in a checkout beside it.
FOLDER = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"


def load_config(text: str) -> Any:
    """The config of FILE or PRESET, or of FILE:VARIANT, which its `get_config` is then called with.

    Raises:
        UserError: there is none, or it cannot be run; names the nearest preset.
    """
    return _call(text, "get_config", FOLDER, "config")


def load_study(text: str) -> Any:
    """The study that `get_study` gives of a file or of a preset in configs/studies.

    Raises:
        UserError: there is none, or it cannot be run; names the nearest preset.
    """
    return _call(text, "get_study", FOLDER / "studies", "study")


def _call(text: str, function: str, folder: Path, what: str) -> Any:
    _make_importable()
    ends = [match.start() for match in re.finditer(":|$", text)]
    end = next((end for end in ends if os.path.isfile(text[:end])), ends[0])
    file, variant = text[:end], [text[end + 1 :]] * (end < len(text))
    preset = folder / f"{file}.py"
    try:
        return runpy.run_path(str(preset) if re.fullmatch(r"\w+", file) and preset.is_file() else file)[function](
            *variant
        )
    except (OSError, KeyError, SyntaxError, ImportError, NameError, AttributeError, TypeError, ValueError) as error:
        names = sorted(path.stem for path in folder.glob("[a-z]*.py"))
        near = difflib.get_close_matches(Path(file).stem, names, n=1)
        hint = f"did you mean {near[0]}?" if near and near[0] != Path(file).stem else f"presets are {', '.join(names)}"
        raise UserError(f"no {what} in {text}: {' '.join(str(error).split())[:200]}; {hint}") from None


def _make_importable() -> None:
    """Lets presets build on each other (`from configs import simfle`) wherever they lie."""
    if "configs" not in sys.modules:
        module = types.ModuleType("configs")
        module.__path__ = [str(FOLDER)]
        sys.modules["configs"] = module
