"""The ties between FaceMAE and the encoder (`facemae.tie`), each a pure function: L_d of what the two sides give.

    k1, k2   what the encoder's heads make of the pooled features of the two views
    kp       what FaceMAE's head makes of the mean of its latent tokens
    q1, q2   the target network's projections of the second and of the first view, without gradient

docs/learning.md tells what is known of each. sg is stop_gradient, unit(x) = x / |x|, and x~ is x less its mean over the
images of the batch.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from simfle_jax import losses
from simfle_jax.arrays import AnyArray

Vectors = Float[AnyArray, "batch feature"]
Tokens = Float[AnyArray, "batch kept feature"]
PooledTie = Callable[[Sequence[Vectors], Sequence[Vectors], float], Float[Array, ""]]
COVARIANCE = 1 / 25  # VICReg's weights: 25 and 25 for agreement and variance, 1 for covariance


def published(vectors: Sequence[Vectors], targets: Sequence[Vectors], temperature: float) -> Float[Array, ""]:
    """t = sg(mean of k1, k2, kp); the sum over k of T^2 KL(softmax(t / T) || softmax(k / T)).

    Smallest where all three are one constant, and that is where it goes.
    """
    return losses.mutual_distillation(list(vectors), temperature)


def variance(vectors: Sequence[Vectors], targets: Sequence[Vectors], temperature: float) -> Float[Array, ""]:
    """VICReg's terms: agree(k1, kp) + agree(k2, kp) + the sum over k of (v(k) + c(k) / 25).

    agree(a, b) = mean of (a - b)^2; v(k) = mean over features of max(0, 1 - std over the batch); c(k) = sum of the squared
    covariances of different features, over their number. A constant costs 1 in each v.
    """
    k1, k2, kp = (losses.at_least_float32(vector) for vector in vectors)
    agree = jnp.square(k1 - kp).mean() + jnp.square(k2 - kp).mean()
    return sum((_held_apart(k) for k in (k1, k2, kp)), start=agree)


def target(vectors: Sequence[Vectors], targets: Sequence[Vectors], temperature: float) -> Float[Array, ""]:
    """Half the sum over both views v of |unit(kp) - unit(q_v~)|^2 + |unit(k_v) - unit(sg(kp)~)|^2.

    FaceMAE predicts from what it sees what the target network knows of the whole face, and the encoder predicts
    FaceMAE's vector. The target network moves slowly and is held apart by BYOL's loss; a constant k or kp has no cosine
    with centred vectors, so that it costs 2.
    """
    k1, k2, kp = vectors
    known = jax.lax.stop_gradient(_centred(kp))
    terms = [losses.similarity(kp, _centred(q)) for q in targets]
    terms += [losses.similarity(k, known) for k in (k1, k2)]
    return jnp.stack(terms).mean(1).sum() / 2


POOLED: dict[str, PooledTie] = {"published": published, "variance": variance, "target": target}


def patch(cells: Tokens, tokens: Tokens, kept: Int[Array, "batch kept"], patches: int) -> Float[Array, ""]:
    """The mean over kept patches of |unit(e) - unit(sg(t)~)|^2.

    cells: e, what a head makes of the encoder's map of the plain image where a patch lies; tokens: t, FaceMAE's latent
    token of it, less the mean over the images of the batch that keep the same patch. So L_d trains the encoder's map,
    place by place, and L_r alone trains FaceMAE; its tokens tell images apart, a constant e does not.
    """
    goal = jax.lax.stop_gradient(centred_by_place(tokens, kept, patches))
    both = (x.reshape(-1, x.shape[-1]) for x in (cells, goal))
    return losses.similarity(*both).mean()


def centred_by_place(x: Tokens, kept: Int[AnyArray, "batch kept"], patches: int) -> Float[Array, "batch kept feature"]:
    """Tokens of the patches `kept`, less the mean over the images that keep the same patch; 0 where only one does."""
    x = losses.at_least_float32(x)
    place = jax.nn.one_hot(kept, patches, dtype=x.dtype)
    mean = jnp.einsum("bkn,bkd->nd", place, x) / jnp.maximum(place.sum((0, 1)), 1)[:, None]
    return x - jnp.einsum("bkn,nd->bkd", place, mean)


def _centred(x: Vectors) -> Float[Array, "batch feature"]:
    x = losses.at_least_float32(x)
    return x - x.mean(0)


def _held_apart(k: Vectors) -> Float[Array, ""]:
    """v(k) + c(k) / 25."""
    centred = _centred(k)
    spread = jnp.sqrt(jnp.square(centred).mean(0) + 1e-4)
    covariance = centred.T @ centred / max(len(k) - 1, 1)
    apart = jnp.square(covariance).sum() - jnp.square(jnp.diagonal(covariance)).sum()
    return jax.nn.relu(1 - spread).mean() + COVARIANCE * apart / k.shape[1]
