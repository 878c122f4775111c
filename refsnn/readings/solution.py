"""What an iterative solver found, forward or backward, and the vectors that it works on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import DTypeLike

from ..errors import InputError, NotConverged, is_number, one_of, shown, whole
from ..ops import Array
from .rate_map import Rates

__all__ = [
    "Solution",
    "count_samples",
]


#: What happens where a solver does not reach its tolerance.
OnFailure = Literal["raise", "warn"]


@dataclass(frozen=True)
class Solution:
    """What a solver found, forward or backward.

    Attributes
    ----------
    state : dict
        The unknowns by population: (B, N, width) arrays.
    residual : (B,) array
        True relative residual of every sample, recomputed from the state and never taken from the solver.
    trace : list of float
        Largest relative residual over the samples, or the solver's own estimate of it, by iteration.
    evaluations : int
        How often the map, or its transposed derivative, was evaluated.
    converged : bool
        Whether every residual is within the tolerance.
    method : str
    """

    state: Rates
    residual: Array
    trace: list[float] = field(repr=False)
    evaluations: int
    converged: bool
    method: str


class Vectors:
    """Dicts of arrays of one layout as vectors, and back; the samples' axis is the first of every array."""

    def __init__(self, like: Mapping[str, Array]) -> None:
        self.shapes = {name: value.shape for name, value in like.items()}
        self.dtype = np.result_type(*like.values()) if like else np.dtype(float)

    def flat(self, state: Mapping[str, Array]) -> Array:
        """All entries, end to end."""
        return np.concatenate([np.zeros(0, self.dtype), *(state[name].reshape(-1) for name in self.shapes)])

    def dict(self, vector: Array) -> Rates:
        """Undo `flat`."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()])
        parts = np.split(vector, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @staticmethod
    def norms(state: Mapping[str, Array]) -> Array:
        """Euclidean norm of every sample, over all populations; neither the smallest nor the largest are lost."""
        size, exponent = _sizes(state)
        with np.errstate(over="ignore", under="ignore"):
            norms: Array = np.ldexp(size, exponent)
        return norms

    @staticmethod
    def relative(error: Mapping[str, Array], to: Mapping[str, Array]) -> Array:
        """Norm of every sample's error relative to that of another state; infinite where that is 0 and this is not."""
        (above, above_exponent), (below, exponent) = _sizes(error), _sizes(to)
        with np.errstate(over="ignore", under="ignore"):
            ratio: Array = np.ldexp(above / np.where(below > 0, below, 1), above_exponent - exponent)
        relative: Array = np.where((below == 0) & (above > 0), ratio.dtype.type(np.inf), ratio)
        return relative


def exponents(state: Mapping[str, Array]) -> Array:
    """Exponent e of every sample: its largest entry, over all populations, lies in [2^(e − 1), 2^e)."""
    tops = [np.abs(value.reshape(len(value), -1)).max(axis=1, initial=0) for value in state.values()]
    return np.asarray(np.frexp(np.max(tops, axis=0, initial=0))[1])


def shifted(state: Mapping[str, Array], by: Array) -> Rates:
    """Multiply every sample by its power of two, which rounds nothing."""

    def one(value: Array) -> Array:
        power = by.reshape(-1, *[1] * (value.ndim - 1))
        if np.iscomplexobj(value):
            return np.asarray(np.ldexp(value.real, power) + 1j * np.ldexp(value.imag, power))
        return np.asarray(np.ldexp(value, power))

    with np.errstate(over="ignore", under="ignore"):
        return {name: one(value) for name, value in state.items()}


def _sizes(state: Mapping[str, Array]) -> tuple[Array, Array]:
    """Norm of every sample as a number and a power of two: squares of its entries neither vanish nor overflow."""
    if not state:
        return np.zeros(()), np.zeros((), int)
    by = exponents(state)
    squares: Array = sum((np.abs(v.reshape(len(v), -1)) ** 2).sum(axis=1) for v in shifted(state, -by).values())
    return np.sqrt(squares), by


class Limits(Protocol):
    """What the options of every solver have in common."""

    @property
    def method(self) -> str: ...
    @property
    def tolerance(self) -> float | None: ...
    @property
    def max_evaluations(self) -> int: ...
    @property
    def on_failure(self) -> OnFailure: ...


def check_limits(options: Limits, methods: tuple[str, ...]) -> None:
    """Make sure that a solver can be asked for this."""
    one_of("method", options.method, methods)
    one_of("on_failure", options.on_failure, get_args(OnFailure))
    whole("max_evaluations", options.max_evaluations)
    if options.tolerance is not None and not (is_number(options.tolerance) and options.tolerance >= 0):
        raise InputError(
            f"`tolerance` is {shown(options.tolerance)}, but a relative residual is a number of at least 0"
        )


def usual_tolerance(dtype: DTypeLike, tolerance: float | None) -> float:
    """Return the tolerance that was asked for, or the precision's own."""
    if tolerance is not None:
        return tolerance
    return 1e-5 if dtype == np.float32 else 1e-12


def fail(solution: Solution, message: str, on_failure: OnFailure, stacklevel: int = 3) -> None:
    """Raise `NotConverged`, or warn where that was asked for: at the line that called what calls this."""
    if on_failure == "raise":
        raise NotConverged(message, solution)
    warnings.warn(message, RuntimeWarning, stacklevel=stacklevel)


def count_samples(state: Mapping[str, Array]) -> int:
    """Count the samples of a state: the length of the first axis of its arrays.

    Parameters
    ----------
    state : mapping

    Returns
    -------
    samples : int
        0 where there are no arrays.
    """
    return len(next(iter(state.values()))) if state else 0
