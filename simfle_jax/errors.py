"""The one exception that a user's input can raise."""


class UserError(Exception):
    """A mistake in what the user gave: says what, where and what to do.

    Entry points print its message as one line and exit with status 2; a traceback would only hide it.
    """
