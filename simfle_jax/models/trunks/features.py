"""What every trunk gives."""

from typing import NamedTuple

import jax


class Features(NamedTuple):
    """A trunk's view of images [B, H, W, 3]; what is not used is not computed under jit."""

    map: jax.Array  # [B, h, w, features], a cell for every `stride` pixels
    pooled: jax.Array  # [B, features]
