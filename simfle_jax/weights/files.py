"""Reading named arrays from safetensors and PyTorch files, and saying what is wrong with them."""

import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from simfle_jax.errors import UserError
from simfle_jax.weights.torch_names import Entry, torch_shape


def read_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file by name, without `module.` prefixes, and its metadata (empty for other programs' files).

    Floating-point arrays become float32, whatever they are stored in.

    Raises:
        UserError: no such file, truncated, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: give a .safetensors, .pth or .pth.tar file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return torch_content(read_torch(path))


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: _single(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            return _without_prefix(arrays), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None


def read_torch(path: Path) -> Any:
    """What a torch file holds, read with weights_only=True so that no code in it can run; needs PyTorch."""
    torch = import_torch(f"reading {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).partition("Unpickler error: ")[2].split())[:160]
        raise UserError(
            f"{path} holds more than arrays: refused, nothing in it was run; give a .safetensors, .pth or .pth.tar file"
            + (f" ({reason})" if reason else "")
        ) from None
    except Exception as error:  # on damaged files torch and pickle raise nearly anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path} is not a whole PyTorch file: {reason}") from None


def import_torch(what: str) -> Any:
    """PyTorch, or a UserError that says what needs it."""
    try:
        import torch
    except ImportError:
        raise UserError(f"{what} needs PyTorch: pip install -c requirements.txt -e '.[torch]'") from None
    return torch


def write_torch(path: Path, content: dict[str, Any]) -> None:
    """Writes what may hold arrays at any depth as a torch file with tensors; whole or not at all."""
    torch = import_torch(f"writing {path}")

    def tensors_in(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensors_in(each) for key, each in value.items()}
        # A copy: PyTorch wants memory that it may write to.
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    with replacing(path) as temporary:
        torch.save(tensors_in(content), temporary)


def torch_content(content: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a torch file's content, and the metadata that our own files carry."""
    facts = content if isinstance(content, dict) else {}
    metadata = facts.get("metadata")
    epoch = {"epoch": str(facts["epoch"])} if isinstance(facts.get("epoch"), int) else {}
    return tensors(content), epoch | (metadata if isinstance(metadata, dict) else {})


def tensors(content: Any) -> dict[str, np.ndarray]:
    """The state dict inside a checkpoint, without `module.` prefixes, as numpy arrays."""
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    items = state.items() if isinstance(state, dict) else ()
    return _without_prefix({str(name): to_numpy(value) for name, value in items if hasattr(value, "detach")})


def to_numpy(tensor: Any) -> np.ndarray:
    """A torch tensor as an array, float32 when it holds floating-point numbers."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _single(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind in "biu" else array.astype(np.float32)


def _without_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without what DataParallel and DistributedDataParallel put before every name."""
    return {name.removeprefix("module."): array for name, array in arrays.items()}


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes whole or not at all."""
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata=metadata)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when all went well, and is removed otherwise.

    Raises:
        UserError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; give another place") from None
    finally:
        temporary.unlink(missing_ok=True)


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
