"""Images with true points: which images of a set have some, their feature maps, and the points as shares of the image."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from simfle_jax import augment, parallel
from simfle_jax.data.containers import jpeg_orientation
from simfle_jax.data.decode import fitted, read_header
from simfle_jax.data.files import BadImage, patiently
from simfle_jax.data.pipeline import eval_batches
from simfle_jax.data.sources import Source
from simfle_jax.encoder import Encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.features import images_at_once
from simfle_jax.evaluation.landmarks.heads import Head
from simfle_jax.evaluation.landmarks.reading import Table, rows_of
from simfle_jax.evaluation.landmarks.schemes import Scheme, flipped
from simfle_jax.evaluation.sets import Subset
from simfle_jax.evaluation.settings import Probe
from simfle_jax.progress import Progress


@dataclasses.dataclass(frozen=True)
class Marked:
    """Images whose points are known."""

    names: list[str]
    points: np.ndarray  # [n, P, 2], x and y in shares of the central square, in which the networks see the image
    corners: np.ndarray  # [n, 4]: left, top, width and height of that square in pixels
    maps: np.ndarray  # [n, h, w, D]
    mirrored: np.ndarray | None  # the same of the mirrored images
    shown: np.ndarray  # [few]: numbers of the images to be shown
    thumbs: np.ndarray  # uint8 [few, S, S, 3]: these, as they were decoded
    subsets: dict[str, np.ndarray]  # bool [n]
    bad: dict[str, str]  # images that could not be read, or have no points

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points in shares of the square as pixels of the images."""
        return points * self.corners[:, None, 2:] + self.corners[:, None, :2]


class Learned(NamedTuple):
    """What training gives."""

    encoder: Encoder  # the one that was given, or what fine-tuning made of it
    head: Head
    shape: np.ndarray  # [P, 2], the mean of the images' points and the mirrored ones
    train_count: int  # images that were learned from
    facts: dict[str, Any]  # for results.json: what was chosen, and how
    bad: dict[str, str]  # as of `Marked`


class Known(NamedTuple):
    """The images of a set that have points."""

    source: Subset
    rows: np.ndarray  # [n], of each image in the table
    bad: dict[str, str]  # those that have none

    def squares(self, numbers: Iterable[int], canvas: int) -> np.ndarray:
        """Left, top, width and height of the central squares [n, 4] that become the canvases; NaN where one cannot be read."""
        return np.array([_square(self.source, number, canvas) for number in numbers], np.float32)


SHOWN = 20  # faces in the picture


def mean_shape(points: np.ndarray, scheme: Scheme) -> np.ndarray:
    """The mean face [P, 2] of points [n, P, 2] and of the mirrored ones."""
    return np.concatenate([points, flipped(points, scheme)]).mean(0)


def in_shares(points: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Points [n, P, 2] in pixels of their images as shares of the central squares [n, 4]."""
    return (points - squares[:, None, :2]) / squares[:, None, 2:]


def with_points(source: Source, split: str, table: Table) -> Known:
    """The images of a set that the table has points of; tells how many are left out, and how many are missing.

    Raises:
        UserError: it has none of them.
    """
    rows = rows_of(table, map(source.name, range(len(source))), split)
    without = [source.name(int(i)) for i in np.flatnonzero(rows < 0)]
    if len(without) == len(source):
        raise UserError(
            f"{table.where} has no points of the images in {split}, such as {without[0]}; it has {table.names[0]}: "
            f"call them as they lie below {split}, or by their files' names"
        )
    if without:
        logging.warning("%d of %d images in %s have no points and are left out, first %s",
                        len(without), len(source), split, without[0])  # fmt: skip
    used = set(rows.tolist())
    beside = [name for row, name in enumerate(table.names) if name.startswith(f"{split}/") and row not in used]
    if beside:
        logging.warning("%s has points of %d images that are not in %s, first %s",
                        table.where, len(beside), split, beside[0])  # fmt: skip
    bad = {f"{split}/{name}": f"no points in {table.where}" for name in without}
    return Known(Subset(source, np.flatnonzero(rows >= 0)), rows[rows >= 0], bad)


def marked(source: Source, split: str, table: Table, encoder: Encoder, probe: Probe, flip: bool) -> Marked:
    """Reads the images of a set that have points, with the maps of the frozen trunk, also mirrored where `flip`.

    Raises:
        UserError: none has points, too few can be read, or points that lie beside their image.
    """
    known, rows, bad = found = with_points(source, split, table)
    maps, mirrored, kept, thumbs = _maps(known, split, encoder, probe, flip, bad)
    corners, chosen = found.squares(kept.tolist(), probe.data.canvas or encoder.size), rows[kept]
    points, names = in_shares(table.points[chosen], corners), [known.name(int(i)) for i in kept]
    shown = np.flatnonzero(np.isin(kept, spread(len(known))))
    check_inside(points, names, table.where)
    subsets = {name: flags[chosen] for name, flags in table.subsets.items() if flags[chosen].any()}
    return Marked(names, points.astype(np.float32), corners, maps, mirrored, shown, thumbs, subsets, bad)


def check_inside(points: np.ndarray, names: list[str], where: str) -> None:
    """Raises UserError where the middle of a face lies outside of its image: the points are of another one.

    Single points may: faces are cut at the border, and the owners mark what is not seen.
    """
    middle: np.ndarray = points.mean(1)
    outside = np.any((middle < 0) | (middle > 1), axis=1)
    if outside.any():
        name = names[int(outside.argmax())]
        raise UserError(f"{where}: the points of {name} lie outside of the image ({outside.sum()} such images): are they "
                        "of an image of another size?")  # fmt: skip
    beside = np.any((points < 0) | (points > 1), axis=-1)
    if beside.any():
        logging.warning("%d points of %d images lie outside of their images, first in %s; they count as they are",
                        beside.sum(), beside.any(1).sum(), names[int(beside.any(1).argmax())])  # fmt: skip


def _maps(
    source: Source, split: str, encoder: Encoder, probe: Probe, flip: bool, bad: dict[str, str]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Maps, mirrored maps, the rows that could be read, and the canvases to be shown."""
    mesh, data = parallel.own_mesh(), probe.data
    arrays = jax.device_put(encoder.arrays, parallel.replicated(mesh))
    compute = _compute(encoder)
    plain, other, rows, thumbs = (list[np.ndarray]() for _ in range(4))
    found, wanted = dict[str, str](), spread(len(source))
    progress, done = Progress(len(source), f"feature maps of {split}, images"), 0
    for batch in eval_batches(
        source, batch_size=min(images_at_once() * mesh.size, _rounded(len(source), mesh.size)),
        canvas=data.canvas or encoder.size, threads=data.threads, max_bad_fraction=data.max_bad_fraction, bad=found,
    ):  # fmt: skip
        valid, images = batch["valid"], jax.device_put(batch["image"], parallel.over_data(mesh))
        plain.append(np.asarray(compute(arrays, images, False))[valid])
        if flip:
            other.append(np.asarray(compute(arrays, images, True))[valid])
        rows.append(batch["index"][valid])
        thumbs.append(batch["image"][valid][np.isin(batch["index"][valid], wanted)])
        done = min(done + len(valid), len(source))
        progress.update(done)
    bad |= {f"{split}/{name}": reason for name, reason in found.items()}
    mirrored = np.concatenate(other) if flip else None
    return np.concatenate(plain), mirrored, np.concatenate(rows), np.concatenate(thumbs)


def spread(count: int) -> np.ndarray:
    """Numbers of the images to be shown, evenly over a set of so many."""
    return np.unique(np.linspace(0, count - 1, SHOWN).astype(int))


def _rounded(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _compute(encoder: Encoder) -> Callable[[Any, jax.Array, bool], jax.Array]:
    def maps(arrays: Any, images: jax.Array, flip: bool) -> jax.Array:
        views = augment.resize(augment.to_float(images), encoder.size)
        return encoder.apply_map(encoder.preprocess(views[:, :, ::-1] if flip else views), arrays)

    return jax.jit(maps, static_argnums=2)


def _square(source: Source, index: int, canvas: int) -> tuple[float, float, float, float]:
    """Left, top, width and height of an image's central square in pixels of the upright image; NaN where it cannot be read."""
    try:
        data = patiently(lambda: source[index].data, f"{source.name(index)} cannot be read")
        height, width = data.shape[:2] if isinstance(data, np.ndarray) else read_header(data).size[::-1]
    except BadImage:
        return (np.nan,) * 4
    if isinstance(data, bytes) and data[:2] == b"\xff\xd8" and jpeg_orientation(data) >= 5:  # sides are exchanged
        width, height = height, width
    (left, across), (top, down) = (fitted(side, min(width, height), canvas) for side in (width, height))
    return left, top, across, down
