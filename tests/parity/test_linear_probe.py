"""Ten full-batch steps of the linear probe against golden/units.npz, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, fill, inputs

from simfle_jax.evaluation.linear import Labelled, Linear, sgd_step

pytestmark = pytest.mark.usefixtures("float64")


def test_probe(golden):
    units = np.load(golden / "units.npz")
    seed, salt = int(units["meta/seed"]), int(units["meta/salt"])
    labels = np.random.RandomState(seed + 11).randint(0, 7, 64)
    images = Labelled(jnp.abs(jnp.asarray(inputs(seed + 10, 64, 2048))), jnp.asarray(labels))
    layer = Linear(jnp.asarray(fill("fc.weight", (7, 2048), salt), jnp.float64).T, jnp.zeros(7))
    velocity = Linear(jnp.zeros((2048, 7)), jnp.zeros(7))
    losses = []
    for _ in range(10):
        layer, velocity, loss = sgd_step(layer, velocity, images, jnp.ones(64), 0.5 * 64 / 256, 0.9)
        losses.append(loss)
    assert_close(np.stack(losses), units["probe/losses"], 1e-9, "losses")
    assert_close(layer.kernel.T[:, :8], units["probe/weight_head"], 1e-9, "weights")
