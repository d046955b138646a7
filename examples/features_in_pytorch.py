"""Features of faces in PyTorch.

    python examples/features_in_pytorch.py RUN/encoder.safetensors FACES
    python examples/features_in_pytorch.py RUN/encoder.safetensors FACES --name resnet50

The names in the file are torchvision's: with --name, and where torchvision is installed, its own network is used, unless the
last stride is another. The package's module of the same names gives the same numbers.
"""

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file

from simfle_jax.weights.torch_network import load_torch


def main(file: Path, folder: Path, name: str = "") -> dict[str, torch.Tensor]:
    """Features [dim] of every image below a folder, by its path."""
    network, preprocessing = load_torch(file)
    with safe_open(file, framework="pt") as opened:
        stride = json.loads((opened.metadata() or {}).get("architecture", "{}")).get("last_stride", 2)
    if name and stride == 2 and importlib.util.find_spec("torchvision"):
        network = importlib.import_module("torchvision.models").get_model(name)
        network.fc = torch.nn.Identity()
        network.load_state_dict(load_file(file), strict=True)
        network.eval()
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")):
        upright = ImageOps.exif_transpose(Image.open(path))  # as cameras mean it, and as `simfle embed` reads it
        pixels = torch.from_numpy(np.array(upright.convert("RGB")))
        with torch.inference_mode():
            found[str(path)] = network(preprocessing(pixels[None]))[0]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default="", help="use torchvision's network of this name, e.g. resnet50")
    features = main(**vars(parser.parse_args()))
    print(f"{len(features)} images, {len(next(iter(features.values()), ()))} features each")
