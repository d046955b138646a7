"""Files that a program wrote and another one reads back: whatever became of them meanwhile ends in one line."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from simfle_jax.errors import UserError


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds; raises ValueError for anything that is none, however deep it is nested."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def read_npz(path: str | os.PathLike[str], names: tuple[str, ...], remedy: str) -> list[np.ndarray]:
    """The arrays of these names of an .npz file.

    Raises:
        UserError: it cannot be read, is damaged, or lacks one of them; the message ends in `remedy`.
    """
    try:
        with open(path, "rb") as opened, np.load(opened) as file:  # of a damaged one it leaves its own open
            found = [file[name] for name in names]
        if not all(isinstance(array, np.ndarray) for array in found):
            raise ValueError("it holds something else than arrays")
        return found
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
    except Exception as error:  # zipfile, zlib and numpy raise nearly anything on damaged files
        problem = f"is damaged ({one_line(error)})"
    raise UserError(f"{Path(path)} {problem}: {remedy}")


def one_line(error: BaseException) -> str:
    """What an error says, short enough for a part of a line; never empty."""
    return " ".join(str(error).split())[:160] or type(error).__name__
