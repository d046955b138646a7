"""An ONNX file of a trunk or a classifier, written by PyTorch's exporter and checked against ONNX Runtime."""

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simfle_jax.config import TrunkSettings
from simfle_jax.errors import UserError, lacks
from simfle_jax.weights.trunk import classifier_name
from simfle_jax.writing import writing_output

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
    _require_packages()
    from simfle_jax.weights.torch_network import torch_network

    size = int(metadata["size"])
    images = np.random.default_rng(0).standard_normal((3, size, size, 3), np.float32)
    output = "logits" if f"{classifier_name(arrays)}.weight" in arrays else "features"
    planes = images.transpose(0, 3, 1, 2)
    proto = _exported(torch_network(arrays, trunk, size), planes, ("batch",), output)
    return _write(path, proto, metadata, [(planes, ours(images))])


def export_with_preprocessing(
    path: Path,
    arrays: dict[str, np.ndarray],
    trunk: TrunkSettings,
    metadata: dict[str, str],
    canvas: int,
    ours: Callable[[np.ndarray], np.ndarray],
) -> float:
    """As `export_onnx`, with all that `predict` and `embed` do to an image inside of the graph.

    canvas: side to which images are decoded; 0: that of the trunk's images.
    ours: uint8 images [B, H, W, 3] to features or probabilities.

    Input `images`: uint8 [batch, height, width, 3], RGB, of any size. Output `features` [batch, dim], or
    `probabilities` [batch, classes] when `arrays` holds a classifier.
    """
    _require_packages()
    import torch

    from simfle_jax.weights.torch_network import torch_network
    from simfle_jax.weights.torch_preprocessing import Preprocessing

    random, size = np.random.default_rng(0), int(metadata["size"])
    shapes = [(2, 2 * size + 5, 3 * size, 3), (3, size, size // 2 + 1, 3)]
    examples = [random.integers(0, 256, shape, np.uint8) for shape in shapes]
    parts: list[Any] = [Preprocessing(metadata, canvas), torch_network(arrays, trunk, size)]
    output = "probabilities" if f"{classifier_name(arrays)}.weight" in arrays else "features"
    parts += [torch.nn.Softmax(1)] if output == "probabilities" else []
    network = torch.nn.Sequential(*parts).eval()
    proto = _exported(network, examples[0], ("batch", "height", "width"), output)
    told = metadata | {"input": "uint8 [batch, height, width, 3], RGB, of any size"}
    return _write(path, proto, told, [(images, ours(images)) for images in examples])


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as missing:
        raise lacks("an ONNX file", missing.name or "a package", "onnx") from None


def _exported(network: Any, example: np.ndarray, dynamic: tuple[str, ...], output: str) -> Any:
    """The ONNX form of a PyTorch module; `dynamic` names the first axes of `images`, which may have any length."""
    import torch

    axes = {axis: torch.export.Dim(name) for axis, name in enumerate(dynamic)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it laments the absence of torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program: Any = torch.onnx.export(
            network, (torch.from_numpy(example),), input_names=["images"], output_names=[output], opset_version=OPSET,
            dynamo=True, dynamic_shapes=(axes,), verbose=False,
        )  # fmt: skip
    return program.model_proto


def _write(path: Path, proto: Any, metadata: dict[str, str], checks: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Writes the file if ONNX Runtime gives our outputs for the checks' images; how far they are, relative."""
    import onnx

    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto)
    with writing_output(path) as temporary:
        onnx.save_model(proto, os.fspath(temporary))
        return max(_difference(temporary, images, expected) for images, expected in checks)


def _difference(path: Path, images: np.ndarray, expected: np.ndarray) -> float:
    found = run_onnx(path, images)
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:
        raise UserError(f"ONNX Runtime's outputs differ by {error:.1e} of the largest, more than {TOLERANCE:.0e}")
    return error


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    """Outputs of an ONNX file for the images that it takes, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": images})[0])
