"""The parts of a training step, each as a compiled program of its own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from simfle_jax import losses
from simfle_jax.compilation import training_options
from simfle_jax.methods import byol
from simfle_jax.models.facemae import patchify
from simfle_jax.models.semantic_masking import mask_by_scores
from simfle_jax.training.state import TrainState
from simfle_jax.training.step import Statistics, TrainStep
from simfle_jax.views import image_keys, make_views

Part = Callable[[], Any]


def parts(train_step: TrainStep, state: TrainState, images: jax.Array) -> dict[str, Part]:
    """Calls that run one part each; they compile when they are made. Together they do a little more than a step."""
    jit = partial(jax.jit, compiler_options=training_options())
    augmented = augmentation(train_step, images)
    views, config = augmented(), train_step.config
    target = jit(train_step.targets)
    targets, target_stats = target(state.target_params, state.target_stats, views)
    online = jit(jax.grad(lambda params: _global_loss(train_step, params, state.stats, views, targets)))
    update = jit(train_step.update)
    grads = state.params
    found: dict[str, Part] = {
        "augmentation": augmented,
        "online forward and backward": lambda: online(state.params),
        "target": lambda: target(state.target_params, state.target_stats, views)[0],
        "update": lambda: update(state, grads, Statistics(state.stats, target_stats)),
    }
    if config.method == "simfle":
        facemae = jit(jax.grad(lambda params: _facemae_loss(train_step, params, state.stats, views.plain)))
        found["FaceMAE forward and backward"] = lambda: facemae(state.params)
    if config.method == "simfle" and config.facemae.masking == "semantic":
        grouping = jit(
            jax.value_and_grad(
                lambda params: _grouping_loss(train_step, params, state.stats, views.plain), has_aux=True
            )
        )
        found["grouping"] = lambda: grouping(state.params)
    return found


def augmentation(train_step: TrainStep, images: jax.Array) -> Part:
    """A call that makes the views of the first step."""
    config = train_step.config
    keys = image_keys(config.seed, jnp.asarray(0), len(images))
    program = jax.jit(lambda keys, images: make_views(keys, images, config), compiler_options=training_options())
    return lambda: program(keys, images)


def _global_loss(train_step: TrainStep, params: Any, stats: Any, views: Any, targets: Any) -> jax.Array:
    """BYOL's loss and, where there is distillation, something that needs both of its vectors."""
    networks = nnx.merge(train_step.graphs[0], params, stats)
    seen, loss = networks.see(views), jnp.zeros(())
    if hasattr(networks, "distil_gfl"):
        loss += sum(jnp.square(networks.distil_gfl(y, train=True)).mean() for y in seen.features)
    return loss + byol.similarity(seen.predictions, targets)


def _facemae_loss(train_step: TrainStep, params: Any, stats: Any, plain: jax.Array) -> jax.Array:
    model, config = nnx.merge(train_step.graphs[0], params, stats), train_step.config
    patches = patchify(plain, config.facemae.patch)
    masking = mask_by_scores(losses.at_least_float32(patches[..., 0]), config.kept_patches)
    latent = model.facemae.autoencoder.encode(patches, masking)
    predicted = model.facemae.autoencoder.decode(latent, masking)
    return losses.reconstruction(predicted, patches, masking.masked)


def _grouping_loss(train_step: TrainStep, params: Any, stats: Any, plain: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The grouping's loss and the scores of the patches, through the trunk's pass over the plain images."""
    scores, matrix = nnx.merge(train_step.graphs[0], params, stats).score_patches(plain)
    return losses.grouping(matrix, train_step.config.facemae.n_groups) ** 2, scores
