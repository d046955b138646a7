"""How well FaceMAE restores what it cannot see, beside the mean face and beside copies of what is seen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from simfle_jax import losses
from simfle_jax.config import Config
from simfle_jax.methods import find_method
from simfle_jax.models.facemae import patchify
from simfle_jax.training.state import TrainState, structures
from simfle_jax.views import image_keys, plain_images


def reconstruction_errors(
    config: Config, state: TrainState, images: np.ndarray, mean_of: np.ndarray
) -> dict[str, float]:
    """Mean squared error on masked patches, in pixels normalised per patch as in the loss.

    BatchNorm takes the statistics that it has kept, as in `looking.look`.

    images: uint8 [B, S, S, 3] to restore; mean_of: uint8 [N, S, S, 3] whose mean patches are the baseline's guess.
    Returns 'facemae', 'mean_image', and 'nearest_patch': every masked patch is guessed to be as the nearest kept one.
    """
    method = find_method(config)
    graph, _ = structures(method)

    @jax.jit
    def errors(params: Any, stats: Any, images: jax.Array, mean_of: jax.Array) -> dict[str, jax.Array]:
        draw = method.draw(image_keys(config.seed, 0, len(images)))
        with jax.default_matmul_precision("float32"):  # as features are computed
            found = nnx.merge(graph, params, stats).restore(plain_images(images, config), draw, train=False)
        known = normalised_patches(patchify(plain_images(mean_of, config), config.facemae.patch))
        masked = found.masking.masked
        restored = {
            "facemae": found.predicted,
            "mean_image": jnp.broadcast_to(known.mean(0), found.patches.shape),
            "nearest_patch": nearest_kept(normalised_patches(found.patches), masked),
        }
        return {name: losses.reconstruction(guessed, found.patches, masked) for name, guessed in restored.items()}

    return {name: float(error) for name, error in errors(state.params, state.stats, images, mean_of).items()}


def normalised_patches(patches: jax.Array) -> jax.Array:
    """Every patch [..., pixels] with mean 0 and unbiased variance 1, the decoder's target."""
    mean, var = patches.mean(-1, keepdims=True), patches.var(-1, keepdims=True, ddof=1)
    return (patches - mean) * jax.lax.rsqrt(var + 1e-6)


def nearest_kept(patches: jax.Array, masked: jax.Array) -> jax.Array:
    """For every patch the nearest one that is kept: patches [B, N, pixels] in a square grid, masked [B, N]."""
    grid = round(patches.shape[1] ** 0.5)
    rows, columns = np.divmod(np.arange(grid**2), grid)
    distance = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2  # [N, N]
    far = jnp.where(masked[:, None] > 0, 2 * grid**2, distance)
    return jnp.take_along_axis(patches, far.argmin(-1)[..., None], axis=1)
