"""train.py with masks by the true landmarks of generated faces: what a semantic mask could be at best.

    python -m benchmarks.landmark_masks FACES --config=demo --config.facemae.masking=random --config.data.path=FACES/train --workdir=RUN

For each image a part of the face is drawn (jaw, brows, nose, eyes or mouth), and the patches nearest to that part's points stay.
A batch does not say which faces it holds, so that a plain image is looked up by some of its pixels among all of FACES/train:
images must reach the device unchanged (data.canvas and views.plain_size as large as the faces). For benchmarks/ties.py.
"""

import functools
import os
import sys
from pathlib import Path
from typing import Any

if (
    __name__ == "__main__"
):  # programs are kept by their settings, which say nothing of what is changed here; JAX reads this once
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(sys.argv[1], "programs").absolute())

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax.commands.main import main as simfle
from simfle_jax.config import Config
from simfle_jax.evaluation.looking import PARTS
from simfle_jax.models.simfle import Networks, Restored
from simfle_jax.views import plain_images

SEEN = 40  # pixels by which an image is known again
ALIKE = 1e-3  # largest mean square difference of the same image, which is normalised


def part_distances(points: np.ndarray, grid: int) -> np.ndarray:
    """From the centre of each patch to the nearest point of each part: [n, part, grid * grid] of landmarks [n, 68, 2] in 0..1."""
    rows, columns = np.divmod(np.arange(grid**2), grid)
    centres = (np.stack([columns, rows], 1) + 0.5) / grid
    apart = np.linalg.norm(points[:, :, None] - centres, axis=-1)
    return np.stack([apart[:, list(part)].min(1) for part in map(np.arange(68).__getitem__, PARTS.values())], 1)


class Known:
    """The faces that a run can meet: some normalised pixels [n, SEEN * 3], and `part_distances` [n, part, patch]."""

    def __init__(self, folder: Path, config: Config):
        from benchmarks import ties

        found = ties.load(folder, "train")
        self.distances = part_distances(found.points, config.grid).astype(np.float32)
        places = np.random.default_rng(0).choice(config.views.plain_size**2, SEEN, replace=False)
        self.rows, self.columns = np.divmod(places, config.views.plain_size)
        parts = (found.images[at : at + 500] for at in range(0, len(found.images), 500))
        self.pixels = np.concatenate([np.asarray(self.seen(plain_images(jnp.asarray(part), config))) for part in parts])

    def seen(self, plain: Any) -> Any:
        return plain[:, self.rows, self.columns].reshape(len(plain), -1)

    def of(self, plain: Any, draw: Any) -> Any:
        """The distances of a part that `draw` [B, patch] chooses; not a number where an image is none of the faces."""
        apart = jnp.square(self.seen(plain)[:, None] - self.pixels).mean(-1)
        nearest = apart.argmin(1)
        part = (draw[:, 0] * self.distances.shape[1]).astype(int)
        found = jnp.asarray(self.distances)[nearest, part]
        return jnp.where(apart.min(1)[:, None] < ALIKE, found, jnp.nan)


def patch_method(folder: Path) -> None:
    """Lets SimFLE's random masking take the patches around a part of the face."""
    restore = Networks.restore

    @functools.cache
    def known(config: Config) -> Known:
        with jax.ensure_compile_time_eval():
            return Known(folder, config)

    def masked(self: Networks, plain: Any, draw: Any, train: bool = True) -> Restored:
        distances = known(self.config).of(plain, draw)
        found = restore(self, plain, distances, train)
        return found._replace(predicted=found.predicted + 0 * distances.sum())  # an unknown image ends the run

    Networks.restore = masked  # type: ignore[method-assign]


if __name__ == "__main__":
    patch_method(Path(sys.argv[1]))
    simfle(["train", *sys.argv[2:]])
