"""From the host's uint8 canvases to what a method sees, and the random numbers that decide it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Key, UInt8

from simfle_jax import augment
from simfle_jax.arrays import AnyArray
from simfle_jax.canvases import Canvases
from simfle_jax.config import Config

Pixels = UInt8[AnyArray, "batch height width channel"]  # each image fills its square


class Facts(NamedTuple):
    """What the first views are like apart from their faces, before they are normalised; for instruments alone."""

    brightness: Float[Array, "batch 1"]  # mean luma
    colour: Float[Array, "batch 2"]  # mean red and blue less it
    place: Float[Array, "batch 4"]  # of the crop in the canvas: centre and size


class Views(NamedTuple):
    """Normalised images of one batch, in the compute type."""

    first: Float[Array, "batch height width channel"]  # strongly augmented
    second: Float[Array, "batch height width channel"]  # the same images augmented anew
    plain: Float[Array, "batch height width channel"]  # resized only
    facts: Facts | None = None


def image_keys(seed: int, step: int | Integer[Array, ""], batch: int) -> Key[Array, " {batch}"]:
    """One key per image of the global batch: all randomness is a function of (seed, step, index)."""
    step_key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(batch))


def make_views(keys: Key[Array, " batch"], images: Pixels | Canvases, config: Config) -> Views:
    """The two augmented views and the plain image of canvases."""
    first, second = augment.two_views(keys, images, config.views)
    facts = Facts(*augment.mean_colour(first), augment.crops_of_first(keys, images, config.views))
    return Views(_normalised(first, config), _normalised(second, config), plain_images(images, config), facts)


def plain_images(
    images: Pixels | Canvases, config: Config
) -> Float[Array, "batch {config.views.plain_size} {config.views.plain_size} channel"]:
    """Canvases as FaceMAE sees them: plain_size, normalised, in the compute type."""
    return _normalised(augment.plain_view(images, config.views.plain_size), config)


def _normalised(
    images: Float[Array, "batch height width channel"], config: Config
) -> Float[Array, "batch height width channel"]:
    return augment.preprocess(images, config.views.standardise, config.data.mean, config.data.std).astype(config.dtype)


def in_pixels(normalised: AnyArray, images: AnyArray, config: Config) -> jax.Array:
    """Undoes the normalisation of `plain_images(images)`: float [B, P, P, 3] to 0..1, cut off at both ends."""
    plain = augment.plain_view(images, config.views.plain_size)
    # Normalising is affine in each channel of each image, so that its zero and its scale tell all of it.
    scale, zero = jnp.asarray(config.data.std), jnp.asarray(config.data.mean)
    if config.views.standardise == "image":
        scale, zero = plain.std((1, 2), keepdims=True) + 0.02, plain.mean((1, 2), keepdims=True)
    return jnp.clip(normalised.astype(jnp.float32) * scale + zero, 0, 1)
