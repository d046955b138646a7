"""Illnesses that the metrics of a run show, told once in plain words with the setting that helps."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from absl import logging

from simfle_jax.config import Config

Lines = Sequence[Mapping[str, float]]
LINES = 10  # of metrics.jsonl, over which values are averaged: one batch alone says little
SETTLED = 200  # steps: every network begins with brightness in its features

# Measured on generated faces, batches of 32 (docs/learning.md): runs that learn brightness .2 to .4, others below .1.
SHORTCUT = 0.25
# Of pooled features: 1 is a single direction; runs that end well have 2 and more.
DIRECTIONS = 1.3
# The published tie under Adam ends at an agreement of .1 and an L_d of 2e-4, living ties agree by .5 and more.
AGREEMENT, DISTILLATION = 0.2, 1e-3


class Illness(NamedTuple):
    """A name, whether the last lines of metrics show it, and what to tell about it."""

    name: str
    shown: Callable[[Lines], bool]
    told: Callable[[Config], str]


def _mean(lines: Lines, name: str, otherwise: float) -> float:
    """The mean of a metric over lines; `otherwise` where a line lacks it."""
    return sum(line.get(name, otherwise) for line in lines) / len(lines)


def _learns_brightness(lines: Lines) -> bool:
    return _mean(lines, "shortcut/brightness", 0) > SHORTCUT


def _has_collapsed(lines: Lines) -> bool:
    return _mean(lines, "features/pooled_rank", DIRECTIONS) < DIRECTIONS


def _tie_is_dead(lines: Lines) -> bool:
    small = _mean(lines, "loss/distillation", 1) < DISTILLATION
    return small and abs(_mean(lines, "tie/agreement", 1)) < AGREEMENT


def _about_brightness(config: Config) -> str:
    help_ = "--config.views.standardise=image takes it out of the views (in a new --workdir)"
    if config.views.standardise == "image":
        help_ = "the views are standardised already: look at where light falls, and at --config.views.scale"
    return f"how bright a view is explains much of the features (shortcut/brightness), not what the face does: {help_}"


def _about_directions(config: Config) -> str:
    help_ = "--config.views.standardise=image often ends it; else " if config.views.standardise != "image" else ""
    return (
        "the features of all images lie along little more than one direction (features/pooled_rank): "
        f"{help_}try a smaller --config.optimizer.lr or a larger --config.batch_size"
    )


def _about_the_tie(config: Config) -> str:
    return (
        "FaceMAE teaches the encoder nothing any more: their vectors no longer tell images apart (tie/agreement, "
        "loss/distillation). --config.facemae.tie=target, variance or patch stay alive; --config.method=byol costs less"
    )


ILLNESSES = (
    Illness("brightness", _learns_brightness, _about_brightness),
    Illness("directions", _has_collapsed, _about_directions),
    Illness("tie", _tie_is_dead, _about_the_tie),
)


class Warnings:
    """Looks at every line of a run's metrics. `earlier` lines of a run that goes on count, but are not told again."""

    def __init__(self, config: Config, earlier: Lines = ()):
        self.config, self.told = config, set[str]()
        self.last: deque[Mapping[str, float]] = deque(maxlen=LINES)
        for line in earlier:
            self._found(line)

    def look(self, line: Mapping[str, float]) -> None:
        """Logs what a line of metrics, with the ones before it, shows for the first time."""
        for illness in self._found(line):
            logging.warning("step %d: %s", line["step"], illness.told(self.config))

    def _found(self, line: Mapping[str, float]) -> list[Illness]:
        if line["step"] < SETTLED:
            return []
        self.last.append(line)
        if len(self.last) < LINES:
            return []
        found = [one for one in ILLNESSES if one.name not in self.told and one.shown(tuple(self.last))]
        self.told |= {one.name for one in found}
        return found
