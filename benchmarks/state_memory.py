"""Memory of the paper-size state on each of 8 fake devices, as live arrays, replicated or spread by `shard_state`.

python -m benchmarks.state_memory            # 11 GiB of memory
python -m benchmarks.state_memory --shard
"""

import os
import resource
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp

from configs import simfle
from simfle_jax import parallel
from simfle_jax.config import pretraining
from simfle_jax.training.step import TrainStep


def main(shard: bool) -> None:
    """Makes the state and asks every device for what it holds."""
    settings = simfle.get_config()
    settings.data.path = "unused"
    config, mesh = pretraining(settings), parallel.data_mesh()
    train_step = TrainStep(config, 1, mesh)
    shapes = jax.eval_shape(train_step.fresh_state)
    shardings = parallel.state_shardings(mesh, shapes, shard)

    def zeros() -> object:  # where arrays lie does not depend on what is in them
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    state = jax.block_until_ready(jax.jit(zeros, out_shardings=shardings)())
    held = dict.fromkeys(jax.devices(), 0)
    for array in jax.tree.leaves(state):
        for part in array.addressable_shards:
            held[part.device] += part.data.nbytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    least, most = min(held.values()) / 2**30, max(held.values()) / 2**30
    print(f"{least:.4f} to {most:.4f} GiB on each of {len(held)} devices; the process's peak is {peak:.2f} GiB")


if __name__ == "__main__":
    main("--shard" in sys.argv)
