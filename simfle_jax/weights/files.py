"""Reading named arrays from safetensors and PyTorch files, and saying what is wrong with them."""

import argparse
import collections
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from simfle_jax.data.read_back import one_line
from simfle_jax.errors import UserError, lacks
from simfle_jax.weights.torch_names import Entry, torch_shape
from simfle_jax.writing import writing_output

KINDS = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}  # of safetensors
AS_FLOAT = "save the arrays as plain float32 first"
NESTED = 8  # dicts in dicts that are searched; a file may hold one that holds itself


class Weights(NamedTuple):
    """A file's arrays by their full names, its metadata (empty for other programs' files), and all that it holds."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]
    content: Any  # of a torch file; {} otherwise


def read_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a file, as `read_weights` gives them."""
    return read_weights(path)[:2]


def read_weights(path: str | Path) -> Weights:
    """Reads a safetensors or a torch file; what it is is seen from its content, whatever its name ends in.

    Names are those of the file; below dicts of a torch file they are joined with dots, `state_dict.conv1.weight`.
    Floating-point arrays become float32, whatever they are stored in.

    Raises:
        UserError: no such file, truncated, of another kind, or with arrays that are no plain arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: give a .safetensors, .pth or .pth.tar file")
    if _is_safetensors(path):
        return Weights(*_read_safetensors(path), {})
    content = _read_torch(path)
    facts = content if isinstance(content, dict) else {}
    metadata = facts.get("metadata")
    epoch = {"epoch": str(facts["epoch"])} if isinstance(facts.get("epoch"), int) else {}
    own = {k: v for k, v in metadata.items() if isinstance(v, str)} if isinstance(metadata, dict) else {}
    return Weights(_tensors(content, path), epoch | own, content)


def _is_safetensors(path: Path) -> bool:
    """Seen from the first bytes, or by the name where they tell nothing; refuses what a failed download leaves."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS and not the file itself: fetch it by git lfs pull")
    if head.lstrip().startswith(b"<"):
        raise UserError(f"{path} is a web page and not the file itself: its download went wrong, download it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return True
    return path.suffix == ".safetensors" and head[:4] != b"PK\3\4" and head[:1] != b"\x80"


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                if (kind := file.get_slice(name).get_dtype()) not in KINDS:
                    raise UserError(f"{path}: {name} is {kind}: {AS_FLOAT}")
            return {name: _single(file.get_tensor(name)) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None


def _read_torch(path: Path) -> Any:
    """What a torch file holds, read with weights_only=True so that no code in it can run; needs PyTorch."""
    torch = import_torch(f"reading {path}")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of what is old in PyTorch itself
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).partition("Unpickler error: ")[2].split())[:160]
        raise UserError(
            f"{path} holds more than arrays: refused, nothing in it was run; give a .safetensors, .pth or .pth.tar file"
            + (f" ({reason})" if reason else "")
        ) from None
    except Exception as error:  # on damaged files torch and pickle raise nearly anything
        if "TorchScript" in str(error):
            raise UserError(f"{path} is a TorchScript program: give a file of its state_dict()") from None
        raise UserError(f"{path} is not a whole PyTorch file: {one_line(error)}") from None


def _harmless() -> list[Any]:
    """Plain data that training programs leave beside the arrays, such as a best score: reading them runs nothing."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool")
    # The first name is numpy's before version 2.
    scalars = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    types = [getattr(np.dtypes, f"{name}DType") for name in names]
    return [*scalars, np.dtype, *types, collections.defaultdict, argparse.Namespace, dict, list, int]


def import_torch(what: str) -> Any:
    """PyTorch, or a UserError that says what needs it."""
    try:
        import torch
    except ImportError:
        raise lacks(what, "PyTorch", "torch") from None
    return torch


def write_torch(path: Path, content: dict[str, Any]) -> None:
    """Writes what may hold arrays at any depth as a torch file with tensors; whole or not at all."""
    torch = import_torch(f"writing {path}")

    def tensors_in(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensors_in(each) for key, each in value.items()}
        # A copy: PyTorch wants memory that it may write to.
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    with writing_output(path) as temporary:
        torch.save(tensors_in(content), temporary)


def _tensors(content: Any, path: Path) -> dict[str, np.ndarray]:
    """All tensors in dicts by name; UserError for one that is no plain array."""
    return {name: to_numpy(tensor, f"{path}: {name}") for name, tensor in _named(content, "", NESTED)}


def _named(content: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    # The buffers of optimizers stand under numbers, and so are left out.
    for key, value in content.items() if isinstance(content, dict) else ():
        if hasattr(value, "detach"):
            yield f"{prefix}{key}", value
        elif depth and isinstance(key, str):
            yield from _named(value, f"{prefix}{key}.", depth - 1)


def _kind_of(tensor: Any) -> str:
    """What a torch tensor is besides a plain array; '' for nothing."""
    if tensor.is_quantized or "float8" in str(tensor.dtype) or "float4" in str(tensor.dtype):
        return str(tensor.dtype)
    return "" if str(tensor.layout) == "torch.strided" else str(tensor.layout)


def to_numpy(tensor: Any, what: str) -> np.ndarray:
    """A torch tensor as an array, float32 for floating-point numbers; UserError for one that is no plain array."""
    if kind := _kind_of(tensor):
        raise UserError(f"{what} is {kind}: {AS_FLOAT}")
    try:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:  # e.g. tensors without values, or of complex bits
        raise UserError(f"{what} is no plain array ({one_line(error)}): {AS_FLOAT}") from None


def _single(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind in "biu" else array.astype(np.float32)


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes whole or not at all."""
    with writing_output(path) as temporary:
        save_arrays(temporary, arrays, metadata)


def save_arrays(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """A safetensors file that others may read as far as the umask lets them; raises OSError.

    The library's own way to a file keeps it from all but its owner, and tells a full disk as damaged content.
    """
    path.write_bytes(save(arrays, metadata=metadata))


def check_names(arrays: dict[str, np.ndarray], entries: list[Entry], where: str | Path) -> None:
    """Raises UserError naming the missing and the surplus names (five of each and the count)."""
    wanted = {entry.name for entry in entries if not entry.name.endswith("num_batches_tracked")}
    present = {name for name in arrays if not name.endswith("num_batches_tracked")}
    problems = [
        f"{len(names)} {what} ({_first(names)})"
        for what, names in (("missing", wanted - present), ("surplus", present - wanted))
        if names
    ]
    if problems:
        raise UserError(f"{where} holds another architecture{_guess(present)}: {' and '.join(problems)}")


def check_values(arrays: dict[str, np.ndarray], where: str | Path) -> None:
    """Raises UserError naming arrays whose numbers would make every feature NaN: not finite, or variances below 0."""
    checks = {
        "values that are not finite": {name for name, x in arrays.items() if not np.isfinite(x).all()},
        "negative variances": {name for name, x in arrays.items() if name.endswith("running_var") and (x < 0).any()},
    }
    for problem, names in checks.items():
        if names:
            raise UserError(f"{where} holds {problem} in {len(names)} arrays ({_first(names)}): the file is damaged "
                            "or its training diverged, take an earlier one")  # fmt: skip


def _first(names: set[str]) -> str:
    return f"{', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''}"


def check_shapes(
    arrays: dict[str, np.ndarray], entries: list[Entry], shapes: dict[str, Any], where: str | Path
) -> None:
    """Raises UserError naming the first arrays that have not the shape of our trees (`shapes`, or arrays) in torch's layout."""
    wrong = []
    for entry in entries:
        if entry.tree and arrays[entry.name].shape != (expected := torch_shape(entry, shapes)):
            wrong.append(f"{entry.name} is {arrays[entry.name].shape}, expected {expected}")
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise UserError(f"{where} holds {len(wrong)} arrays of other sizes: {'; '.join(wrong[:5])}{more}")


def _guess(names: set[str]) -> str:
    if any("attn.qkv" in name for name in names):
        return " (a Vision Transformer, it seems)"
    if "layer1.0.conv1.weight" in names and "layer1.0.conv3.weight" not in names:
        return " (a ResNet of basic blocks such as ResNet-18 or 34, it seems)"
    if "layer1.0.conv1.weight" in names:
        return " (another ResNet, it seems)"
    return ""
