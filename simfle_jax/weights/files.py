"""Reading named arrays from safetensors and PyTorch files, and saying what is wrong with them."""

import contextlib
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from simfle_jax.errors import UserError
from simfle_jax.weights.torch_names import Entry


def read_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file by name, and its metadata (empty for the files of other programs).

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
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None


def read_torch(path: Path) -> Any:
    """What a torch file holds, read with weights_only=True so that no code in it can run; needs PyTorch."""
    torch = import_torch(f"reading {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} holds more than arrays and is refused, nothing in it was run: {reason}") from None
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a whole PyTorch file: {' '.join(str(error).split())[:160]}") from None


def import_torch(what: str) -> Any:
    """PyTorch, or a UserError that says what needs it."""
    try:
        import torch
    except ImportError:
        raise UserError(f"{what} needs PyTorch: pip install simfle-jax[torch]") from None
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
    return tensors(content), content.get("metadata", {}) if isinstance(content, dict) else {}


def tensors(content: Any) -> dict[str, np.ndarray]:
    """The state dict inside a checkpoint, without `module.` prefixes, as numpy arrays."""
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    arrays = {name: to_numpy(value) for name, value in state.items() if hasattr(value, "detach")}
    return {name.removeprefix("module."): array for name, array in arrays.items()}


def to_numpy(tensor: Any) -> np.ndarray:
    """A torch tensor as an array; half precision becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor).numpy()


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
        f"{len(names)} {what} ({', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''})"
        for what, names in (("missing", wanted - present), ("surplus", present - wanted))
        if names
    ]
    if problems:
        raise UserError(f"{where} holds another architecture{_guess(present)}: {' and '.join(problems)}")


def check_shapes(trees: dict[str, Any], expected: dict[str, Any], where: str | Path) -> None:
    """Raises UserError naming the first arrays whose shapes are not the expected ones."""
    import jax

    found = {name: dict(jax.tree_util.tree_flatten_with_path(tree)[0]) for name, tree in trees.items()}
    wrong = []
    for name, tree in expected.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            shape = np.shape(found[name][path])
            if shape != leaf.shape:
                wrong.append(f"{jax.tree_util.keystr(path)} is {shape}, expected {leaf.shape}")
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise UserError(f"{where} holds arrays of other sizes: {'; '.join(wrong[:5])}{more}")


def _guess(names: set[str]) -> str:
    if any("attn.qkv" in name for name in names):
        return " (a Vision Transformer, it seems)"
    if "layer1.0.conv1.weight" in names and "layer1.0.conv3.weight" not in names:
        return " (a ResNet of basic blocks such as ResNet-18 or 34, it seems)"
    if "layer1.0.conv1.weight" in names:
        return " (another ResNet, it seems)"
    return ""
