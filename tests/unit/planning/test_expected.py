"""FLOPs counted from programs against the formulas."""

import jax
import jax.numpy as jnp
import small

from simfle_jax.config import pretraining
from simfle_jax.planning.expected import exchanged, products
from simfle_jax.training.step import TrainStep


def count(f, *shapes) -> float:
    return products(jax.make_jaxpr(f)(*(jnp.zeros(s) for s in shapes)).jaxpr)


def test_a_batched_matrix_product():
    assert count(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (5, 2, 3), (5, 3, 4)) == 2 * 5 * 2 * 3 * 4


def conv(x, k, stride=2):
    return jax.lax.conv_general_dilated(
        x, k, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_a_strided_convolution():
    assert count(conv, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * (2 * 4 * 4 * 5) * 3 * 3 * 3


def test_the_gradients_of_a_convolution_cost_as_much_as_it_each():
    def both(x, k):
        return jax.grad(lambda x, k: (conv(x, k) ** 2).sum(), argnums=(0, 1))(x, k)

    forward = count(conv, (2, 8, 8, 3), (3, 3, 3, 5))
    assert 2.9 * forward < count(both, (2, 8, 8, 3), (3, 3, 3, 5)) < 3.2 * forward


def test_loops_and_jitted_functions_are_entered():
    def looped(x):
        return jax.lax.scan(lambda x, _: (jax.jit(lambda x: x @ x)(x), None), x, length=7)[0]

    assert count(looped, (3, 3)) == 7 * 2 * 3**3


def test_a_vits_positions_are_not_exchanged():
    trunk = {"kind": "vit", "stage_sizes": (1,), "width": 16, "heads": 2, "patch": 4}
    config = pretraining(small.settings(method="mae", trunk=trunk, facemae={"masking": "random"}))
    state = jax.eval_shape(TrainStep(config, 1).fresh_state)
    assert exchanged(config, state)["statistics"] == 0  # a ViT and MAE's decoder have no BatchNorm
