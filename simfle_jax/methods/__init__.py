"""The methods, one file each: a file NAME.py here that ends in `METHOD = its class` is `config.method = NAME`."""

import importlib

from simfle_jax.config import Config
from simfle_jax.methods.base import Method


def find_method(config: Config) -> Method:
    """The method that the config names."""
    return importlib.import_module(f"simfle_jax.methods.{config.method}").METHOD(config)
