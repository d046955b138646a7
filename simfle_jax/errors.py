"""The one exception that a user's input can raise."""


class UserError(Exception):
    """A mistake in what the user gave: says what, where and what to do.

    Entry points print its message as one line and exit with status 2; a traceback would only hide it.
    """


def lacks(what: str, package: str, extra: str) -> UserError:
    """The error where a package of an extra is not installed. pip adds an extra to a checkout that is installed, too."""
    return UserError(f"{what} needs {package}: pip install 'simfle-jax[{extra}]'")
