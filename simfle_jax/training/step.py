"""One training step, from uint8 images to the next state: the whole method in one function."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from simfle_jax import augment, losses, parallel
from simfle_jax.config import Config
from simfle_jax.models.simfle import Global, Local, draw_masking
from simfle_jax.training import instruments as metrics
from simfle_jax.training.optimizer import optimizer, schedule
from simfle_jax.training.state import TrainState, Tree, statistics, structures

Metrics = dict[str, jax.Array]


def image_keys(seed: int, step: jax.Array, batch: int) -> jax.Array:
    """One key [B] per image of the global batch: all randomness is a function of (seed, step, index)."""
    step_key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(batch))


def make_views(keys: jax.Array, images: jax.Array, config: Config) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two augmented views and the plain image of uint8 canvases [B, S, S, 3], normalised, in the compute type."""
    x1, x2 = (_normalised(x, config) for x in augment.two_views(keys, images, config.views))
    return x1, x2, plain_images(images, config)


def plain_images(images: jax.Array, config: Config) -> jax.Array:
    """uint8 canvases [B, S, S, 3] as FaceMAE sees them: plain_size, normalised, in the compute type."""
    return _normalised(augment.plain_view(images, config.views.plain_size), config)


def _normalised(views: jax.Array, config: Config) -> jax.Array:
    return augment.normalise(views, config.data.mean, config.data.std).astype(config.dtype)


def loss_terms(seen: Global, local: Local | None, targets: tuple[jax.Array, jax.Array], config: Config) -> Metrics:
    """The terms of the loss and their weighted sum, `loss/*`, as scalars."""
    first, second = (losses.similarity(p, q).mean() for p, q in zip(seen.predictions, targets))
    total = first + second
    terms = {"similarity": total}
    if local is not None:
        terms["reconstruction"] = losses.reconstruction(local.predicted, local.patches, local.masking.masked)
        total = total + terms["reconstruction"]
    if local is not None and local.distilled is not None:
        vectors = [*seen.distilled, local.distilled]
        terms["distillation"] = losses.mutual_distillation(vectors, config.temperature)
        total = total + config.alpha * terms["distillation"]
    if local is not None and local.matrix is not None:
        terms["grouping"] = losses.grouping(local.matrix, config.n_groups) ** 2
        total = total + config.beta * terms["grouping"]
    return {f"loss/{name}": term for name, term in {"total": total, **terms}.items()}


class Method:
    """SimFLE's computations for one config, as pure functions of a TrainState's plain dicts."""

    def __init__(self, config: Config, steps_per_epoch: int, mesh: Mesh | None = None):
        """mesh: the devices, over which `shard_state` spreads the state."""
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.mesh = mesh
        self.tx = optimizer(config, steps_per_epoch)
        self.learning_rate = schedule(config, steps_per_epoch)

    @functools.cached_property
    def graphs(self) -> tuple[Any, Any]:
        """The structures of SimFLE and of its target network; only tracing needs them, and they take a second to make."""
        return structures(self.config)

    def computed(self, params: Tree) -> Tree:
        """Parameters as the networks use them: in the compute type, and whole if the state is spread over devices.

        Cast once for both views, gradients are added before the devices exchange them; cast where each view uses them,
        every kernel of the trunk and the heads would be exchanged twice.
        """
        dtype = self.config.dtype
        params = jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 and x.dtype == jnp.float32 else x, params)
        return parallel.gathered(self.mesh, params) if self.mesh and self.config.shard_state else params

    def target_projections(self, params: Tree, stats: Tree, x1: jax.Array, x2: jax.Array) -> tuple[Any, Tree]:
        """(q1, q2) = (f'(x2), f'(x1)) in training mode, and the target's new statistics. Takes no gradient."""
        target = nnx.merge(self.graphs[1], self.computed(params), stats)
        _, q2 = target(x1, train=True)
        _, q1 = target(x2, train=True)
        return (q1, q2), statistics(target)

    def loss(self, params: Tree, stats: Tree, views: Any, draw: jax.Array, targets: Any) -> tuple[jax.Array, Any]:
        """The total loss and (metrics, new statistics, outputs of both branches)."""
        x1, x2, plain = views
        model = nnx.merge(self.graphs[0], self.computed(params), stats)
        seen = model.global_branch(x1, x2)
        local = model.local_branch(plain, draw) if self.config.model.facemae else None
        terms = loss_terms(seen, local, targets, self.config)
        return terms["loss/total"], (terms, statistics(model), (seen, local))

    def gradients(self, state: TrainState, views: Any, draw: jax.Array) -> tuple[Tree, Metrics, Tree, Tree]:
        """Gradients, metrics and the new statistics of both networks for one batch of views."""
        targets, target_stats = self.target_projections(state.target_params, state.target_stats, *views[:2])
        (_, (terms, stats, outputs)), grads = jax.value_and_grad(self.loss, has_aux=True)(
            state.params, state.stats, views, draw, targets
        )
        return grads, terms | metrics.of_outputs(outputs[0], outputs[1], self.config), stats, target_stats

    def update(self, state: TrainState, grads: Tree, stats: Tree, target_stats: Tree) -> TrainState:
        """The optimizer's step, then the target's EMA step."""
        updates, opt_state = self.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        target_params = optax.incremental_update(params["online"], state.target_params, 1 - self.config.ema_decay)
        return TrainState(state.step + 1, params, stats, target_params, target_stats, opt_state)

    def train_step(self, state: TrainState, images: jax.Array) -> tuple[TrainState, Metrics]:
        """One step on uint8 canvases [B, S, S, 3]: the next state and the metrics of this step.

        In float32 products are exact on every backend; accelerators would round their factors by default.
        """
        keys = image_keys(self.config.seed, state.step, len(images))
        with jax.default_matmul_precision("float32" if self.config.dtype == "float32" else "default"):
            grads, terms, stats, target_stats = self.accumulated(state, keys, images)
        terms["learning_rate"] = self.learning_rate(state.step)
        return self.update(state, grads, stats, target_stats), terms

    def jitted(
        self, shardings: Any, options: dict[str, Any] | None = None, step: Callable[..., Any] | None = None
    ) -> Any:
        """`train_step` on the mesh: the state, placed by `shardings`, is donated; the images are split along `data`.

        options: for the compiler.
        step: another function of the same arguments and results.
        """
        assert self.mesh is not None
        return jax.jit(
            step or self.train_step,
            in_shardings=(shardings, parallel.over_data(self.mesh)),
            out_shardings=(shardings, parallel.replicated(self.mesh)),
            donate_argnums=0,
            compiler_options=options,
        )

    def from_images(self, state: TrainState, keys: jax.Array, images: jax.Array) -> tuple[Tree, Metrics, Tree, Tree]:
        """`gradients` of uint8 images, augmented and masked by their keys [B]."""
        views = make_views(keys, images, self.config)
        draw = draw_masking(jax.vmap(jax.random.fold_in, (0, None))(keys, 2), self.config)
        return self.gradients(state, views, draw)

    def accumulated(self, state: TrainState, keys: jax.Array, images: jax.Array) -> tuple[Tree, Metrics, Tree, Tree]:
        """`from_images` over `accumulate` micro-batches, one after the other: means of gradients and metrics.

        BatchNorm and the grouping matrix see one micro-batch at a time and the running statistics move once for each,
        so the result is not that of the whole batch. Micro-batch j holds the rows j, j + accumulate, ..., so that each
        device has its share of every one.
        """
        parts = self.config.accumulate
        if parts == 1:
            return self.from_images(state, keys, images)

        def split(x: jax.Array) -> jax.Array:
            return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

        def body(carry: Any, chunk: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            sums, *stats = carry
            now = dataclasses.replace(state, stats=stats[0], target_stats=stats[1])
            grads, terms, *stats = self.from_images(now, *chunk)
            return (jax.tree.map(jnp.add, sums, (grads, terms)), *stats), None

        chunks = split(keys), split(images)
        shapes = jax.eval_shape(self.from_images, state, *(chunk[0] for chunk in chunks))[:2]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (sums, stats, target_stats), _ = jax.lax.scan(body, (zeros, state.stats, state.target_stats), chunks)
        grads, terms = jax.tree.map(lambda x: x / parts, sums)
        return grads, terms, stats, target_stats
