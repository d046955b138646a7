"""Images of several sizes in one array: each at its own size in the corner of a square, with its side beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

MULTIPLE = 8  # of which the largest canvas is one


@struct.dataclass
class Canvases:
    """B square images of different sizes.

    pixels: uint8 [B, S, S, 3]; the first `side` rows and columns hold the image, the others are 0.
    sides: int32 [B], 1 to S.
    """

    pixels: Any
    sides: Any

    def __len__(self) -> int:
        return len(self.pixels)


Images = jax.Array | Canvases  # uint8 [B, S, S, 3] where every image fills its square


def largest_canvas(size: int) -> int:
    """The largest square that is handed to the device for views of `size` pixels, twice as wide.

    A larger image is halved until it fits, and then has at least as many pixels as a view.
    """
    return 2 * MULTIPLE * -(-size // MULTIPLE)


def of_batch(batch: Mapping[str, np.ndarray]) -> np.ndarray | Canvases:
    """The images of a batch of the pipeline."""
    return Canvases(batch["image"], batch["side"]) if "side" in batch else batch["image"]


def shapes(batch: int, canvas: int, own_sizes: bool) -> Any:
    """The shapes and types of a batch of images, for programs that are compiled before there is one."""
    pixels = jax.ShapeDtypeStruct((batch, canvas, canvas, 3), jnp.uint8)
    return Canvases(pixels, jax.ShapeDtypeStruct((batch,), jnp.int32)) if own_sizes else pixels


def apart(images: Images | np.ndarray) -> tuple[Any, Any]:
    """The pixels [B, S, S, 3], and the sides [B] or None where all images fill their squares."""
    return (images.pixels, images.sides) if isinstance(images, Canvases) else (images, None)
