"""The settings of tests/small.py as a file for --config."""

from small import settings as get_config

__all__ = ["get_config"]
