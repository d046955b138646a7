"""Fine-tuning of the whole encoder with a new layer of classes, in PyTorch.

    python examples/finetune_in_pytorch.py RUN/encoder.safetensors FACES --epochs 10

FACES holds train/CLASS/IMAGE and val/CLASS/IMAGE.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from simfle_jax.weights.torch_network import load_torch


def read(folder, classes, preprocessing):
    """Normalised images [n, 3, S, S] and the numbers [n] of their classes' folders in order; a folder may be missing."""
    files = [(path, number) for number, name in enumerate(classes) for path in sorted((folder / name).glob("*"))]
    upright = [ImageOps.exif_transpose(Image.open(path)) for path, _ in files]
    images = [torch.from_numpy(np.array(image.convert("RGB"))) for image in upright]
    return torch.cat([preprocessing(image[None]) for image in images]), torch.tensor([n for _, n in files])


def main(file: Path, folder: Path, epochs: int, batch: int = 32) -> float:
    """Trains on train, and gives the share of val that is classified right."""
    trunk, preprocessing = load_torch(file)
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    (images, labels), held = (read(folder / split, classes, preprocessing) for split in ("train", "val"))
    layer = torch.nn.LazyLinear(len(classes))
    network = torch.nn.Sequential(trunk, layer)
    network(images[:2])  # the layer learns how many features there are
    groups = [{"params": trunk.parameters(), "lr": 1e-4}, {"params": layer.parameters(), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    for epoch in range(epochs):
        network.train()
        for rows in torch.randperm(len(images)).split(batch):
            x = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, images[rows], images[rows].flip(3))
            loss = torch.nn.functional.cross_entropy(network(x), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            right = (network.eval()(held[0]).argmax(1) == held[1]).float().mean().item()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {right:.1%} of val right")
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    main(**vars(parser.parse_args()))
