"""One training step, from uint8 images to the next state, whatever the method.

In the order in which it happens: views, targets, loss and gradients, update, after the update.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from simfle_jax import instruments, parallel
from simfle_jax.canvases import Images
from simfle_jax.config import Config
from simfle_jax.methods import find_method
from simfle_jax.methods.base import Metrics, Outcome, Tree
from simfle_jax.training.accumulation import in_parts
from simfle_jax.training.optimizer import ema_decay, optimizer, schedule
from simfle_jax.training.state import TrainState, init_state, statistics, structures
from simfle_jax.views import Views, image_keys, make_views


class Statistics(NamedTuple):
    """The BatchNorm statistics of the trained networks and of the target network."""

    online: Tree
    target: Tree


class TrainStep:
    """The computations of one config, as pure functions of a TrainState's plain dicts."""

    def __init__(self, config: Config, steps_per_epoch: int, mesh: Mesh | None = None):
        """mesh: the devices, over which `shard_state` spreads the state."""
        self.config, self.steps_per_epoch, self.mesh = config, steps_per_epoch, mesh
        self.method = find_method(config)
        self.tx = optimizer(config, steps_per_epoch)
        self.learning_rate = schedule(config, steps_per_epoch)

    @functools.cached_property
    def graphs(self) -> tuple[Any, Any]:
        """The structures of the trained networks and of the target network; only tracing needs them, and they take a
        second to make."""
        return structures(self.method)

    def fresh_state(self, trunk: dict[str, Tree] | None = None) -> TrainState:
        """The state at step 0, from config.seed; `trunk` as for `init_state`."""
        return init_state(self.method, self.tx, trunk)

    def __call__(self, state: TrainState, images: Images) -> tuple[TrainState, Metrics]:
        """One step on uint8 canvases [B, S, S, 3], or Canvases: the next state and the metrics of this step.

        In float32 products are exact on every backend; accelerators would round their factors by default.
        """
        keys = image_keys(self.config.seed, state.step, len(images))
        gradients = functools.partial(self.gradients_of_images, state)
        stats = Statistics(state.stats, state.target_stats)
        with jax.default_matmul_precision("float32" if self.config.dtype == "float32" else "default"):
            (grads, metrics), stats = in_parts(gradients, self.config.accumulate, stats, keys, images)
        metrics["learning_rate"] = self.learning_rate(state.step)
        return self.update(state, grads, stats), metrics

    def gradients_of_images(
        self, state: TrainState, stats: Statistics, keys: Key[Array, " batch"], images: Images
    ) -> tuple[tuple[Tree, Metrics], Statistics]:
        """`gradients` of images, augmented and masked by their keys."""
        views = make_views(keys, images, self.config)
        draw = self.method.draw(jax.vmap(jax.random.fold_in, (0, None))(keys, 2))
        return self.gradients(state, stats, views, draw)

    def gradients(
        self, state: TrainState, stats: Statistics, views: Views, draw: Any
    ) -> tuple[tuple[Tree, Metrics], Statistics]:
        """(gradients, metrics) and the new statistics for one batch of views."""
        targets, target_stats = self.targets(state.target_params, stats.target, views)
        differentiated = jax.value_and_grad(self.loss, has_aux=True)
        (_, (outcome, online_stats)), grads = differentiated(state.params, stats.online, views, targets, draw)
        metrics = outcome.terms | self.method.instruments(outcome.outputs)
        metrics |= instruments.of_features(outcome.features, views.facts) if outcome.features is not None else {}
        return (grads, metrics), Statistics(online_stats, target_stats)

    def targets(self, params: Tree, stats: Tree, views: Views) -> tuple[Any, Tree]:
        """What the target network gives in training mode, and its new statistics."""
        if not self.method.has_target:
            return None, stats
        target = nnx.merge(self.graphs[1], self.computed(params), stats)
        return self.method.targets(target, views), statistics(target)

    def loss(
        self, params: Tree, stats: Tree, views: Views, targets: Any, draw: Any
    ) -> tuple[Float[Array, ""], tuple[Outcome, Tree]]:
        """The total loss, and (the method's outcome, new statistics)."""
        networks = nnx.merge(self.graphs[0], self.computed(params), stats)
        outcome = self.method.loss(networks, views, targets, draw)
        return outcome.loss, (outcome, statistics(networks))

    def update(self, state: TrainState, grads: Tree, stats: Statistics) -> TrainState:
        """The optimizer's step, then what follows it: the target network's."""
        updates, opt_state = self.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        target_params = state.target_params
        if self.method.has_target:
            decay = ema_decay(self.config, self.steps_per_epoch, state.step)
            target_params = self.method.after_update(params["online"], target_params, decay)
        return TrainState(state.step + 1, params, stats.online, target_params, stats.target, opt_state)

    def computed(self, params: Tree) -> Tree:
        """Parameters as the networks use them: in the compute type, and whole if the state is spread over devices.

        Cast once for both views, gradients are added before the devices exchange them; cast where each view uses them,
        every kernel of the trunk and the heads would be exchanged twice.
        """
        dtype = self.config.dtype
        params = jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 and x.dtype == jnp.float32 else x, params)
        return parallel.gathered(self.mesh, params) if self.mesh and self.config.shard_state else params

    def jitted(
        self, shardings: Any, options: dict[str, Any] | None = None, step: Callable[..., Any] | None = None
    ) -> Any:
        """The step on the mesh: the state, placed by `shardings`, is donated; the images are split along `data`.

        options: for the compiler.
        step: another function of the same arguments and results.
        """
        assert self.mesh is not None

        def train_step(state: TrainState, images: Images) -> tuple[TrainState, Metrics]:
            return self(state, images)

        return jax.jit(
            step or train_step,
            in_shardings=(shardings, parallel.over_data(self.mesh)),
            out_shardings=(shardings, parallel.replicated(self.mesh)),
            donate_argnums=0,
            compiler_options=options,
        )
