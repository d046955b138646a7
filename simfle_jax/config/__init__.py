"""Settings: what they mean (settings), what they may be (checks), what they were called before (schema)."""

from simfle_jax.config.checks import pretraining
from simfle_jax.config.schema import SCHEMA, today, upgrade, without_places
from simfle_jax.config.settings import (
    WITHOUT_FACEMAE,
    Config,
    DataSettings,
    FaceMAESettings,
    HeadSettings,
    MonitorSettings,
    OptimizerSettings,
    TrunkSettings,
    ViewSettings,
)
from simfle_jax.config.trunks import TRUNKS, named_trunk, trunk_name
from simfle_jax.config.typed import as_dict, check_seed, digest, flatten, one_of, require, typed, with_defaults

__all__ = [
    "SCHEMA",
    "TRUNKS",
    "WITHOUT_FACEMAE",
    "Config",
    "DataSettings",
    "FaceMAESettings",
    "HeadSettings",
    "MonitorSettings",
    "OptimizerSettings",
    "TrunkSettings",
    "ViewSettings",
    "as_dict",
    "check_seed",
    "digest",
    "flatten",
    "named_trunk",
    "one_of",
    "pretraining",
    "require",
    "today",
    "trunk_name",
    "typed",
    "upgrade",
    "with_defaults",
    "without_places",
]
