"""Five steps on as many devices as there are; prints one JSON object. Run in a process of its own.

    python tests/distributed/steps.py DTYPE DEVICES [shard]
"""

import dataclasses
import json
import os
import re
import sys

dtype, devices, *options = sys.argv[1:]
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import small  # noqa: E402

from simfle_jax import parallel  # noqa: E402
from simfle_jax.training.state import init_state  # noqa: E402
from simfle_jax.training.step import Method  # noqa: E402

BATCH, STEPS = 32, 5
jax.config.update("jax_enable_x64", dtype == "float64")
COLLECTIVE = re.compile(r"= .*? (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def batch(step: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Two views, the plain image, and a group for each image."""
    random = np.random.default_rng(step)
    views = [random.normal(size=(BATCH, 16, 16, 3)).astype(dtype) for _ in range(3)]
    return views, random.integers(0, 4, BATCH)


def main() -> None:
    """Losses of every step, and the sum of squares of the final parameters."""
    # A small rate: with a large one the steps are chaotic, and float32 shows chaos instead of the devices.
    config = dataclasses.replace(small.config(batch_size=BATCH, lr=0.005), dtype=dtype, shard_state="shard" in options)
    mesh = parallel.data_mesh()
    method = Method(config, 100, mesh)

    def fresh():
        return jax.tree.map(lambda x: x.astype(dtype) if x.dtype != np.int32 else x, init_state(config, method.tx))

    shardings = parallel.state_shardings(mesh, jax.eval_shape(fresh), config.shard_state)
    over = parallel.over_data(mesh)

    def step(state, views, draw):
        grads, terms, stats, target_stats = method.gradients(state, views, draw)
        return method.update(state, grads, stats, target_stats), terms

    with jax.threefry_partitionable(True):
        state = jax.jit(fresh, out_shardings=shardings)()
    run = jax.jit(step, in_shardings=(shardings, over, over), out_shardings=(shardings, parallel.replicated(mesh)))
    compiled = run.lower(state, *batch(0)).compile()
    found = {"losses": [], "devices": jax.device_count()}
    for i in range(STEPS):
        state, terms = compiled(state, *jax.device_put(batch(i), over))
        found["losses"].append({name: float(value) for name, value in terms.items() if "rank" not in name})
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get((state.params, state.stats, state.target_params)))[0]
    found["norms"] = {jax.tree_util.keystr(path): float(np.linalg.norm(leaf)) for path, leaf in leaves}
    found["collectives"] = COLLECTIVE.findall(compiled.as_text())
    found["bytes_per_device"] = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
