"""The errors that are meant for people."""

from typing import Any

__all__ = ["InputError", "NotConverged"]


class InputError(ValueError):
    """Something that was given cannot be used. The message is one sentence: what was given, what was expected.

    The command line prints it without a traceback and ends with exit status 2.
    """


class NotConverged(InputError):  # noqa: N818
    """A solver did not reach its tolerance.

    Attributes
    ----------
    solution : refsnn.readings.solution.Solution
        What it reached: state, true residuals, trace.
    """

    def __init__(self, message: str, solution: Any) -> None:
        super().__init__(message)
        self.solution = solution
