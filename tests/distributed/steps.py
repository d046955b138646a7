"""Five steps on as many devices as there are; prints one JSON object. Run in a process of its own.

    python tests/distributed/steps.py DTYPE DEVICES [shard] [save=DIR] [from=DIR] [join=HOST:PORT,PROCESSES,PROCESS]

DEVICES are those of each process. `save` writes a checkpoint after two steps, `from` begins with it.
"""

import dataclasses
import json
import os
import re
import sys

dtype, devices, *given = sys.argv[1:]
options = dict(option.partition("=")[::2] for option in given)
# A device that waits for another holds a thread of XLA's pool: with as many threads as cores all may wait for ever. And
# it gives up after 40 s, which a busy machine may take.
os.environ["NPROC"] = "8"
PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=600 --xla_cpu_collective_timeout_seconds=600"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices} {PATIENT}"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import small  # noqa: E402

from simfle_jax import parallel  # noqa: E402
from simfle_jax.runs.checkpoint import Checkpoints  # noqa: E402
from simfle_jax.training.step import Statistics, TrainStep  # noqa: E402
from simfle_jax.views import Views  # noqa: E402

BATCH, STEPS = 32, 5
jax.config.update("jax_enable_x64", dtype == "float64")
# LLVM's optimisation takes two thirds of the time and leaves the program's collectives as they are.
QUICKLY = {"xla_backend_optimization_level": 0}
COLLECTIVE = re.compile(r"= .*? (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def batch(step: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Two views, the plain image, and a group for each image of the global batch."""
    random = np.random.default_rng(step)
    views = [random.normal(size=(BATCH, 16, 16, 3)).astype(dtype) for _ in range(3)]
    return views, random.integers(0, 4, BATCH)


def join() -> None:
    """Joins the other processes, if there are any."""
    if "join" in options:
        address, count, index = options["join"].split(",")
        jax.distributed.initialize(address, int(count), int(index), cluster_detection_method="deactivate")


def on_devices(step: int, mesh: jax.sharding.Mesh):
    """The global batch of a step; this process gives its rows."""
    share = BATCH // jax.process_count()
    rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    return jax.tree.map(lambda x: parallel.to_devices(x[rows], mesh), batch(step))


def main() -> None:
    """Losses of every step, and the final parameters and statistics."""
    # A small rate: with a large one the steps are chaotic, and float32 shows chaos instead of the devices.
    facemae = {"tie": "patch", "plain_in_averages": False}  # the default's
    config = small.config(batch_size=BATCH, lr=0.005, facemae=facemae)
    config = dataclasses.replace(config, dtype=dtype, shard_state="shard" in options)
    join()
    mesh = parallel.data_mesh()
    train_step = TrainStep(config, 100, mesh)

    def fresh():
        return jax.tree.map(lambda x: x.astype(dtype) if x.dtype != np.int32 else x, train_step.fresh_state())

    shardings = parallel.state_shardings(mesh, jax.eval_shape(fresh), config.shard_state)
    over = parallel.over_data(mesh)

    def step(state, views, draw):
        stats = Statistics(state.stats, state.target_stats)
        (grads, terms), stats = train_step.gradients(state, stats, Views(*views), draw)
        return train_step.update(state, grads, stats), terms

    with jax.threefry_partitionable(True):
        state = jax.jit(fresh, out_shardings=shardings, compiler_options=QUICKLY)()
    if "from" in options:
        with Checkpoints(options["from"]) as checkpoints:
            state = checkpoints.restore(jax.eval_shape(fresh), shardings)
    run = jax.jit(step, in_shardings=(shardings, over, over), out_shardings=(shardings, parallel.replicated(mesh)))
    compiled = run.lower(state, *on_devices(0, mesh)).compile(QUICKLY)
    found = {"losses": [], "devices": jax.device_count()}
    for i in range(int(state.step), STEPS):
        state, terms = compiled(state, *on_devices(i, mesh))
        found["losses"].append({name: float(value) for name, value in terms.items() if "rank" not in name})
        if i == 1 and "save" in options:
            with Checkpoints(options["save"]) as checkpoints:
                checkpoints.save(state, wait=True)
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get((state.params, state.stats, state.target_params)))[0]
    found["arrays"] = {jax.tree_util.keystr(path): leaf.ravel().tolist() for path, leaf in leaves}
    found["collectives"] = COLLECTIVE.findall(compiled.as_text())
    found["bytes_per_device"] = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
