"""Momentum buffers of PyTorch's SGD, in the state dict that `torch.optim.SGD.load_state_dict` takes.

PyTorch numbers parameters by their order in `model.parameters()`. That order is taken to be the one of the state dict
with the BatchNorm statistics left out, and the optimizer to have been given all parameters, also those that it never
moves (target network and positions): these have no buffer. A file whose optimizer was given the moved ones alone is
read as well, the count tells which it is.
"""

from pathlib import Path
from typing import Any

import numpy as np

from simfle_jax.errors import UserError
from simfle_jax.weights.files import import_torch, to_numpy
from simfle_jax.weights.torch_names import Entry

Arrays = dict[str, np.ndarray]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def parameters(entries: list[Entry]) -> list[Entry]:
    """Those that PyTorch calls parameters, in their order."""
    return [entry for entry in entries if not entry.name.endswith(STATISTICS)]


def moved(entries: list[Entry]) -> list[Entry]:
    """The parameters that the optimizer moves."""
    return [entry for entry in parameters(entries) if entry.tree == "params"]


def read_momentum(optimizer: dict[str, Any], entries: list[Entry], where: str | Path) -> Arrays:
    """The momentum buffers by torch name.

    Raises:
        UserError: not the state of an SGD with momentum over these parameters.
    """
    groups = optimizer.get("param_groups", [])
    numbers = [number for group in groups for number in group["params"]]
    choices = {len(found): found for found in (parameters(entries), moved(entries))}
    if len(numbers) not in choices:
        wanted = " or ".join(str(count) for count in choices)
        raise UserError(f"{where}: its optimizer holds {len(numbers)} parameters, this model has {wanted}")
    states = optimizer.get("state", {})
    buffers = {}
    for number, entry in zip(numbers, choices[len(numbers)]):
        if entry.tree == "params":
            buffer = states.get(number, {}).get("momentum_buffer")
            if buffer is None:
                raise UserError(
                    f"{where}: its optimizer has no momentum buffer for {entry.name}: is it another than SGD?"
                )
            buffers[entry.name] = to_numpy(buffer, f"the optimizer in {where}: {entry.name}")
    return buffers


def write_momentum(buffers: Arrays, entries: list[Entry], lr: float, momentum: float, weight_decay: float) -> dict:
    """An SGD state dict over all parameters with the given buffers, as arrays; needs PyTorch."""
    torch = import_torch("an optimizer's state")
    order = parameters(entries)
    # SGD itself fills in whatever else the installed version keeps in a group.
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.empty(0)) for _ in order], lr, momentum, weight_decay=weight_decay)
    content = sgd.state_dict()
    content["state"] = {
        number: {"momentum_buffer": buffers[entry.name]} for number, entry in enumerate(order) if entry.name in buffers
    }
    return content
