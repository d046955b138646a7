"""Landmark localisation: a head on the frozen feature map that gives points; no classes are learned or told.

The flow of such a probe is `simfle_jax/evaluation/landmarks/probe.py`.
"""

from simfle_jax.evaluation.protocols.base import Protocol


class Landmarks(Protocol):
    """Points from feature maps."""

    needs_images = True


PROTOCOL = Landmarks
