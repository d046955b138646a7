"""The MLP heads: projectors, predictors and distillation heads."""

import itertools

import jax
from flax import nnx
from jaxtyping import Array, Float

from simfle_jax.arrays import AnyArray
from simfle_jax.models.layers import BatchNorm, Linear


class MLPHead(nnx.Module):
    """Linear - BatchNorm - ReLU - Linear. BYOL's and SimFLE's head for everything."""

    def __init__(self, inputs: int, hidden: int, outputs: int, rngs: nnx.Rngs):
        self.hidden = Linear(inputs, hidden, rngs)
        self.bn = BatchNorm(hidden)
        self.out = Linear(hidden, outputs, rngs)

    def __call__(self, x: Float[AnyArray, "batch input"], train: bool) -> Float[Array, "batch output"]:
        return self.out(jax.nn.relu(self.bn(self.hidden(x), train)))


class NormalisedHead(nnx.Module):
    """`layers` times Linear - BatchNorm, with ReLU between them.

    The projector of SimSiam and MoCo v3: what it gives has mean 0 and variance 1 over the batch.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, rngs: nnx.Rngs, layers: int = 3):
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        self.linears = nnx.List([Linear(a, b, rngs) for a, b in itertools.pairwise(widths)])
        self.norms = nnx.List([BatchNorm(width) for width in widths[1:-1]] + [BatchNorm(outputs, affine=False)])

    def __call__(self, x: Float[AnyArray, "batch input"], train: bool) -> Float[Array, "batch output"]:
        for i, (linear, norm) in enumerate(zip(self.linears, self.norms)):
            x = norm(linear(x), train)
            x = jax.nn.relu(x) if i < len(self.linears) - 1 else x
        return x
