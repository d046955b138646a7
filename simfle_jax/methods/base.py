"""What a self-supervised method must tell the training step, which is the same for all of them.

A step makes the views, asks the target network for `targets`, differentiates `loss`, lets the optimizer update the
trained networks, and asks `after_update` how the target network follows (simfle_jax/training/step.py).
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from simfle_jax import instruments
from simfle_jax.config import Config
from simfle_jax.models.network import Network
from simfle_jax.views import Views

Metrics = dict[str, Float[Array, ""]]
Tree = Any  # nested dicts of arrays


class Outcome(NamedTuple):
    """What one forward pass gives."""

    loss: Float[Array, ""]  # to be minimised
    terms: Metrics  # `loss/*`: the parts of the loss, unweighted, and `loss/total`
    outputs: Any  # what `Method.instruments` looks at
    features: Float[Array, "batch feature"] | None = None  # pooled, of the first view, for `instruments.of_features`


class Method(ABC):
    """One method for one config. Subclasses hold no arrays: networks come in as modules, and go out as outcomes."""

    has_target = True  # whether a target network follows `networks.online`

    def __init__(self, config: Config):
        self.config = config

    @abstractmethod
    def networks(self, rngs: nnx.Rngs) -> nnx.Module:
        """All that is trained. Its `online.encoder` is the trunk, and with `has_target` its `online` a Network."""

    def target(self, rngs: nnx.Rngs) -> nnx.Module:
        """A network of the structure of `networks.online`; its arrays start as copies of those."""
        return Network(self.config, rngs)

    def draw(self, keys: Key[Array, " batch"]) -> Any:
        """What `loss` needs to be drawn, from one key per image; nothing unless a method says so."""
        return None

    def targets(self, target: Any, views: Views) -> Any:
        """What the target network gives for the views. No gradient passes."""
        return None

    @abstractmethod
    def loss(self, networks: Any, views: Views, targets: Any, draw: Any) -> Outcome:
        """The loss of the trained networks, in training mode."""

    def after_update(self, online: Tree, target: Tree, decay: Float[Array, ""] | float) -> Tree:
        """The target network's parameters after a step, by exponential moving average: decay target + (1 - decay) online."""
        return optax.incremental_update(online, target, 1 - decay)

    def instruments(self, outputs: Any) -> Metrics:
        """`features/*` of projections: whether the features stay spread."""
        return instruments.of_projections(outputs)


def weighted(terms: Metrics, **weights: float) -> Outcome:
    """The outcome of a loss that is the sum of its terms, each times its weight (1 where none is given)."""
    total = sum((weights.get(name, 1.0) * term for name, term in terms.items()), start=0.0)
    return Outcome(total, {"loss/total": total} | {f"loss/{name}": term for name, term in terms.items()}, None)  # type: ignore[arg-type, dict-item]
