"""The four layers that every network here is made of.

Each computes in the type of its input and keeps its parameters in the type that they were made in, so one network
serves float64 proofs, float32 and bfloat16. Statistics and normalisations are computed in float32 at least.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from simfle_jax.arrays import AnyArray
from simfle_jax.kernels.backend import on_cpu, on_tpu
from simfle_jax.kernels.batch_norm import EPSILON, normalise_batch, scaled
from simfle_jax.kernels.convolution import convolve
from simfle_jax.kernels.precision import at_least_float32
from simfle_jax.kernels.product import affine, linear, product

Initializer = Callable[..., jax.Array]
he_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def torch_uniform(key: Key[Array, ""], shape: tuple[int, ...], fan_in: int) -> Float[Array, "..."]:
    """PyTorch's default for the weights and biases of a linear layer: uniform within 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class Linear(nnx.Module):
    """y = x W + b with W [inputs, outputs]; PyTorch's default initialisation, or Xavier with zero bias for a ViT."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs, xavier: bool = False):
        if xavier:
            self.kernel = nnx.Param(jax.nn.initializers.xavier_uniform()(rngs.params(), (inputs, outputs)))
            self.bias = nnx.Param(jnp.zeros(outputs))
        else:
            self.kernel = nnx.Param(torch_uniform(rngs.params(), (inputs, outputs), inputs))
            self.bias = nnx.Param(torch_uniform(rngs.params(), (outputs,), inputs))

    def __call__(self, x: Float[AnyArray, "*batch input"]) -> Float[AnyArray, "*batch output"]:
        return linear(x, self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype))


class Conv(nnx.Module):
    """A convolution without bias, NHWC, kernel [size, size, inputs, outputs], padded by size // 2 as in torchvision."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = nnx.Param(he_fan_out(rngs.params(), (size, size, inputs, outputs)))

    def __call__(
        self, x: Float[AnyArray, "batch height width input"]
    ) -> Float[Array, "batch (height-1)//{self.stride}+1 (width-1)//{self.stride}+1 output"]:
        kernel = self.kernel[...].astype(x.dtype)
        size, s = kernel.shape[0], self.stride
        # A matrix product is twice as fast on XLA:CPU and the same elsewhere. XLA:GPU fuses a strided slice into Triton's
        # products as if it had no stride, and aborts at some sizes ("subdim_size_accumulator == dim_size", jaxlib 0.11.2).
        if size == 1 and (s == 1 or on_cpu() or on_tpu()):
            return product(x[:, ::s, ::s], kernel[0, 0])
        return convolve(x, kernel, s)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, as PyTorch computes it.

    In training the batch's own statistics normalise, and the running ones take a tenth of them: the mean, and the
    *unbiased* variance (flax's own layer keeps the biased one). Under jit with a sharded batch the statistics are those
    of the global batch.

    affine: whether a trained scale and offset follow.
    """

    def __init__(self, features: int, affine: bool = True):
        self.affine = affine
        if affine:
            self.scale = nnx.Param(jnp.ones(features))
            self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))

    def __call__(self, x: Float[AnyArray, "*batch channel"], train: bool) -> Float[Array, "*batch channel"]:
        if self.affine:
            scale, bias = self.scale[...], self.bias[...]
        else:
            scale, bias = jnp.ones_like(self.mean[...]), jnp.zeros_like(self.mean[...])
        if not train:
            return scaled(x, self.mean[...], jax.lax.rsqrt(self.var[...] + EPSILON), scale, bias)
        y, mean, var = normalise_batch(x, scale, bias)
        count = x.size // x.shape[-1]
        self.mean.set_value(0.9 * self.mean[...] + 0.1 * mean)
        self.var.set_value(0.9 * self.var[...] + 0.1 * var * (count / max(count - 1, 1)))
        return y


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, eps 1e-6 as in MAE."""

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: Float[AnyArray, "*batch feature"]) -> Float[Array, "*batch feature"]:
        wide = at_least_float32(x)
        mean = wide.mean(-1, keepdims=True)
        var = jnp.square(wide - mean).mean(-1, keepdims=True)
        y = (wide - mean) * jax.lax.rsqrt(var + 1e-6)
        return affine(y, self.scale[...], self.bias[...]).astype(x.dtype)
