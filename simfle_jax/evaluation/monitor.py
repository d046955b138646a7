"""A probe of the encoder while it trains: its scores stand in metrics.jsonl, and a collapse is seen in the run.

The labelled images are decoded once and stay in memory (`views.size`^2 * 3 bytes each). Nothing of the training depends
on the monitor: it gets a copy of the trunk, and draws no random number that training draws.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simfle_jax.config import Config
from simfle_jax.data.classes import with_classes
from simfle_jax.data.opening import open_source
from simfle_jax.data.pipeline import load_labelled
from simfle_jax.data.sources import Source
from simfle_jax.encoder import Encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import scores
from simfle_jax.evaluation.logistic import fit_chosen
from simfle_jax.evaluation.nearest import neighbours
from simfle_jax.evaluation.predictor import Predictor
from simfle_jax.runs import peers
from simfle_jax.weights.encoder_file import describe

Images = tuple[np.ndarray, np.ndarray]  # uint8 [n, S, S, 3] and labels [n]
Called = Callable[[Any, int], dict[str, float]]


class Monitor:
    """Scores a trunk on labelled images.

    Args:
        config: of the run. `monitor.path` holds train/CLASS/IMAGE and val/CLASS/IMAGE, `monitor.protocol` is 'knn' or
            'logistic', as probe.py has them with their usual settings.

    Raises:
        UserError: the images are not there, cannot be read, or val has other classes than train.
    """

    def __init__(self, config: Config):
        self.config, self.metadata = config, describe(config)
        try:
            sources = [
                open_source("folder", config.monitor.path, labelled=True, split=name) for name in ("train", "val")
            ]
            self.classes = sources[0].classes or ()
            self.train = self._decoded(sources[0])
            self.val = self._decoded(with_classes(sources[1], self.classes, "val"))
        except UserError as error:
            told = str(error).replace("--config.data.path", "--config.monitor.path")
            raise UserError(f"config: monitor.path: {told}") from None

    def __call__(self, trunk: Any, step: int) -> dict[str, float]:
        """`monitor/accuracy` and `monitor/balanced_accuracy` on val; trunk: its 'params' and 'stats' at a step."""
        encoder = Encoder(trunk, self.config.trunk, self.metadata)
        predictor = self._fitted(encoder(self.train[0]), self.train[1])
        predictions = np.asarray(predictor.predict(jnp.asarray(encoder(self.val[0]))))
        matrix = scores.confusion(self.val[1], predictions, len(self.classes))
        return {
            "monitor/accuracy": float(scores.accuracy(matrix)),
            "monitor/balanced_accuracy": float(scores.balanced_accuracy(matrix)),
        }

    def _fitted(self, features: np.ndarray, labels: np.ndarray) -> Predictor:
        if self.config.monitor.protocol == "knn":
            return neighbours(features, labels, len(self.classes))
        return fit_chosen(features, labels, len(self.classes), self.config.seed)[0]

    def _decoded(self, source: Source) -> Images:
        data, size = self.config.data, int(self.metadata["size"])
        return load_labelled(source, canvas=size, threads=data.threads, max_bad_fraction=data.max_bad_fraction)


def make_monitor(config: Config) -> Called | None:
    """The monitor that a run's settings ask for, or None. Process 0 alone reads the images; all must call it.

    Raises:
        UserError: as `Monitor` does, on all processes.
    """
    if not config.monitor.path:
        return None
    main = jax.process_index() == 0
    return peers.together(lambda: Monitor(config) if main else _nothing)


def _nothing(trunk: Any, step: int) -> dict[str, float]:
    return {}
