"""The paper's protocol: one linear layer by SGD, on new random crops and flips of all images in every epoch.

The rate is constant, and the best epoch is reported. It is chosen on val as published, or on a part of train
(`select_on`). After each epoch progress.npz and metrics.jsonl are written anew, and the same command goes on from there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from simfle_jax.evaluation import records
from simfle_jax.evaluation.linear import Fit, History, Labelled, Sgd, best_rate, fit_epochs, new_layer, start
from simfle_jax.evaluation.protocols.base import Fitted, ProbeProtocol, TrainingSet
from simfle_jax.progress import Progress

SELECTED = {
    "val": "val: the best epoch on the very images that are reported, as published",
    "train-holdout": "train-holdout: the best epoch on a part of train that was not trained on",
}


class LinearProbe(ProbeProtocol):
    """The published linear probe."""

    needs_images = True
    takes_votes = True
    has_epochs = True
    rates: tuple[float, ...] = ()  # all trained at once, in place of the one

    def epochs_at_once(self) -> int:
        """Epochs between two looks at how far the fit is."""
        return 1

    def features(self, train: TrainingSet, epoch: int, progress: Progress) -> Labelled:
        """What the layer sees in an epoch."""
        return train.augmented(epoch, lambda images: progress.update(epoch * train.count + images))

    def fit(self, train: TrainingSet, held: Mapping[str, Labelled]) -> Fitted:
        probe, sets = self.probe, tuple(held.values())
        sgd = Sgd(probe.batch_size, probe.lr, probe.momentum, probe.balance, probe.seed)
        fit, history = records.load_progress(train.folder, self._begun(train, len(sets)))
        done = int(fit.epoch)
        progress = Progress(probe.epochs * train.count, "probing, images", done * train.count)
        while done < probe.epochs:
            stretch = min(self.epochs_at_once(), probe.epochs - done)
            images = self.features(train, done, progress)
            if train.shares:
                images = images._replace(labels=jnp.asarray(train.shares()))
            fit, fresh = fit_epochs(fit, images, sets, sgd, stretch, self.rates)
            history = history.followed_by(fresh)
            done += stretch
            records.save_progress(train.folder, fit, history)
            lr, _, own = self._best(fit, history)
            scaled = dataclasses.replace(sgd, lr=lr).scaled_lr(len(images.labels))
            records.write_metrics(train.folder, own, tuple(held), scaled)
            progress.update(done * train.count, epoch=done, loss=own.loss[-1], accuracy=own.accuracy[-1, 0])
        lr, best, own = self._best(fit, history)
        _warn_of_divergence(own, train.n_classes)
        return Fitted(best.best, self._facts(lr, best, own, list(held)) | self._sweep(fit))

    def _begun(self, train: TrainingSet, sets: int) -> tuple[Fit, History]:
        """Before the first epoch."""
        rates = len(self.rates)
        fit = start(new_layer(self.probe.seed, train.dim, train.n_classes), rates)
        each = (rates,) if rates else ()
        return fit, History(np.zeros((0, *each), np.float32), np.zeros((0, *each, sets), np.float32))

    def _best(self, fit: Fit, history: History) -> tuple[float, Fit, History]:
        if not self.rates:
            return self.probe.lr, fit, history
        number, own, own_history = best_rate(fit, history)
        return self.rates[number], own, own_history

    def _facts(self, lr: float, fit: Fit, history: History, names: list[str]) -> dict[str, Any]:
        return {
            "best_epoch": int(fit.best_epoch),
            "last_epoch_accuracy": float(history.accuracy[-1, names.index("val")]),
            "selected_on": SELECTED[self.probe.select_on],
            "lr": lr,
        }

    def _sweep(self, fit: Fit) -> dict[str, Any]:
        """Of every rate: its best epoch, and the accuracy then on the set that chooses."""
        rows = zip(self.rates, np.atleast_1d(fit.best_epoch).tolist(), np.atleast_1d(fit.best_accuracy).tolist())
        found = [{"lr": lr, "best_epoch": epoch, "holdout_accuracy": accuracy} for lr, epoch, accuracy in rows]
        return {"sweep": found} if found else {}


def _warn_of_divergence(history: History, n_classes: int) -> None:
    """The published rate fits the features of a ResNet-50; larger features make the layer jump about."""
    if history.loss[-1] > 1.01 * np.log(n_classes):  # features that tell nothing end a hair above it
        logging.warning(
            "the loss after the last epoch, %.3g, is above that of guessing, %.3g: the learning rate is too high for "
            "these features, try a tenth of it (--config.lr, or --config.cached.lrs where it is set, in another --workdir)", history.loss[-1], np.log(n_classes),
        )  # fmt: skip


PROTOCOL = LinearProbe
