"""What a protocol of probing must tell probe.py, which knows none of them by name: of what kind it is, and its part.

    ProbeProtocol     a predictor of classes on the features of a frozen encoder: `fit`
    TrunkProtocol     the same, and the trunk is trained too: `tune`
    TargetProtocol    something else than classes is learned and told: `train` and `evaluate`, from its data to its files

For the first two probe.py opens the labelled sets, scores the predictor on every set that is reported, and keeps
predictor and trunk in the probe's folder.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simfle_jax.data.sources import Source
from simfle_jax.encoder import Encoder
from simfle_jax.evaluation.linear import Labelled, Linear
from simfle_jax.evaluation.predictor import Predictor
from simfle_jax.evaluation.settings import Probe


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """The labelled images that a probe learns from."""

    plain: Callable[[], Labelled]  # features of the resized images; computed when asked for
    augmented: Callable[[int, Callable[[int], None]], Labelled]  # of an epoch's random crops; tells images done
    count: int  # images, the unreadable ones included
    dim: int  # features of an image
    n_classes: int
    folder: Path  # of the probe, where a protocol may keep how far it is
    shares: Callable[[], np.ndarray] | None = None  # people's votes on the images of `plain`, [n, K], where there are


@dataclasses.dataclass(frozen=True)
class TuningSet:
    """The labelled images that a trunk is trained on."""

    images: Source
    n_classes: int
    canvas: int  # side of the decoded images
    folder: Path  # of the probe, where the protocol keeps how far it is
    score: Callable[[Encoder, Linear], dict[str, float]]  # the summary scores on val of a trunk and its classifier


class Fitted(NamedTuple):
    """What a protocol gives."""

    predictor: Predictor
    facts: dict[str, Any]  # plain JSON values for results.json: what was chosen, and how


class Tuned(NamedTuple):
    """What a protocol gives that trains the trunk."""

    encoder: Encoder
    predictor: Linear
    facts: dict[str, Any]  # as those of `Fitted`
    bad: dict[str, str]  # training images that could not be read, and why


class Protocol:
    """What all protocols tell of themselves. Its kind is the class below that it is one of."""

    needs_images = False  # whether features that were computed once are not enough
    takes_votes = False  # whether it learns from `TrainingSet.shares`
    has_epochs = False  # whether `select_on` and `balance` mean anything

    def __init__(self, probe: Probe):
        self.probe = probe


class TrunkProtocol(Protocol, ABC):
    """A protocol that trains the trunk, too."""

    needs_images = True

    @abstractmethod
    def tune(self, encoder: Encoder, train: TuningSet) -> Tuned:
        """Trains a copy of the encoder with a classifier."""


class TargetProtocol(Protocol, ABC):
    """A protocol with targets of its own in place of the classes of folders."""

    needs_images = True

    @abstractmethod
    def train(self, encoder: Encoder, folder: Path) -> dict[str, Any]:
        """Fits what it fits, or goes on with it, and writes the folder; a finished one is only read.

        Returns what results.json says.
        """

    @abstractmethod
    def evaluate(self, encoder: Encoder, folder: Path) -> dict[str, Any]:
        """What was fitted in the folder on val, without training; returns what evaluation.json says."""


class ProbeProtocol(Protocol, ABC):
    """A protocol on the features of a frozen encoder."""

    @abstractmethod
    def fit(self, train: TrainingSet, held: Mapping[str, Labelled]) -> Fitted:
        """Fits a predictor to `train`.

        held: all that is not trained on, by name; 'val' among them. Nothing may be chosen on it, but for what the
        published protocol chooses on the first set of `held`: its epoch.
        """
