"""What pyproject.toml cannot say: presets lie at the top of a checkout, where people edit them, and in the package in a wheel."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["simfle_jax*"]), "simfle_jax.configs", "simfle_jax.configs.studies"],
    package_dir={"simfle_jax.configs": "configs", "simfle_jax.configs.studies": "configs/studies"},
)
