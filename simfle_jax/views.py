"""From the host's uint8 canvases to what a method sees, and the random numbers that decide it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from simfle_jax import augment
from simfle_jax.config import Config


class Facts(NamedTuple):
    """What the canvases of one batch are like, apart from the faces; for instruments alone."""

    brightness: jax.Array  # [B, 1], mean luma
    colour: jax.Array  # [B, 2], mean red and blue less it
    place: jax.Array  # [B, 4], of the first view's crop: centre and size


class Views(NamedTuple):
    """Normalised images of one batch, in the compute type."""

    first: jax.Array  # [B, S, S, 3], strongly augmented
    second: jax.Array  # [B, S, S, 3], the same images augmented anew
    plain: jax.Array  # [B, P, P, 3], resized only
    facts: Facts | None = None


def image_keys(seed: int, step: jax.Array, batch: int) -> jax.Array:
    """One key [B] per image of the global batch: all randomness is a function of (seed, step, index)."""
    step_key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(batch))


def make_views(keys: jax.Array, images: jax.Array, config: Config) -> Views:
    """The two augmented views and the plain image of uint8 canvases [B, S, S, 3]."""
    first, second = (_normalised(x, config) for x in augment.two_views(keys, images, config.views))
    return Views(first, second, plain_images(images, config), _facts(keys, images, config))


def plain_images(images: jax.Array, config: Config) -> jax.Array:
    """uint8 canvases [B, S, S, 3] as FaceMAE sees them: plain_size, normalised, in the compute type."""
    return _normalised(augment.plain_view(images, config.views.plain_size), config)


def _facts(keys: jax.Array, images: jax.Array, config: Config) -> Facts:
    place = augment.crops_of_first(keys, images.shape[1:3], config.views)
    return Facts(*augment.mean_colour(augment.to_float(images)), place)


def _normalised(images: jax.Array, config: Config) -> jax.Array:
    return augment.preprocess(images, config.views.standardise, config.data.mean, config.data.std).astype(config.dtype)
