"""From uint8 images of any size to what a trunk takes, as a PyTorch module: it can be exported with the trunk behind it."""

import json

import torch
from torch import Tensor, nn

from simfle_jax.data.decode import LONGEST

FIXED_POINT = 2**22  # Pillow's weights for bytes are whole numbers of this part


class Preprocessing(nn.Module):
    """uint8 RGB [B, H, W, 3] to float32 [B, 3, size, size], with the numbers of `predict` and `embed`.

    The shorter side becomes `canvas` and the centre is cut out, antialiased bilinear and rounded as by `decode`; then
    the square is resized to `size` and normalised as the metadata of the weights say.

    Args:
        metadata: of the weights: `size`, `mean`, `std`, `standardise`.
        canvas: side of the decoded images; 0: `size`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, metadata: dict[str, str], canvas: int = 0):
        super().__init__()
        self.size, self.by_image = int(metadata["size"]), metadata["standardise"] == "image"
        self.canvas = canvas or self.size
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(json.loads(metadata[name])).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.fitted(images) / 255
        if self.canvas != self.size:
            step = torch.tensor(self.canvas / self.size)
            weights = triangles(torch.arange(self.size), step, torch.arange(self.canvas))
            x = weights @ x @ weights.T
        if self.by_image:  # as augment.standardise
            return (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), correction=0, keepdim=True) + 0.02)
        return (x - self.mean) / self.std

    def fitted(self, images: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] as `decode` fits them to the canvas: whole numbers 0..255, float32 [B, 3, canvas, canvas].

        Every pixel is the same as there. Of images higher than LONGEST times their width they may be 1 apart: Pillow
        takes their rows first.
        """
        height, width = (torch.scalar_tensor(images.shape[axis], dtype=torch.int64) for axis in (1, 2))
        short = torch.minimum(height, width)
        planes = images.permute(0, 3, 1, 2).double()
        # As Pillow does: the columns first, and whole numbers after each pass.
        planes = torch.floor(planes @ self._central(width, short, images.shape[2]).T + 0.5)
        return torch.floor(self._central(height, short, images.shape[1]) @ planes + 0.5).clamp(0, 255).float()

    def _central(self, side: Tensor, short: Tensor, pixels: int) -> Tensor:
        """Weights [canvas, pixels] of one axis: the central `canvas` pixels of the resized image."""
        seen = torch.where(side > LONGEST * short, short, side)  # of very long images only the central square
        start = torch.round((side - seen).double() / 2)
        resized = torch.div(self.canvas * seen, short, rounding_mode="floor")
        first = torch.round((resized - self.canvas).double() / 2)
        weights = triangles(first + torch.arange(self.canvas), seen.double() / resized, torch.arange(pixels), start)
        return torch.floor(weights * FIXED_POINT + 0.5) / FIXED_POINT


def triangles(outputs: Tensor, step: Tensor, inputs: Tensor, start: Tensor | float = 0.0) -> Tensor:
    """Antialiased bilinear weights [outputs, inputs] of numbered pixels, where an output pixel is `step` input pixels wide."""
    centres = start + (outputs[:, None] + 0.5) * step
    weights = (1 - (inputs + 0.5 - centres).abs() / step.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)
