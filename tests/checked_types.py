"""The checker of annotations that tests/conftest.py puts around the functions that compute with arrays."""

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for
