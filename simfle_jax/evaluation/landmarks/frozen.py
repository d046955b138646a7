"""A head that is fitted to the maps of a frozen trunk, of the images and of the mirrored ones."""

from pathlib import Path

import numpy as np

from simfle_jax.data.sources import Source
from simfle_jax.encoder import Encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.landmarks import errors
from simfle_jax.evaluation.landmarks.data import Learned, Marked, marked, mean_shape
from simfle_jax.evaluation.landmarks.heads import STRENGTHS, Head, LinearHead, fit_attention, fit_ridge
from simfle_jax.evaluation.landmarks.reading import Table
from simfle_jax.evaluation.landmarks.schemes import Scheme, flipped
from simfle_jax.evaluation.linear import HOLDOUT
from simfle_jax.evaluation.settings import Probe

Pair = tuple[np.ndarray, np.ndarray]


def learn(probe: Probe, encoder: Encoder, source: Source, table: Table, scheme: Scheme, folder: Path) -> Learned:
    """Fits the head that the settings name; nothing is kept in the folder.

    Raises:
        UserError: what `marked` finds, or fewer than two images.
    """
    known = marked(source, "train", table, encoder, probe, flip=True)
    head, facts = fit(probe, known, scheme)
    return Learned(encoder, head, mean_shape(known.points, scheme), len(known.names), facts, known.bad)


def fit(probe: Probe, learned: Marked, scheme: Scheme) -> tuple[Head, dict[str, object]]:
    """The head; what was chosen, and on what."""
    assert learned.mirrored is not None
    plain, mirrored = (learned.maps, learned.points), (learned.mirrored, flipped(learned.points, scheme))
    if probe.landmarks.head == "attention":
        maps, points = _both(plain, mirrored)
        attention = fit_attention(
            maps, points, epochs=probe.epochs, batch_size=probe.batch_size, lr=probe.landmarks.lr, seed=probe.seed
        )
        return attention, {"kept": "the last epoch: nothing was chosen"}
    head, strength = chosen_ridge(plain, mirrored, probe.seed)
    return head, {"l2": strength, "selected_on": "a fifth of train: the strength"}


def chosen_ridge(plain: Pair, mirrored: Pair, seed: int) -> tuple[LinearHead, float]:
    """A ridge regression on all images and mirrored ones, its strength chosen on a fifth of the images; the strength.

    plain: maps [n, h, w, D] and points [n, P, 2]. mirrored: the same of the mirrored images, in the same order.

    Raises:
        UserError: fewer than two images.
    """
    count = len(plain[0])
    apart = np.zeros(count, bool)
    apart[np.random.default_rng(seed).permutation(count)[: max(1, round(HOLDOUT * count))]] = True
    if apart.all():
        raise UserError(f"landmarks: {count} training images are too few: two at least")
    maps, points = _both(plain, mirrored)
    both = np.tile(~apart, 2)  # a mirrored image is on the side of its own
    candidates = list(fit_ridge(maps[both], points[both], STRENGTHS))
    asked, true = plain[0][apart], plain[1][apart]
    judged = [errors.distances(one.points(asked), true).mean().item() if one else np.inf for one in candidates]
    best = int(np.argmin(judged))
    fitted = zip(
        fit_ridge(maps, points, STRENGTHS[best:]), STRENGTHS[best:]
    )  # the next one where this is too weak for all
    return next((head, strength) for head, strength in fitted if head)


def _both(plain: Pair, mirrored: Pair) -> Pair:
    return np.concatenate([plain[0], mirrored[0]]), np.concatenate([plain[1], mirrored[1]])
