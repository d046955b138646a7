"""Gathers what a report shows beside the records: what the networks see, and what a probe answers."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from simfle_jax.data.classes import with_classes
from simfle_jax.data.opening import open_source
from simfle_jax.data.sources import Source
from simfle_jax.encoder import Encoder, load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.classifier import Classifier, load_classifier
from simfle_jax.evaluation.features import Extractor
from simfle_jax.evaluation.looking import Look, best_patches, landmark_hits, look
from simfle_jax.evaluation.reconstruction import reconstruction_errors
from simfle_jax.evaluation.sets import Subset
from simfle_jax.reporting import images as pictures
from simfle_jax.reporting.features import POINTS
from simfle_jax.reporting.read import ProbeRecord, RunRecord
from simfle_jax.runs.mirror import named
from simfle_jax.training.restore import run_state

FACES = 8  # the fixed images that are looked at at several checkpoints
CHECKPOINTS = 4
MEASURED = 64  # images on which errors and landmark hits are measured
MEAN_OF = 256  # images whose mean is a baseline
T = TypeVar("T")


class Material(NamedTuple):
    """Images that a report looks at, and where they are from."""

    source: Source
    place: str
    root: str  # the folder that the source's names are relative to
    generated: bool

    def landmarks(self, rows: np.ndarray) -> np.ndarray | None:
        """Landmarks [n, 68, 2] of these rows in shares of the side, and None where they are not known."""
        folder = pictures.faces_folder(self.place)
        if folder is None:
            return None
        names = [os.path.relpath(f"{self.root}/{self.source.name(int(row))}", folder) for row in rows]
        return pictures.landmarks(folder, names)

    def images(self, rows: np.ndarray, side: int) -> np.ndarray:
        """Uint8 [n, side, side, 3] of rows that can be read."""
        return pictures.sample(self.source, rows, side).images


class Seen(NamedTuple):
    """What one run sees: looks at the fixed images, oldest first, and measures on more of them."""

    looks: list[Look]
    rows: np.ndarray  # of the fixed images in the material
    errors: dict[str, float]
    hits: np.ndarray | None  # [groups, parts], see `landmark_hits`


class Answers(NamedTuple):
    """What an encoder, and a probe of it, make of the images of a map."""

    features: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    probabilities: np.ndarray | None
    classifier: Classifier | None


def attempt(what: str, call: Callable[[], T], notes: list[str]) -> T | None:
    """The result, or None and a note of why there is none; what can be shown is shown all the same."""
    try:
        return call()
    except UserError as error:
        notes.append(f"{what} is not shown: {named(str(error)).replace('--config.data.path=', '--data ')}")
        return None


def material_of(run: RunRecord, probe: ProbeRecord | None, data: str | Path | None) -> Material:
    """Held-out images of the probe where there is one, else images of the run. `data` says where either is now.

    Raises:
        UserError: they are not there.
    """
    settings = probe.settings if probe and probe.settings.get("data.path") else run.settings
    kind, place = str(settings.get("data.source") or "folder"), str(data or settings.get("data.path") or "")
    if not place:
        raise UserError("several sources were mixed: name a folder of images by --data DIR")
    if settings is run.settings:
        return Material(open_source(kind, place), place, place, pictures.is_generated(place))
    source = open_source(kind, place, labelled=True, split="val")
    assert probe is not None
    if probe.results.get("classes"):
        source = with_classes(source, tuple(probe.results["classes"]), "val")
    return Material(source, place, f"{place}/val", pictures.is_generated(place))


def see(run: RunRecord, material: Material, notes: list[str]) -> Seen | None:
    """What the run sees in the material at some of its checkpoints; None: its method restores nothing.

    A checkpoint that cannot be read, or that a run which goes on has removed since, is noted and left out.
    """
    if not run.steps:
        return None
    chosen = sorted({run.steps[i] for i in pictures.spread_rows(len(run.steps), CHECKPOINTS)})
    canvas = int(run.settings.get("data.canvas") or run.settings.get("data.fitted") or 224)
    fixed = pictures.sample(material.source, pictures.spread_rows(len(material.source), FACES), canvas)
    looks: list[Look] = []
    for step in chosen:
        restored = attempt(f"{run.name} at step {step}", partial(run_state, run.folder, step), notes)
        if restored is None:
            continue
        config, state = restored
        found = look(config, state, fixed.images)
        if found is None:
            return None
        looks.append(found)
    if not looks:
        return None
    many = pictures.sample(material.source, pictures.spread_rows(len(material.source), MEASURED + MEAN_OF), canvas)
    every = max(len(many.images) // MEASURED, 1)
    measured, rest = many.images[::every], np.delete(many.images, slice(None, None, every), axis=0)
    errors = reconstruction_errors(config, state, measured, rest if len(rest) else measured)
    return Seen(looks, fixed.rows, errors, _hits(config, state, material, many.rows[::every], measured))


def _hits(config: Any, state: Any, material: Material, rows: np.ndarray, images: np.ndarray) -> np.ndarray | None:
    points, found = material.landmarks(rows), look(config, state, images)
    if points is None or found is None or found.scores is None:
        return None
    return landmark_hits(best_patches(found.scores, config.kept_patches), points)


def answer(
    run: RunRecord, probe: ProbeRecord | None, material: Material, notes: list[str], points: int = POINTS
) -> Answers:
    """Features of the material, which are the run's own, and what the probe says of it. Raises UserError.

    Of a probe with other classes than the material's nothing is asked, which is noted.
    """
    classifier = _classifier(run, probe) if probe and probe.results else None
    tuned = probe is not None and "tuned_encoder_hash" in probe.results
    encoder = classifier.encoder if classifier and not tuned else load_encoder(run.folder)
    source = Subset(material.source, pictures.spread_rows(len(material.source), points))
    labels, classes = source.labels, source.classes
    if labels is None or classes is None:
        labels, classes = np.zeros(len(source), int), ("images",)
    if classifier and classifier.classes != classes:
        notes.append(
            f"the mistakes of {probe.name if probe else ''} are not shown: its classes are not those of the images"
        )
        classifier = None
    features, rows = _features(encoder, classifier, source)
    probabilities = None
    if classifier:
        of_probe = _features(classifier.encoder, classifier, source)[0] if tuned else features
        probabilities = classifier.from_features(of_probe)
    return Answers(features, source.rows[rows], labels[rows], classes, probabilities, classifier)


def _features(encoder: Encoder, classifier: Classifier | None, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, D] of the images that can be read, decoded as the classifier's are, and their rows [n]."""
    parts = list(Extractor(encoder, canvas=classifier.canvas if classifier else 0).stream(source))
    return np.concatenate([part.features for part in parts]), np.concatenate([part.rows for part in parts])


def _classifier(run: RunRecord, probe: ProbeRecord) -> Classifier:
    try:
        return load_classifier(probe.folder)
    except UserError:  # the run may have been moved: it is named on the command line
        return load_classifier(probe.folder, str(run.folder))
