"""Studies: a grid of pre-training settings, seeds and probes, and one table of what comes out."""

from simfle_jax.studies.definition import Arm, Faces, Piece, Study

__all__ = ["Arm", "Faces", "Piece", "Study"]
