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


def batches(folder, classes, preprocessing, size, shuffle):
    """Batches of normalised images [b, 3, S, S] and the numbers [b] of their classes' folders, read as they are wanted."""

    def together(items):
        upright = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path, _ in items]
        images = [preprocessing(torch.from_numpy(np.array(image))[None]) for image in upright]
        return torch.cat(images), torch.tensor([number for _, number in items])

    files = [(path, number) for number, name in enumerate(classes) for path in sorted((folder / name).glob("*"))]
    return torch.utils.data.DataLoader(files, size, shuffle, collate_fn=together)  # type: ignore[arg-type]


def main(file: Path, folder: Path, epochs: int, batch: int = 32) -> float:
    """Trains on train, and gives the share of val that is classified right."""
    trunk, preprocessing = load_torch(file)
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    train, val = (batches(folder / x, classes, preprocessing, batch, x == "train") for x in ("train", "val"))
    layer = torch.nn.LazyLinear(len(classes))
    network = torch.nn.Sequential(trunk, layer)
    network.eval()(next(iter(val))[0])  # the layer learns how many features there are
    groups = [{"params": trunk.parameters(), "lr": 1e-4}, {"params": layer.parameters(), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    for epoch in range(epochs):
        network.train()
        for images, labels in train:
            x = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images, images.flip(3))
            loss = torch.nn.functional.cross_entropy(network(x), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            right = sum((network(x).argmax(1) == labels).sum().item() for x, labels in val) / len(val.dataset)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {right:.1%} of val right")
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    main(**vars(parser.parse_args()))
