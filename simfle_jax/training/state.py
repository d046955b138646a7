"""Everything that training changes, as plain dicts of arrays."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from simfle_jax.config import Config
from simfle_jax.models.simfle import Network, SimFLE

Tree = Any  # nested dicts of arrays


@flax.struct.dataclass
class TrainState:
    """BYOL's five parts and the number of steps taken.

    params and stats belong to the trained networks (the online network, all heads, FaceMAE), target_* to the target
    network, whose parameters follow the online ones by EMA and whose BatchNorm statistics are its own.
    """

    step: jax.Array
    params: Tree
    stats: Tree
    target_params: Tree
    target_stats: Tree
    opt_state: Tree


def split(module: nnx.Module) -> tuple[Any, Tree, Tree]:
    """A module's structure, its parameters and its statistics, the latter two as plain dicts."""
    parts: Any = nnx.split(module, nnx.Param, nnx.BatchStat)
    return parts[0], nnx.to_pure_dict(parts[1]), nnx.to_pure_dict(parts[2])


def statistics(module: nnx.Module) -> Tree:
    """A module's BatchNorm statistics as a plain dict."""
    return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


def structures(config: Config) -> tuple[Any, Any]:
    """The structures (graphdefs) of SimFLE and of its target network; no array is made."""
    model = nnx.eval_shape(lambda: SimFLE(config, nnx.Rngs(0)))
    target = nnx.eval_shape(lambda: Network(config, nnx.Rngs(0)))
    return split(model)[0], split(target)[0]


def init_state(config: Config, tx: optax.GradientTransformation, trunk: dict[str, Tree] | None = None) -> TrainState:
    """A fresh state from config.seed. Trace it under jit with shardings, so that large arrays are born in place.

    trunk: 'params' and 'stats' of a trunk to start from instead of a random one.
    """
    _, params, stats = split(SimFLE(config, nnx.Rngs(config.seed)))
    if trunk is not None:
        params["online"]["encoder"] = jax.tree.map(jnp.asarray, trunk["params"])
        stats["online"]["encoder"] = jax.tree.map(jnp.asarray, trunk["stats"])
    target_params, target_stats = jax.tree.map(jnp.copy, (params["online"], stats["online"]))
    return TrainState(jnp.zeros((), jnp.int32), params, stats, target_params, target_stats, tx.init(params))
