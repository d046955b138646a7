"""What the golden values are computed from: parameters and inputs regenerated from their names (golden/README.md)."""

import zlib
from typing import Any

import numpy as np

from simfle_jax.config import Config
from simfle_jax.weights import torch_names
from simfle_jax.weights.torch_names import Entry


def fill(name: str, shape: tuple[int, ...], salt: int) -> np.ndarray:
    """The array of a torch name, float32, in torch's layout."""
    random = np.random.RandomState((zlib.crc32(name.encode()) + salt) % 2**32)
    u = (random.random_sample(shape) * 2 - 1).astype(np.float32) * np.float32(3**0.5)
    tenth = np.float32(0.1)
    if name.endswith("running_mean"):
        return tenth * u
    if name.endswith("running_var"):
        return np.float32(1) + tenth * np.abs(u)
    if len(shape) >= 2:
        return u / np.float32(np.prod(shape[1:]) ** 0.5)
    return np.float32(1) + tenth * u if name.endswith("weight") else tenth * u


def inputs(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers in float32, float64 in type; images are turned from NCHW to NHWC."""
    x = np.random.RandomState(seed).standard_normal(shape).astype(np.float32).astype(np.float64)
    return x.transpose(0, 2, 3, 1) if len(shape) == 4 else x


def checkpoint(config: Config, shapes: dict[str, Any], salt: int) -> dict[str, np.ndarray]:
    """The state dict of a published checkpoint, every entry filled by its torch name; `shapes` are our trees."""
    arrays = {}
    for entry in torch_names.published(config):
        name, shape = entry.name.replace("target_network.", "online_network."), torch_names.torch_shape(entry, shapes)
        arrays[entry.name] = fill(name, shape, salt) if entry.tree else entry.value
    return arrays


def filled(entries: list[Entry], shapes: dict[str, Any], salt: int, prefix: str = "") -> dict[str, Any]:
    """Our trees in float64, every entry filled by its torch name; `shapes` are our trees of arrays or shapes."""
    arrays = {}
    for entry in entries:
        if entry.tree:
            ours = torch_names.get(shapes[entry.tree], entry.path)
            torch_shape = entry.layout.to_torch(np.empty(ours.shape, bool)).shape
            name = prefix + entry.name.replace("target_network.", "online_network.")
            arrays[entry.name] = fill(name, torch_shape, salt).astype(np.float64)
    return torch_names.to_ours(entries, arrays)


def assert_close(found: Any, golden: Any, tolerance: float, what: str) -> None:
    """max|a - b| / max|b| over an array must not exceed the tolerance."""
    found, golden = np.asarray(found, np.float64), np.asarray(golden, np.float64)
    assert found.shape == golden.shape, f"{what}: shape {found.shape}, golden {golden.shape}"
    error = np.abs(found - golden).max() / max(np.abs(golden).max(), 1e-300)
    assert error <= tolerance, f"{what}: off by {error:.2e} of its maximum, allowed {tolerance:.0e}"


def by_name(config: Config) -> dict[str, Entry]:
    """The published key table by torch name."""
    return {entry.name: entry for entry in torch_names.published(config)}
