"""Asking an adapter one question, whatever it does: a `Reply` comes back, never one of its exceptions.

An adapter gets arrays and settings of its own, so that nothing it does to them reaches the judge; whether it changed
them is looked at all the same, since a backend that does so gives wrong answers elsewhere.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..ops import Array
from ..ops.rounding import PRECISIONS
from .cases import Arrays, Case, named_answer, question, with_padding_row

__all__ = ["CONTRACT", "Reply", "ask", "declared", "missing", "plain_text", "rounded"]

#: What the arguments of each are called.
ARGUMENTS = {
    "neurons": ("current", "neuron", "dtype"),
    "asr": ("spikes", "leak", "dtype"),
    "op": ("name", "arrays", "constants", "dtype"),
    "pullback": ("name", "arrays", "constants", "cotangent", "dtype"),
    "current": ("config", "params", "population", "reads", "mask", "dtype"),
    "rate_map": ("config", "params", "batch", "dtype"),
    "simulate": ("config", "params", "batch", "t_conv", "rule", "dtype"),
    "gradients": ("config", "params", "batch", "targets", "simulated", "dtype"),
    "update": ("params", "gradients", "moments", "settings", "dtype"),
}
#: The functions of the contract, of which an adapter has some.
CONTRACT = tuple(ARGUMENTS)
#: Characters of an adapter's own words that are repeated.
WORDS = 500
#: Frames of an exception that are repeated.
FRAMES = 2


@dataclass(frozen=True)
class Reply:
    """What came back of one question.

    Attributes
    ----------
    answer : dict
        Quantity -> array of real numbers.
    lacking : str
        What the adapter does not support; there is no answer then.
    problem : str
        A sentence about what is no answer at all: an exception, a changed argument, complex numbers.
    trace : str
        The whole traceback of an exception.
    """

    answer: Arrays = field(default_factory=dict)
    lacking: str = ""
    problem: str = ""
    trace: str = ""


def plain_text(value: Any, limit: int = WORDS) -> str:
    """Turn anything into text that every file and terminal takes: no lone surrogates, of bearable length.

    Parameters
    ----------
    value : object
    limit : int
        Most characters.

    Returns
    -------
    text : str

    Examples
    --------
    >>> plain_text("so on and so on", 5)
    'so on […]'
    """
    try:
        text = str(value)
    except Exception as error:  # whatever a backend's own class does
        text = f"({type(value).__name__} without words: {type(error).__name__})"
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
    return text if len(text) <= limit else f"{text[:limit]} […]"


def declared(adapter: Any) -> tuple[str, ...]:
    """Precisions that an adapter says it has.

    Parameters
    ----------
    adapter : module or object

    Returns
    -------
    dtypes : tuple of str

    Raises
    ------
    InputError
        They are none, or no names of precisions.
    """
    dtypes = getattr(adapter, "dtypes", ("float64", "float32"))
    if isinstance(dtypes, str) or not isinstance(dtypes, Sequence):
        raise InputError(f"the adapter's dtypes are {dtypes!r:.60}, but a tuple of names was expected: ('float32',)")
    for dtype in dtypes:
        known_precision(dtype)
    if not dtypes:
        raise InputError("the adapter's dtypes are empty; name a precision that it answers for: ('float32',)")
    return tuple(dict.fromkeys(dtypes))


def known_precision(dtype: Any) -> None:
    """Refuse what names no precision."""
    if not isinstance(dtype, str) or dtype not in PRECISIONS:
        raise InputError(f"the precision is {dtype!r:.60}, but it must be one of {', '.join(PRECISIONS)}")


def missing(adapter: Any, case: Case, dtype: str) -> str:
    """Name what an adapter does not support of a case; empty where it supports all.

    Parameters
    ----------
    adapter : module or object
    case : Case
    dtype : str

    Returns
    -------
    feature : str
    """
    if dtype not in declared(adapter):
        return dtype
    if not callable(getattr(adapter, case.function, None)):
        return case.function
    supports = getattr(adapter, "supports", None)
    for feature in case.features if supports is not None else ():
        assert supports is not None
        has = supports(feature, dtype)
        if not isinstance(has, (bool, np.bool_)):
            raise TypeError(f"supports({feature!r}, {dtype!r}) is {has!r:.60}, but True or False was expected")
        if not has:
            return feature
    return ""


def rounded(inputs: Arrays, dtype: str) -> Arrays:
    """Copy a case's inputs into the arrays of a precision.

    Parameters
    ----------
    inputs : dict
    dtype : str

    Returns
    -------
    inputs : dict
        Real numbers as float64 for "float64" and as float32 otherwise, integers as int64.
    """
    kind = np.float64 if dtype == "float64" else np.float32
    return {k: v.astype(kind) if v.dtype.kind == "f" else np.array(v, np.int64) for k, v in inputs.items()}


def ask(adapter: Any, case: Case, dtype: str) -> Reply:
    """Put one case to an adapter in this process.

    Parameters
    ----------
    adapter : module or object
    case : Case
    dtype : str

    Returns
    -------
    reply : Reply
    """
    doing = "supports"
    try:
        if lacking := missing(adapter, case, dtype):
            return Reply(lacking=lacking)
        given = question(case, rounded(case.inputs, dtype), dtype)
        own = deepcopy(given)
        doing = case.function
        found = getattr(adapter, case.function)(*own)
        doing = f"reading what {case.function} returned"
        named = named_answer(case, found)
        answer = {plain_text(name): _real(name, value) for name, value in named.items() if value is not None}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a backend raises is its result; sys.exit raises too
        return _raised(doing, error)
    names = ARGUMENTS[case.function]
    if changed := next(_changes(dict(zip(names, given, strict=True)), dict(zip(names, own, strict=True))), ""):
        return Reply(problem=f"{case.function} changes what it is given: {changed} is not what it was before the call")
    return Reply(with_padding_row(case, answer))


class NoAnswerError(Exception):
    """What was returned is no answer; the words say why."""


def _real(name: Any, value: Any) -> Array:
    """Return an array of real numbers, of whatever an adapter returned."""
    name = plain_text(name, 60)
    try:
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError("it is a masked array")
        array = np.asarray(value)
        if array.dtype.kind == "V" and array.dtype.name.startswith(("bfloat16", "float8")):  # types that JAX brings
            array = array.astype(np.float32)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"its type is {array.dtype}")
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or one that needs a gradient
        raise NoAnswerError(f"{name} is no array of real numbers ({plain_text(error)})") from None
    return array


def _raised(doing: str, error: BaseException) -> Reply:
    if isinstance(error, NoAnswerError):
        return Reply(problem=str(error))
    kind = type(error).__name__
    words = plain_text(error)
    frames = traceback.extract_tb(error.__traceback__)[1:][-FRAMES:]
    places = [f"{Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames]
    trace = plain_text("".join(traceback.format_exception(error)), 40 * WORDS)
    place = plain_text("; then ".join(places))
    return Reply(problem=f"{doing} raised {kind}: {words}" + (f" ({place})" if place else ""), trace=trace)


def _changes(before: Any, after: Any, place: str = ""):
    """Name what differs between two copies of the same arguments."""
    if isinstance(before, Mapping):
        if not isinstance(after, Mapping) or list(before) != list(after):
            yield place or "a dict"
            return
        for name, value in before.items():
            yield from _changes(value, after[name], f"{place}[{name!r}]" if place else name)
    elif isinstance(before, (tuple, list)):
        if len(before) != len(after):
            yield place
            return
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _changes(one, other, f"{place}[{i}]")
    elif isinstance(before, np.ndarray):
        same = isinstance(after, np.ndarray) and after.dtype == before.dtype and np.array_equal(before, after)
        if not same:
            yield place
    elif type(before) is not type(after) or before != after:
        yield place
