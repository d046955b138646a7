"""Landmark localisation: a head on the feature map that gives points; no classes are learned or told.

The flow of such a probe is `simfle_jax/evaluation/landmarks/probe.py`.
"""

from pathlib import Path
from typing import Any

from simfle_jax.encoder import Encoder
from simfle_jax.evaluation.landmarks import probe as landmarks
from simfle_jax.evaluation.protocols.base import TargetProtocol


class Landmarks(TargetProtocol):
    """Points from feature maps."""

    def train(self, encoder: Encoder, folder: Path) -> dict[str, Any]:
        return landmarks.train(self.probe, encoder, folder)

    def evaluate(self, encoder: Encoder, folder: Path) -> dict[str, Any]:
        return landmarks.evaluate(self.probe, encoder, folder)


PROTOCOL = Landmarks
