"""Values that were read from a file, checked against the types that they should have.

A type is what Python's annotations call it: ``int``, ``float``, ``str``, ``bool``, ``None``, ``dict``, ``list[int]``,
``dict[str, float]``, ``Literal["a", "b"]``, or several with ``|`` between them. Numbers must be finite.
"""

from __future__ import annotations

import json
import types
from collections.abc import Collection, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from .errors import InputError, is_number, shown

__all__ = ["checked", "fits", "parsed", "words"]


def parsed(source: object, text: str) -> Any:
    """Read JSON that somebody else wrote.

    Parameters
    ----------
    source : object
        Where it was, for the message.
    text : str

    Returns
    -------
    value : object

    Raises
    ------
    InputError
        It is no JSON, nested too deeply, has a number of thousands of digits, or half of a surrogate pair.

    Examples
    --------
    >>> parsed("a.json", "[" * 10**6)
    Traceback (most recent call last):
    refsnn.errors.InputError: a.json is nested too deeply to be what it should
    """
    try:
        value = json.loads(text)
        if "\\u" in text:  # half a surrogate is JSON, but no text that could be shown or written again
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise InputError(f"{source} is nested too deeply to be what it should") from None
    except ValueError as error:  # JSONDecodeError, and what Python says of very long numbers
        raise InputError(f"{source} is not valid JSON ({error}); it may be truncated") from None


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type.

    Parameters
    ----------
    value : object
        As JSON or TOML has it.
    kind : type

    Returns
    -------
    fits : bool
        A whole number is also a float; true and false are no numbers; NaN and infinity fit nothing.

    Examples
    --------
    >>> fits([1, 2], list[float]), fits(True, int), fits(float("nan"), float), fits(None, int | None)
    (True, False, False, True)
    """
    origin = get_origin(kind)
    if kind is Any:
        return True
    if origin is Literal:
        return isinstance(value, str | int) and value in get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in get_args(kind))
    if origin is list:
        return isinstance(value, list) and all(fits(item, get_args(kind)[0]) for item in value)
    if origin is dict:
        inner = get_args(kind)[1]
        return isinstance(value, dict) and all(isinstance(k, str) and fits(v, inner) for k, v in value.items())
    if kind is None or kind is type(None):
        return value is None
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int | float) and not is_number(value):
        return False  # NaN, infinity, or beyond the largest floating-point number
    if kind is float:
        return is_number(value)
    return isinstance(value, kind)


def words(kind: Any) -> str:
    """Say what a type is, for people.

    Parameters
    ----------
    kind : type

    Returns
    -------
    words : str

    Examples
    --------
    >>> words(list[int] | None), words(Literal["inst", "running"])
    ('a list, each entry a whole number,', "one of 'inst', 'running'")
    """
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if origin in (Union, types.UnionType):
        return words(next(one for one in get_args(kind) if one is not type(None)))
    if origin is list:
        return f"a list, each entry {words(get_args(kind)[0]).rstrip(',')},"
    if origin is dict:
        return f"a table, each value {words(get_args(kind)[1]).rstrip(',')},"
    known = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false", dict: "a table"}
    return known.get(kind, str(kind))


def checked(
    source: object, given: Any, kinds: Mapping[str, Any], where: str = "", required: Collection[str] = (),
    closed: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Make sure that a table has known keys with values of their types.

    Parameters
    ----------
    source : object
        The file, for messages.
    given : object
        What was read.
    kinds : mapping
        Key -> type.
    where : str
        The table within the file, for messages.
    required : collection of str
        Keys that must be there.
    closed : bool
        Whether other keys than those of `kinds` are refused.

    Returns
    -------
    values : dict
        The same.

    Raises
    ------
    InputError
        It is no table, or the first key that is missing, unknown, or has a value of another type.

    Examples
    --------
    >>> checked("plan.toml", {"seeds": 1}, {"seeds": list[int]})
    Traceback (most recent call last):
    refsnn.errors.InputError: plan.toml: seeds is 1, but a list, each entry a whole number, was expected
    """
    place = f" in [{where}]" if where else ""
    if not isinstance(given, dict):
        raise InputError(f"{source}: {where or 'the whole file'} is {shown(given)}, but a table was expected")
    for key, value in given.items():
        if key not in kinds:
            if closed:
                raise InputError(f"{source}: the key {key!r}{place} is not known; there are {', '.join(kinds)}")
        elif not fits(value, kinds[key]):
            raise InputError(f"{source}: {key}{place} is {shown(value)}, but {words(kinds[key])} was expected")
    if missing := [key for key in required if key not in given]:
        raise InputError(f"{source}: {missing[0]}{place} is missing, but {words(kinds[missing[0]])} was expected")
    return dict(given)
