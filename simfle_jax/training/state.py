"""Everything that training changes, as plain dicts of arrays."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from simfle_jax.errors import UserError
from simfle_jax.methods.base import Method, Tree


@flax.struct.dataclass
class TrainState:
    """The parts of a training state, and the number of steps taken.

    params and stats belong to the trained networks, target_* to the target network, whose parameters follow
    `params["online"]` and whose BatchNorm statistics are its own; they are empty in methods that have none.
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


def structures(method: Method) -> tuple[Any, Any]:
    """The structures (graphdefs) of a method's networks and of its target network (or None); no array is made."""
    networks = split(nnx.eval_shape(lambda: method.networks(nnx.Rngs(0))))[0]
    target = split(nnx.eval_shape(lambda: method.target(nnx.Rngs(0))))[0] if method.has_target else None
    return networks, target


def init_state(method: Method, tx: optax.GradientTransformation, trunk: dict[str, Tree] | None = None) -> TrainState:
    """A fresh state from config.seed. Trace it under jit with shardings, so that large arrays are born in place.

    trunk: 'params' and 'stats' of a trunk to start from instead of a random one.
    """
    _, params, stats = split(method.networks(nnx.Rngs(method.config.seed)))
    if trunk is not None:
        params["online"]["encoder"] = jax.tree.map(jnp.asarray, trunk["params"])
        stats["online"]["encoder"] = jax.tree.map(jnp.asarray, trunk["stats"])
    target_params: Tree = {}
    target_stats: Tree = {}
    if method.has_target:
        target_params, target_stats = jax.tree.map(jnp.copy, (params["online"], stats["online"]))
    return TrainState(jnp.zeros((), jnp.int32), params, stats, target_params, target_stats, tx.init(params))


def trunk_of(state: TrainState, branch: str = "online") -> dict[str, Tree]:
    """'params' and 'stats' of the trunk of the online or the target network; nobody else knows where it lies.

    Raises:
        UserError: the target network's is asked for, and the method has none.
    """
    if branch == "target" and not state.target_params:
        raise UserError("this run's method has no target network, only the online branch: leave the branch out")
    if branch == "target":
        params, stats = state.target_params, state.target_stats
    else:
        params, stats = state.params["online"], state.stats["online"]
    return {"params": params["encoder"], "stats": stats["encoder"]}
