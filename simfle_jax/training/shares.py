"""How much of what moves the encoder comes through its tie to FaceMAE; on demand, for it costs two steps."""

import functools

import jax
import optax
from jaxtyping import Array, Float, UInt8

from simfle_jax.arrays import AnyArray
from simfle_jax.methods.base import Tree
from simfle_jax.training.state import TrainState
from simfle_jax.training.step import TrainStep
from simfle_jax.views import image_keys, make_views


def encoder_share(
    train_step: TrainStep, state: TrainState, images: UInt8[AnyArray, "batch height width 3"]
) -> Float[Array, ""]:
    """`tie/encoder_share`: the norm of the trunk's gradient of alpha L_d over that of the rest of the loss.

    images: one batch of canvases, augmented as in the step that comes next. 0 where there is no tie.
    """
    config = train_step.config
    keys = image_keys(config.seed, state.step, len(images))
    views = make_views(keys, images, config)
    draw = train_step.method.draw(jax.vmap(jax.random.fold_in, (0, None))(keys, 2))
    targets, _ = train_step.targets(state.target_params, state.target_stats, views)

    def part(encoder: Tree, of_tie: bool) -> Float[Array, ""]:
        params = state.params | {"online": state.params["online"] | {"encoder": encoder}}
        total, (outcome, _) = train_step.loss(params, state.stats, views, targets, draw)
        tie = config.facemae.alpha * outcome.terms.get("loss/distillation", 0.0 * total)
        return tie if of_tie else total - tie

    encoder = state.params["online"]["encoder"]
    through, rest = (
        optax.tree.norm(jax.grad(functools.partial(part, of_tie=which))(encoder)) for which in (True, False)
    )
    return through / rest
