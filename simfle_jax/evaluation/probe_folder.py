"""Whose a probe's folder is: settings, encoder and images make a probe, and another one does not go on in its folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from simfle_jax import config
from simfle_jax.encoder import Encoder
from simfle_jax.evaluation import records
from simfle_jax.evaluation.feature_table import FeatureTable
from simfle_jax.evaluation.results import Results
from simfle_jax.evaluation.settings import Probe, upgraded
from simfle_jax.runs import peers
from simfle_jax.runs.folder import Upgrade
from simfle_jax.runs.mirror import shown
from simfle_jax.runs.together import claimed_together

PLACES = ("eval_only", "encoder", "features", "seeds")  # where things lie, and what is asked of them


def identity(
    probe: Probe, model: Encoder | FeatureTable, fingerprints: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """What makes two probes the same: the settings, with encoder and data by their content instead of their place."""
    settings = config.as_dict(probe)
    for name in PLACES:
        del settings[name]
    # A version before this one may have begun the folder, with the hash of its time.
    recorded = records.training_settings(folder).get("encoder_hash", "")
    hash_ = recorded if model.is_called(recorded) else model.hash
    return settings | {"encoder_hash": hash_, "data_fingerprint": dict(fingerprints)}


def once(
    folder: Path,
    identity: dict[str, Any],
    train: Callable[[], Results],
    summary: Callable[[Results], str],
    upgrade: Upgrade = upgraded,
) -> Results:
    """What `train` finds in the folder, which is claimed for this probe; a finished folder is only read and shown.

    Raises:
        UserError: the folder is another probe's.
    """
    peers.check_same(identity)
    with claimed_together(folder, identity, upgrade):
        finished = peers.of_first(lambda: records.read_results(folder))
        if not finished:
            return train()
        logging.warning("%s is complete; nothing to do", shown(folder))
        print(summary(finished))
        return finished
