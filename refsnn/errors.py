"""The errors that are meant for people, and the checks that many functions share."""

import math
import operator
from collections.abc import Collection
from numbers import Real
from typing import Any

__all__ = ["InputError", "NotConverged", "is_number", "number", "one_of", "shown", "whole"]


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle both arguments: an exception's own way knows of the message alone."""
        return type(self), (str(self), self.solution)


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return a whole number as Python's, NumPy's own among them.

    Parameters
    ----------
    name : str
        The argument's, for the message.
    value : object
    least, most : int
        The smallest and the greatest that are accepted.

    Returns
    -------
    value : int

    Raises
    ------
    InputError
        It is none, smaller or greater.

    Examples
    --------
    >>> whole("t_conv", 0)
    Traceback (most recent call last):
    refsnn.errors.InputError: `t_conv` is 0, but it must be a whole number of at least 1
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise InputError(f"`{name}` is {shown(value)}, but it must be a whole number of at least {least}")
    if most is not None and number > most:
        given = number if number < 10**20 else "far greater"
        raise InputError(f"`{name}` is {given}, but it must be at most {most}")
    return number


def shown(value: Any) -> str:
    """Write a value out for a message: on one line, long ones cut.

    Parameters
    ----------
    value : object

    Returns
    -------
    text : str

    Examples
    --------
    >>> shown([1] * 99)[-9:], shown(10**5000)
    (', 1, 1...', 'a number of thousands of digits')
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number, Python's or NumPy's; not true or false.

    Parameters
    ----------
    value : object

    Returns
    -------
    yes : bool

    Examples
    --------
    >>> is_number(0.5), is_number(True), is_number(float("nan")), is_number("1")
    (True, False, False, False)
    """
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the largest floating-point number
        return False


def number(name: str, value: Any, least: float, most: float) -> float:
    """Return a number within bounds, both included.

    Parameters
    ----------
    name : str
        The argument's, for the message.
    value : object
    least, most : float

    Returns
    -------
    value : float

    Raises
    ------
    InputError
        It is none, or outside.

    Examples
    --------
    >>> number("edge_derivative", 2, 0, 1)
    Traceback (most recent call last):
    refsnn.errors.InputError: `edge_derivative` is 2, but it must be a number between 0 and 1
    """
    if not (is_number(value) and least <= value <= most):
        raise InputError(f"`{name}` is {shown(value)}, but it must be a number between {least} and {most}")
    return float(value)


def one_of(name: str, value: Any, choices: Collection[str]) -> None:
    """Make sure that an argument has one of the values it may have.

    Parameters
    ----------
    name : str
        The argument's, for the message.
    value : object
    choices : collection of str

    Raises
    ------
    InputError
        It has another.

    Examples
    --------
    >>> one_of("rule", "instant", ("inst", "running"))
    Traceback (most recent call last):
    refsnn.errors.InputError: `rule` is 'instant', but it must be one of inst, running
    """
    if not (isinstance(value, str) and value in choices):
        raise InputError(f"`{name}` is {shown(value)}, but it must be one of {', '.join(choices)}")
