"""An ONNX file of a trunk or a classifier, written by PyTorch's exporter and checked against ONNX Runtime."""

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simfle_jax.config import TrunkSettings
from simfle_jax.errors import UserError
from simfle_jax.weights.files import replacing
from simfle_jax.weights.trunk import classifier_name

TOLERANCE = 1e-3  # of the largest output, between ONNX Runtime and this package
OPSET = 18


def export_onnx(
    path: Path,
    arrays: dict[str, np.ndarray],
    trunk: TrunkSettings,
    metadata: dict[str, str],
    ours: Callable[[np.ndarray], np.ndarray],
) -> float:
    """Writes the network and returns how far ONNX Runtime's outputs are from ours on random images, relative.

    ours: the same network in this package, normalised images [B, S, S, 3] to its outputs.

    Input `images`: float32 [batch, 3, size, size], normalised by `mean` and `std` of the metadata, or by each image's
    own where `standardise` says 'image' (`augment.standardise`); the metadata are in the file. Output `features` [batch, dim], or `logits` [batch, classes] when `arrays` holds a classifier.

    Raises:
        UserError: the packages are not installed, the path cannot be written, or the outputs differ.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
        import torch
    except ImportError as missing:
        raise UserError(f"an ONNX file needs {missing.name}: pip install -c requirements.txt -e '.[onnx]'") from None
    del onnxruntime
    size = int(metadata["size"])
    network = _network(arrays, trunk, size)
    output = "logits" if f"{classifier_name(arrays)}.weight" in arrays else "features"
    images = np.random.default_rng(0).standard_normal((3, size, size, 3), np.float32)
    example = torch.from_numpy(images.transpose(0, 3, 1, 2))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it laments the absence of torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program: Any = torch.onnx.export(
            network, (example,), input_names=["images"], output_names=[output], opset_version=OPSET, dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
        )  # fmt: skip
    proto = program.model_proto
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto)
    with replacing(path) as temporary:
        onnx.save_model(proto, os.fspath(temporary))
        error = _difference(temporary, example.numpy(), ours(images))
    return error


def _network(arrays: dict[str, np.ndarray], trunk: TrunkSettings, size: int) -> Any:
    import torch

    from simfle_jax.weights.torch_resnet import BasicBlock, Bottleneck, ResNet
    from simfle_jax.weights.torch_vit import ViT

    classes = len(arrays.get(f"{classifier_name(arrays)}.weight", ()))
    network: torch.nn.Module
    if trunk.kind == "vit":
        depth, grid = trunk.stage_sizes[0], size // trunk.patch
        network = ViT(trunk.width, depth, trunk.heads, trunk.patch, grid, classes)
    else:
        block = BasicBlock if trunk.kind == "basic" else Bottleneck
        network = ResNet(trunk.stage_sizes, trunk.width, trunk.last_stride, classes, block)
    network.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}, strict=True)
    return network.eval()


def _difference(path: Path, images: np.ndarray, expected: np.ndarray) -> float:
    found = run_onnx(path, images)
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:
        raise UserError(f"ONNX Runtime's outputs differ by {error:.1e} of the largest, more than {TOLERANCE:.0e}")
    return error


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    """Outputs of an ONNX file for normalised images [B, 3, S, S], on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": images})[0])
