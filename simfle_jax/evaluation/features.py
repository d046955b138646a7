"""Features of whole data sets from a frozen trunk, in big batches."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax import augment, parallel
from simfle_jax.data.bad_list import write_bad_list
from simfle_jax.data.pipeline import decoded_in_order, eval_batches
from simfle_jax.data.reading import Decoded, examples
from simfle_jax.data.sources import Source
from simfle_jax.encoder import Encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.linear import Labelled
from simfle_jax.evaluation.sets import Subset
from simfle_jax.progress import Progress

CROP_SCALE = (0.08, 1.0)  # of the probe's random crops, as published
CROP_RATIO = (3 / 4, 4 / 3)
FLIP = 0.5


class Streamed(NamedTuple):
    """Features [n, D] of the images `rows` [n], reasons of the unreadable ones, and the number of images done."""

    features: np.ndarray
    rows: np.ndarray
    bad: dict[int, str]
    done: int


class Extractor:
    """Turns sources into features, split over all devices of this process.

    Args:
        encoder: the frozen trunk.
        canvas: side of the decoded images; 0: that of the encoder's views.
        seed: of the random crops and flips.
        threads, max_bad_fraction: of the decoding, as in the settings.

    Unreadable images are left out and noted in `bad` (name -> reason), and in the file `bad_list` where that is set. `rows` tells which images of a set, by its name, the features of `plain` are of.
    """

    def __init__(
        self, encoder: Encoder, *, canvas: int = 0, seed: int = 0, threads: int = 0, max_bad_fraction: float = 1.0
    ):
        self.encoder, self.canvas, self.seed = encoder, canvas or encoder.size, seed
        self.reading: dict[str, Any] = {"threads": threads, "max_bad_fraction": max_bad_fraction}
        self.bad: dict[str, str] = {}
        self.bad_list: Path | None = None
        self.rows: dict[str, np.ndarray] = {}
        self.mesh = parallel.own_mesh()
        self.batch_size = images_at_once() * self.mesh.size
        self.dim = encoder.dim
        self.arrays = jax.device_put(encoder.arrays, parallel.replicated(self.mesh))
        self._plain = jax.jit(self._plain_features)
        self._augmented = jax.jit(self._augmented_features)

    def plain(self, source: Source, name: str) -> Labelled:
        """Features of the resized images, as in evaluation: [readable images, D], in the order of the listing."""
        progress = Progress(len(source), f"features of {name}, images")

        def features(batch: dict[str, np.ndarray]) -> jax.Array:
            return self.features_of(batch["image"])

        return self._collect(source, name, features, progress.update)

    def features_of(self, images: np.ndarray) -> jax.Array:
        """Features [B, D] of decoded images, uint8 [B, canvas, canvas, 3]; B is a multiple of the devices."""
        return self._plain(self.arrays, self._put(images))

    def stream(self, source: Source, start: int = 0) -> Iterator[Streamed]:
        """Features as in `plain`, batch by batch, of the images from `start` on; nothing is kept.

        The batches are those of the whole source, so that a start between two of them changes no feature.
        """
        if start >= len(source):
            return
        rest = Subset(source, np.arange(start, len(source)))
        progress, done = Progress(len(source), "features, images", start), start

        def features(decoded: Decoded) -> jax.Array:
            return self.features_of(decoded.batch["image"])

        batches = decoded_in_order(rest, self._rows(source), self.canvas, self.reading["threads"])
        with contextlib.closing(batches):
            for decoded, computed in _one_behind(batches, features):
                valid, rows = decoded.batch["valid"], start + decoded.drawn
                done += len(rows)
                progress.update(done)
                bad = {start + index: reason for index, reason in decoded.bad.items()}
                yield Streamed(np.asarray(computed)[valid], rows[valid[: len(rows)]], bad, done)

    def augmented(self, source: Source, epoch: int, tell: Callable[[int], None]) -> Labelled:
        """Features of one random crop of every training image, drawn from (seed, epoch, index).

        `tell` is called with the number of images done.
        """

        def features(batch: dict[str, np.ndarray]) -> jax.Array:
            return self._augmented(self.arrays, self._put(batch["image"]), self._put(batch["index"]), np.int32(epoch))

        return self._collect(source, "train", features, tell)

    def _put(self, rows: np.ndarray) -> jax.Array:
        return jax.device_put(rows, parallel.over_data(self.mesh))

    def _plain_features(self, arrays: Any, images: jax.Array) -> jax.Array:
        return self._through_trunk(arrays, augment.resize(augment.to_float(images), self.encoder.size))

    def _augmented_features(self, arrays: Any, images: jax.Array, indices: jax.Array, epoch: jax.Array) -> jax.Array:
        epoch_key = jax.random.fold_in(jax.random.key(self.seed), epoch)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(epoch_key, indices)
        views = augment.random_crop_and_flip(keys, images, self.encoder.size, CROP_SCALE, CROP_RATIO, FLIP)
        return self._through_trunk(arrays, views)

    def _through_trunk(self, arrays: Any, views: jax.Array) -> jax.Array:
        return self.encoder.apply(self.encoder.preprocess(views), arrays)

    def _collect(
        self,
        source: Source,
        name: str,
        features: Callable[[dict[str, np.ndarray]], jax.Array],
        tell: Callable[[int], None],
    ) -> Labelled:
        found, labels, rows, done, bad = [], [], [], 0, dict[str, str]()
        try:
            for batch, computed in _one_behind(self._batches(source, bad), features):
                found.append(np.asarray(computed)[batch["valid"]])
                labels.append(batch["label"][batch["valid"]])
                rows.append(batch["index"][batch["valid"]])
                done = min(done + len(batch["valid"]), len(source))
                tell(done)
        except UserError:  # too many: whoever is to mend them needs them all
            self._list(self.bad | _under(name, bad))
            raise
        of_others = {image: reason for image, reason in self.bad.items() if not image.startswith(f"{name}/")}
        self.bad = of_others | _under(name, bad)  # what an earlier start could not read may be mended
        if bad:  # a probe that goes on may not read these again
            self._list(self.bad)
        self.rows[name] = np.concatenate(rows)
        return Labelled(jnp.asarray(np.concatenate(found)), jnp.asarray(np.concatenate(labels)))

    def _list(self, bad: dict[str, str]) -> None:
        """Writes the list, where the folder is not one that may only be read."""
        if self.bad_list and jax.process_index() == 0:
            with contextlib.suppress(OSError):
                write_bad_list(self.bad_list, bad)

    def _batches(self, source: Source, bad: dict[str, str]) -> Iterator[dict[str, np.ndarray]]:
        return eval_batches(source, batch_size=self._rows(source), canvas=self.canvas, bad=bad, **self.reading)

    def _rows(self, source: Source) -> int:
        """Of a batch: a small source needs no more than a power of two above its size: few shapes, few compilations."""
        return min(self.batch_size, self.mesh.size << (-(-len(source) // self.mesh.size) - 1).bit_length())


def check_readable(source: Source, bad: dict[int, str]) -> None:
    """Raises UserError when every image of the source is bad."""
    if len(bad) == len(source):
        raise UserError(f"none of the {len(source)} images can be read: {examples(source, bad)}")


def _under(name: str, bad: dict[str, str]) -> dict[str, str]:
    return {f"{name}/{image}": reason for image, reason in bad.items()}


def _one_behind(batches: Iterator[Any], compute: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of batch and result, given out while the device already works on the next."""
    waiting = None
    for batch in batches:
        following = batch, compute(batch)
        if waiting is not None:
            yield waiting
        waiting = following
    if waiting is not None:
        yield waiting


def images_at_once() -> int:
    """Rows per device: an accelerator needs many to be busy, a CPU's caches are small."""
    return 64 if jax.default_backend() == "cpu" else 512
