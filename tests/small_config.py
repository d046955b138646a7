"""The tests' small settings as a config file for commands."""

from small import settings


def get_config():
    return settings(batch_size=32)
