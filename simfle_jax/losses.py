"""The loss terms of all methods, and `separation`, as pure functions; all computed in float32 or finer."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from simfle_jax.arrays import AnyArray
from simfle_jax.kernels.precision import at_least_float32


def _unit(x: Float[AnyArray, "*shape"], axis: int = -1) -> Float[Array, "*shape"]:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis, keepdims=True), 1e-24))


def similarity(
    prediction: Float[AnyArray, "batch feature"], target: Float[AnyArray, "batch feature"]
) -> Float[Array, " batch"]:
    """BYOL's 2 - 2 cos per row."""
    return 2 - 2 * jnp.sum(_unit(at_least_float32(prediction)) * _unit(at_least_float32(target)), -1)


def contrast(
    queries: Float[AnyArray, "batch feature"], keys: Float[AnyArray, "batch feature"], temperature: float
) -> Float[Array, ""]:
    """MoCo v3's ctr: 2 T times the cross-entropy of telling each query's key from the others'."""
    logits = _unit(at_least_float32(queries)) @ _unit(at_least_float32(keys)).T / temperature
    return -2 * temperature * jnp.diagonal(jax.nn.log_softmax(logits)).mean()


def distillation(
    student: Float[AnyArray, "batch feature"], teacher: Float[AnyArray, "batch feature"], temperature: float
) -> Float[Array, ""]:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over features, mean over the batch."""
    log_student = jax.nn.log_softmax(at_least_float32(student) / temperature)
    log_teacher = jax.nn.log_softmax(at_least_float32(teacher) / temperature)
    divergence = jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), -1)
    return temperature**2 * divergence.mean()


def mutual_distillation(students: list[Float[AnyArray, "batch feature"]], temperature: float) -> Float[Array, ""]:
    """Each of the vectors learns from the mean of all of them, which itself gets no gradient."""
    students = [at_least_float32(s) for s in students]
    teacher = jax.lax.stop_gradient(sum(students[1:], students[0]) / len(students))
    terms = [distillation(s, teacher, temperature) for s in students]
    return sum(terms[1:], terms[0])


def reconstruction(
    predicted: Float[AnyArray, "batch patch pixel"],
    patches: Float[AnyArray, "batch patch pixel"],
    masked: Float[AnyArray, "batch patch"],
) -> Float[Array, ""]:
    """Mean squared error on masked patches against pixels normalised within each patch.

    masked: 1.0 where a patch is hidden. The patch's variance is the unbiased one.
    """
    patches = at_least_float32(patches)
    mean = patches.mean(-1, keepdims=True)
    var = patches.var(-1, keepdims=True, ddof=1)
    error = jnp.square(at_least_float32(predicted) - (patches - mean) * jax.lax.rsqrt(var + 1e-6)).mean(-1)
    return (error * masked).sum() / masked.sum()


def grouping_matrix(activation: Float[AnyArray, "batch height width channel"]) -> Float[Array, "channel channel"]:
    """How alike the maps of every two channels are: C_ij, the batch's mean of their cosines."""
    maps = at_least_float32(activation).reshape(len(activation), -1, activation.shape[-1])
    maps = _unit(maps + 0.001, axis=1)
    return jnp.einsum("bpi,bpj->ij", maps, maps) / len(maps)


def group_targets(channels: int, groups: int, dtype: jnp.dtype) -> Float[Array, "{channels} {channels}"]:
    """Ones where two channels belong to the same group."""
    group = jnp.arange(channels) // (channels // groups)
    return (group[:, None] == group[None, :]).astype(dtype)


def grouping(matrix: Float[AnyArray, "channel channel"], groups: int) -> Float[Array, ""]:
    """g, how far the channels are from forming groups; the loss term L_g is its square (so published)."""
    channels = len(matrix)
    distance = jnp.square(matrix - group_targets(channels, groups, matrix.dtype)).sum()
    return 0.001 * distance / (channels / 512) ** 2


def separation(matrix: Float[AnyArray, "channel channel"], groups: int) -> Float[Array, ""]:
    """Mean cosine within groups (a channel with itself left out) minus that between groups; 0 means no groups at all."""
    channels = len(matrix)
    pairs_within = channels * (channels // groups - 1)
    pairs_between = channels * (channels - channels // groups)
    total = (matrix * group_targets(channels, groups, matrix.dtype)).sum()
    within = (total - jnp.trace(matrix)) / max(pairs_within, 1)
    return within - (matrix.sum() - total) / pairs_between
