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


class Faces(torch.utils.data.Dataset):
    """Normalised images [3, S, S] and the numbers of their classes' folders in order; a folder may be missing."""

    def __init__(self, folder, classes, preprocessing):
        self.files = [
            (path, number) for number, name in enumerate(classes) for path in sorted((folder / name).glob("*"))
        ]
        self.preprocessing = preprocessing

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path, number = self.files[index]
        upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        return self.preprocessing(torch.from_numpy(np.array(upright))[None])[0], number


def main(file: Path, folder: Path, epochs: int, batch: int = 32) -> float:
    """Trains on train, and gives the share of val that is classified right."""
    trunk, preprocessing = load_torch(file)
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    train, val = (Faces(folder / split, classes, preprocessing) for split in ("train", "val"))
    layer = torch.nn.LazyLinear(len(classes))
    network = torch.nn.Sequential(trunk, layer)
    network.eval()(train[0][0][None])  # the layer learns how many features there are
    groups = [{"params": trunk.parameters(), "lr": 1e-4}, {"params": layer.parameters(), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    for epoch in range(epochs):
        network.train()
        for images, labels in torch.utils.data.DataLoader(train, batch, shuffle=True):
            x = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images, images.flip(3))
            loss = torch.nn.functional.cross_entropy(network(x), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            parts = torch.utils.data.DataLoader(val, batch)
            right = sum((network(images).argmax(1) == labels).sum().item() for images, labels in parts) / len(val)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {right:.1%} of val right")
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    main(**vars(parser.parse_args()))
