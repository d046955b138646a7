"""The cumulative curve of the errors, and faces with their true and predicted points."""

from pathlib import Path

import numpy as np

from simfle_jax.evaluation.landmarks.errors import LIMITS

COLUMNS = 5


def draw_curve(path: Path, errors: np.ndarray) -> None:
    """A picture of the share of images [n] whose error is at most x, with the usual limits marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    end = max(2 * max(LIMITS), float(np.percentile(errors, 99)))
    axes.step([0, *np.sort(errors), end], [0, *(np.arange(len(errors)) + 1) / len(errors), 1], where="post")
    for limit in LIMITS:
        axes.axvline(limit, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, end), ylim=(0, 1.02), xlabel="mean error over the distance of the outer eye corners",
             ylabel="share of images", title=f"{len(errors)} images, mean {errors.mean():.4f}")  # fmt: skip
    figure.savefig(path, dpi=150)


def draw_faces(path: Path, images: np.ndarray, points: np.ndarray, predicted: np.ndarray) -> None:
    """A picture of images uint8 [n, S, S, 3] with their points, circles the true ones, crosses the predicted.

    points, predicted: [n, P, 2] in shares of the side.
    """
    from matplotlib.figure import Figure

    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 2 * rows + 0.3), layout="constrained")
    every = np.atleast_1d(figure.subplots(rows, COLUMNS)).ravel()
    side = images.shape[1]
    for axes, image, true, found in zip(every, images, points, predicted):
        axes.imshow(image, extent=(0, side, side, 0), interpolation="nearest")
        axes.plot(*(true * side).T, "o", color="white", markersize=2.5, markerfacecolor="none", markeredgewidth=0.6)
        axes.plot(*(found * side).T, "x", color="red", markersize=2.5, markeredgewidth=0.7)
        axes.set(xlim=(0, side), ylim=(side, 0))
    for axes in every:
        axes.axis("off")
    figure.suptitle("true points: white circles; predicted: red crosses", fontsize=9)
    figure.savefig(path, dpi=150)
