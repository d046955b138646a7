"""Products with a kernel and affine maps over the last axis, with gradients in the form that XLA:CPU is fast in.

The numbers are those of JAX's own rules; other backends choose their forms themselves.
"""

import jax
from jaxtyping import Float

from simfle_jax.arrays import AnyArray
from simfle_jax.kernels.backend import on_cpu
from simfle_jax.kernels.column_sums import column_sums

Arrays = tuple[AnyArray, ...]


@jax.custom_vjp
def product(
    x: Float[AnyArray, "*batch input"], kernel: Float[AnyArray, "input output"]
) -> Float[AnyArray, "*batch output"]:
    """x times kernel: a convolution of 1x1 on a map."""
    return x @ kernel


def _product_forward(x: AnyArray, kernel: AnyArray) -> tuple[AnyArray, Arrays]:
    return x @ kernel, (x, kernel)


def _product_backward(saved: Arrays, gradient: AnyArray) -> Arrays:
    x, kernel = saved
    return gradient @ kernel.T, of_kernel(x, gradient)


product.defvjp(_product_forward, _product_backward)


def of_kernel(
    x: Float[AnyArray, "*batch input"], gradient: Float[AnyArray, "*batch output"]
) -> Float[AnyArray, "input output"]:
    """The gradient of a kernel, from its input and the gradient of its output.

    XLA:CPU lays the first factor out anew, column by column, at a tenth of the speed of memory, so the narrower one
    comes first. JAX's own rule puts the gradient there.
    """
    axes = tuple(range(x.ndim - 1))
    numbers = ((axes, axes), ((), ()))
    if x.shape[-1] <= gradient.shape[-1] or not on_cpu():
        return jax.lax.dot_general(x, gradient, numbers)
    # Without the barrier XLA exchanges the factors to save this small transposition.
    return jax.lax.optimization_barrier(jax.lax.dot_general(gradient, x, numbers)).T


@jax.custom_vjp
def linear(
    x: Float[AnyArray, "*batch input"], kernel: Float[AnyArray, "input output"], bias: Float[AnyArray, " output"]
) -> Float[AnyArray, "*batch output"]:
    """x times kernel plus bias."""
    return x @ kernel + bias


def _linear_forward(x: AnyArray, kernel: AnyArray, bias: AnyArray) -> tuple[AnyArray, Arrays]:
    return linear(x, kernel, bias), (x, kernel, bias)


def _linear_backward(saved: Arrays, gradient: AnyArray) -> Arrays:
    x, kernel, bias = saved
    if on_cpu():  # once, not anew for each of its three uses: it may be a long sum
        gradient = jax.lax.optimization_barrier(gradient)
    (of_bias,) = column_sums(lambda gradient: (gradient,), gradient)
    return gradient @ kernel.T, of_kernel(x, gradient), of_bias.astype(bias.dtype)


linear.defvjp(_linear_forward, _linear_backward)


@jax.custom_vjp
def affine(
    x: Float[AnyArray, "*batch feature"], scale: Float[AnyArray, " feature"], bias: Float[AnyArray, " feature"]
) -> Float[AnyArray, "*batch feature"]:
    """x times scale plus bias, feature by feature."""
    return x * scale + bias


def _affine_forward(x: AnyArray, scale: AnyArray, bias: AnyArray) -> tuple[AnyArray, Arrays]:
    return affine(x, scale, bias), (x, scale, bias)


def _affine_backward(saved: Arrays, gradient: AnyArray) -> Arrays:
    x, scale, bias = saved
    of_bias, of_scale = column_sums(lambda gradient, x: (gradient, gradient * x), gradient, x)
    return gradient * scale, of_scale.astype(scale.dtype), of_bias.astype(bias.dtype)


affine.defvjp(_affine_forward, _affine_backward)
