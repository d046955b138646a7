"""Fine-tuning, the computation: trunk and head trained together, the early blocks more slowly.

Layer-wise rates are BEiT's and MAE's: `layer_decay` to the power of the blocks between a parameter and the classifier.
Everything random is a function of (seed, step, place in the batch), so what is continued ends as if uninterrupted.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from simfle_jax import augment
from simfle_jax.config import OptimizerSettings
from simfle_jax.encoder import Encoder
from simfle_jax.evaluation.features import CROP_RATIO, CROP_SCALE, FLIP
from simfle_jax.evaluation.linear import Linear, new_layer
from simfle_jax.evaluation.settings import Probe
from simfle_jax.training.optimizer import optimizer, schedule
from simfle_jax.training.state import statistics
from simfle_jax.views import image_keys

Tree = Any
Path = tuple[str | int, ...]


@flax.struct.dataclass
class TuneState:
    """All that fine-tuning changes; params holds `trunk` and `fc`, what reads its features."""

    step: jax.Array
    params: Tree
    stats: Tree
    opt_state: Tree


@dataclasses.dataclass(frozen=True)
class Course:
    """What the optimizer needs to know of a fine-tuning."""

    optimizer: OptimizerSettings
    batch_size: int
    epochs: int


class Tuning(ABC):
    """One step of fine-tuning, as a pure function of a TuneState; the head and what it learns are the subclass's."""

    def __init__(self, encoder: Encoder, probe: Probe, batch_size: int, steps_per_epoch: int):
        self.encoder, self.seed, self.settings = encoder, probe.seed, probe.finetune
        tune = probe.finetune
        moves = OptimizerSettings(
            name=tune.optimizer, lr=tune.lr, momentum=probe.momentum, weight_decay=tune.weight_decay, ema_decay=0.0,
            warmup_epochs=tune.warmup_epochs, schedule="step", decay="kernels",
        )  # fmt: skip
        course = Course(moves, batch_size, probe.epochs)
        self.learning_rate = schedule(course, steps_per_epoch)
        slower = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, self.rates(updates)))
        self.tx = optax.chain(optimizer(course, steps_per_epoch), slower)

    def fresh_state(self) -> TuneState:
        """The encoder's arrays and a new head, at step 0."""
        params = {"trunk": self.encoder.arrays["params"], "fc": self.fresh_head()}
        return TuneState(jnp.zeros((), jnp.int32), params, self.fresh_statistics(), self.tx.init(params))

    @abstractmethod
    def fresh_head(self) -> Tree:
        """The parameters of a new head."""

    def fresh_statistics(self) -> Tree:
        """All that is counted and not learned: the trunk's BatchNorm statistics."""
        return self.encoder.arrays["stats"]

    @abstractmethod
    def batch(self, step: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Normalised views [B, size, size, 3] of uint8 images [B, S, S, 3], and what is to be learned of them."""

    @abstractmethod
    def loss(self, params: Tree, stats: Tree, views: jax.Array, targets: jax.Array) -> tuple[jax.Array, Tree]:
        """The loss on what `batch` gave, and the new statistics."""

    def rates(self, params: Tree) -> Tree:
        """Of every parameter: its learning rate over that of the head."""
        trunk = block_rates(params["trunk"], self.settings.layer_decay)
        return {"trunk": trunk, "fc": jax.tree.map(lambda _: 1.0, params["fc"])}

    def __call__(
        self, state: TuneState, images: jax.Array, targets: jax.Array
    ) -> tuple[TuneState, dict[str, jax.Array]]:
        """The next state and the metrics of one step on uint8 images [B, S, S, 3] with their targets [B, ...]."""
        views, targets = self.batch(state.step, images, targets)
        with jax.default_matmul_precision("float32"):
            differentiated = jax.value_and_grad(self.loss, has_aux=True)
            (loss, stats), grads = differentiated(state.params, state.stats, views, targets)
        updates, opt_state = self.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss/train": loss, "learning_rate": self.learning_rate(state.step)}
        return TuneState(state.step + 1, params, stats, opt_state), metrics


class TuneStep(Tuning):
    """The step with a linear classifier, on labels."""

    def __init__(self, encoder: Encoder, n_classes: int, probe: Probe, batch_size: int, steps_per_epoch: int):
        super().__init__(encoder, probe, batch_size, steps_per_epoch)
        self.n_classes = n_classes

    def fresh_head(self) -> Linear:
        return new_layer(self.seed, self.encoder.dim, self.n_classes)

    def batch(self, step: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the networks see: normalised random crops [B, size, size, 3], and shares of the classes [B, K]."""
        keys = image_keys(self.seed, step, len(images))
        views = augment.random_crop_and_flip(keys, images, self.encoder.size, CROP_SCALE, CROP_RATIO, FLIP)
        targets = optax.smooth_labels(jax.nn.one_hot(targets, self.n_classes), self.settings.label_smoothing)
        if self.settings.mixup:
            # One share for the batch, whose images are mixed with those of the reversed batch (Zhang et al. 2018).
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), step), len(images))
            share = jax.random.beta(key, self.settings.mixup, self.settings.mixup)
            views, targets = (share * x + (1 - share) * x[::-1] for x in (views, targets))
        return self.encoder.preprocess(views), targets

    def loss(self, params: Tree, stats: Tree, views: jax.Array, targets: jax.Array) -> tuple[jax.Array, Tree]:
        """The mean cross-entropy, and the new BatchNorm statistics."""
        features, stats = self.encoder.training_features({"params": params["trunk"], "stats": stats}, views, statistics)
        logits = params["fc"].logits(features.pooled)
        return optax.softmax_cross_entropy(logits, targets).mean(), stats


def block_rates(trunk: Tree, decay: float) -> Tree:
    """Of every parameter of a trunk: decay ** (blocks behind it + 1); the stem counts as the block before the first.

    A norm behind the last block goes with the classifier.
    """
    paths = [tuple(key.key for key in path) for path, _ in jax.tree_util.tree_flatten_with_path(trunk)[0]]
    blocks = sorted({_block(path) for path in paths} - {()})

    def rate(path: Path) -> float:
        if not _block(path):
            return 1.0 if "norm" in path else decay ** (len(blocks) + 1)
        return decay ** (len(blocks) - blocks.index(_block(path)))

    return jax.tree.unflatten(jax.tree.structure(trunk), [rate(path) for path in paths])


def _block(path: Path) -> Path:
    """The start of a path up to its last number, which names a block; empty outside of blocks."""
    numbers = [place for place, key in enumerate(path) if isinstance(key, int)]
    return path[: numbers[-1] + 1] if numbers else ()
