"""The MLP head that serves as projection, predictor and both distillation heads."""

import jax
from flax import nnx

from simfle_jax.models.layers import BatchNorm, Linear


class MLPHead(nnx.Module):
    """Linear - BatchNorm - ReLU - Linear: [B, inputs] to [B, outputs]."""

    def __init__(self, inputs: int, hidden: int, outputs: int, rngs: nnx.Rngs):
        self.hidden = Linear(inputs, hidden, rngs)
        self.bn = BatchNorm(hidden)
        self.out = Linear(hidden, outputs, rngs)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return self.out(jax.nn.relu(self.bn(self.hidden(x), train)))
