"""The errors that are meant for people."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Something that was given cannot be used. The message is one sentence: what was given, what was expected.

    The command line prints it without a traceback and ends with exit status 2.
    """
