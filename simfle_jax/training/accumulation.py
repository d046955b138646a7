"""A batch in parts, one after the other, where the devices' memory does not hold a step of all of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

from simfle_jax.canvases import Images


def in_parts(
    gradients: Callable[[Any, jax.Array, Images], tuple[Any, Any]],
    parts: int,
    stats: Any,
    keys: Key[Array, " batch"],
    images: Images,
) -> tuple[Any, Any]:
    """`gradients(stats, keys, images) -> (sums, stats)` over `parts` micro-batches: the mean of sums, the last stats.

    BatchNorm and the grouping matrix see one micro-batch at a time and the running statistics move once for each, so
    the result is not that of the whole batch. Micro-batch j holds the rows j, j + parts, ..., so that each device has
    its share of every one.
    """
    if parts == 1:
        return gradients(stats, keys, images)

    def split(x: Shaped[Array, " batch *rest"]) -> Shaped[Array, "part row *rest"]:
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    def body(carry: tuple[Any, Any], chunk: tuple[jax.Array, Images]) -> tuple[tuple[Any, Any], None]:
        sums, stats = carry
        new, stats = gradients(stats, *chunk)
        return (jax.tree.map(jnp.add, sums, new), stats), None

    chunks = jax.tree.map(split, (keys, images))
    shapes = jax.eval_shape(gradients, stats, *jax.tree.map(lambda chunk: chunk[0], chunks))[0]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (sums, stats), _ = jax.lax.scan(body, (zeros, stats), chunks)
    return jax.tree.map(lambda x: x / parts, sums), stats
