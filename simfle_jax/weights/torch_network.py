"""A trunk or a classifier as a PyTorch module with torchvision's (a ViT: timm's) names, and its preprocessing."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from simfle_jax.config import TrunkSettings
from simfle_jax.errors import UserError
from simfle_jax.weights.files import read_arrays
from simfle_jax.weights.torch_preprocessing import Preprocessing
from simfle_jax.weights.torch_resnet import BasicBlock, Bottleneck, ResNet
from simfle_jax.weights.torch_vit import ViT
from simfle_jax.weights.trunk import architecture, classifier_name, find_place


def load_torch(path: str | Path) -> tuple[nn.Module, Preprocessing]:
    """The network in a file that this package wrote, and what makes its input of uint8 images [B, H, W, 3].

    `network(preprocessing(images))` gives features [B, dim], or logits [B, classes] of a classifier's file. The network
    is in inference mode; all of its arrays can be trained.

    Raises:
        UserError: no such file, or one without this package's metadata.
    """
    arrays, metadata = read_arrays(path)
    if "architecture" not in metadata:
        raise UserError(f"{path} tells no architecture: give a .safetensors file that `simfle convert` or a run wrote")
    place = find_place(arrays, "online", path, metadata.get("branch", "online"))
    arrays = {name.removeprefix(place): x for name, x in arrays.items() if name.startswith(place)}
    network = torch_network(arrays, architecture(json.loads(metadata["architecture"])), int(metadata["size"]))
    return network, Preprocessing({"standardise": "dataset"} | metadata, int(metadata.get("canvas", 0)))


def torch_network(arrays: dict[str, np.ndarray], trunk: TrunkSettings, size: int) -> nn.Module:
    """The module with these arrays: normalised images [B, 3, size, size] to features, or to logits where they hold a layer."""
    classes = len(arrays.get(f"{classifier_name(arrays)}.weight", ()))
    network: nn.Module
    if trunk.kind == "vit":
        depth, grid = trunk.stage_sizes[0], size // trunk.patch
        network = ViT(trunk.width, depth, trunk.heads, trunk.patch, grid, classes)
    else:
        block = BasicBlock if trunk.kind == "basic" else Bottleneck
        network = ResNet(trunk.stage_sizes, trunk.width, trunk.last_stride, classes, block)
    network.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}, strict=True)
    return network.eval()
