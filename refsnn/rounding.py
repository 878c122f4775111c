"""A-priori rounding bounds: how far any correct program's currents may lie from the exact ones.

Each function takes quantities *with* a bound of their error and returns its result with a bound, from unit round-off,
fan-in and magnitudes alone (Higham, *Accuracy and Stability of Numerical Algorithms*, chapters 3 and 4). What a correct
program is allowed:

* sums in any order, one rounding per term: a sum of n products is off by at most ``γ_n Σ|terms|``,
  ``γ_n = n·a/(1 − n·a)``, a the unit round-off that sums are accumulated in;
* one rounding to the storage precision, of unit round-off u, after every elementary operation, and of every parameter;
* a variance by two passes, by updating, or as E x² − (E x)²;
* exp, erf and 1/√ within four units.

The values themselves are computed here in float64, whose round-off is added to a and u, so that a bound covers the
distance from a program's number to *ours*, not only to the exact one. Nothing is estimated and nothing is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from . import ops
from .errors import InputError
from .ops import Array

__all__ = ["PRECISIONS", "Enclosed", "Precision", "add", "gelu", "layer_norm", "linear", "mix", "scores", "softmax"]

#: Units that elementary functions may be off by.
FUNCTION_UNITS = 4
OWN = 2.0**-53


@dataclass(frozen=True)
class Precision:
    """Arithmetic of the program that is judged.

    Attributes
    ----------
    name : str
    unit : float
        Unit round-off u of what is stored: half the spacing at 1.
    accumulate : float
        Unit round-off a of the running sums within matrix products, means and softmax.
    tiny : float
        Smallest normal number; whatever is less may be flushed to 0.
    """

    name: str
    unit: float
    accumulate: float
    tiny: float

    @classmethod
    def named(cls, name: str, accumulate: str | None = None) -> Precision:
        """Look a precision up; half precisions accumulate in float32 unless told otherwise.

        Parameters
        ----------
        name : {"float64", "float32", "float16", "bfloat16"}
        accumulate : str, optional
            Precision of sums; by default float32 for the half precisions, else `name`.

        Returns
        -------
        precision : Precision

        Examples
        --------
        >>> Precision.named("bfloat16").unit
        0.00390625
        """
        for given in (name, accumulate or name):
            if given not in PRECISIONS:
                raise InputError(f"the precision is {given!r}, but it must be one of {', '.join(PRECISIONS)}")
        own = PRECISIONS[name]
        if accumulate is None:
            return own
        return cls(name, own.unit, PRECISIONS[accumulate].unit, own.tiny)


PRECISIONS = {
    "float64": Precision("float64", 2.0**-53, 2.0**-53, 2.0**-1022),
    "float32": Precision("float32", 2.0**-24, 2.0**-24, 2.0**-126),
    "float16": Precision("float16", 2.0**-11, 2.0**-24, 2.0**-14),
    "bfloat16": Precision("bfloat16", 2.0**-8, 2.0**-24, 2.0**-126),
}


class Enclosed(NamedTuple):
    """A quantity, in float64, and a bound of how far a correct program's may lie from it; both of one shape."""

    value: Array
    error: Array

    @classmethod
    def exact(cls, value: Array) -> Enclosed:
        """Spikes, and whatever else every program has the same."""
        return cls(value, np.zeros_like(value))


def _gamma(terms: float, precision: Precision) -> float:
    """γ_n of a sum of n terms; a large number where the sum could lose every digit."""
    size = terms * (precision.accumulate + OWN)
    return size / (1 - size) if size < 0.5 else 1e30


def _unit(precision: Precision) -> float:
    return precision.unit + OWN


def add(*terms: Enclosed, precision: Precision) -> Enclosed:
    """Sum of a few arrays, each addition rounded to storage.

    Parameters
    ----------
    *terms : Enclosed
    precision : Precision

    Returns
    -------
    y : Enclosed
    """
    value = sum((t.value for t in terms[1:]), terms[0].value)
    error = sum((t.error for t in terms[1:]), terms[0].error)
    size = sum((np.abs(t.value) for t in terms[1:]), np.abs(terms[0].value)) + error
    return Enclosed(value, error + len(terms) * _unit(precision) * size)


def linear(x: Enclosed, weight: Array, bias: Array | None, precision: Precision) -> Enclosed:
    """Bound of ``x Wᵀ + b``: ``|W| δx + (γ_{n+2} + 2u)(|x| |W|ᵀ + |b|)``.

    Parameters
    ----------
    x : Enclosed (..., D)
    weight : (E, D) array
    bias : (E,) array or None
    precision : Precision

    Returns
    -------
    y : Enclosed (..., E)
    """
    relative = _gamma(weight.shape[1] + 2, precision) + 2 * _unit(precision)  # sum; parameters and result rounded
    value, _ = ops.linear(x.value, weight, bias)
    size = np.abs(x.value) + x.error
    error, _ = ops.linear(x.error + relative * size, np.abs(weight))
    return Enclosed(value, error if bias is None else error + relative * np.abs(bias))


def scores(query: Enclosed, key: Enclosed, heads: int, mask: Array, precision: Precision) -> Enclosed:
    """Bound of the attention scores ``Q Kᵀ/√d + mask``.

    Parameters
    ----------
    query, key : Enclosed (..., N, D)
    heads : int
    mask : array
    precision : Precision

    Returns
    -------
    scores : Enclosed (..., heads, N, N)
    """
    unit = _unit(precision)
    value, _ = ops.attention_scores(query.value, key.value, heads, mask)
    q, k = np.abs(query.value) + query.error, np.abs(key.value) + key.error
    d = query.value.shape[-1] // heads
    relative = _gamma(d + 2, precision) + 3 * unit  # sum, scale, storage
    # |q'k' − qk| ≤ δq|k'| + |q|δk, rounding included in the first factor.
    error, _ = ops.attention_scores(query.error + relative * q, k, heads)
    if key.error.any():
        error = error + ops.attention_scores(np.abs(query.value), key.error, heads)[0]
    return Enclosed(value, error + 2 * unit * (np.abs(value) + error + np.abs(mask)))


def softmax(x: Enclosed, precision: Precision) -> Enclosed:
    """Bound of the softmax of the last axis.

    With every exponent off by at most η_i, ``p_j e^{−η_j}/Σ p_i e^{η_i} ≤ p'_j ≤ p_j e^{η_j}/Σ p_i e^{−η_i}``: a masked
    score may be far off, its weight p_i = 0 keeps that from mattering.

    Parameters
    ----------
    x : Enclosed (..., S)
    precision : Precision

    Returns
    -------
    p : Enclosed (..., S)
    """
    unit = _unit(precision)
    p, _ = ops.softmax(x.value)
    below = x.value.max(axis=-1, keepdims=True) - x.value
    eta = np.minimum(x.error + 2 * unit * (below + x.error) + FUNCTION_UNITS * unit, 300.0)
    more, less = np.expm1(eta), -np.expm1(-eta)  # e^η − 1, 1 − e^{−η}
    sum_less = (p * less).sum(axis=-1, keepdims=True)  # 1 − Σ p e^{−η}
    sum_more = (p * more).sum(axis=-1, keepdims=True)
    above = (more + sum_less) / np.maximum(1 - sum_less, np.finfo(float).tiny)
    under = (less + sum_more) / (1 + sum_more)
    rounding = _gamma(x.value.shape[-1], precision) + 4 * unit
    relative = np.minimum(np.maximum(above, under), 1e30)
    error = p * (relative + rounding * (1 + relative)) + 2 * precision.tiny
    return Enclosed(p, np.minimum(error, 1 + rounding))  # both lie in [0, 1]


def mix(weights: Enclosed, value: Enclosed, precision: Precision) -> Enclosed:
    """Bound of ``P V``, head by head.

    Parameters
    ----------
    weights : Enclosed (..., h, N, S)
    value : Enclosed (..., S, D)
    precision : Precision

    Returns
    -------
    y : Enclosed (..., N, D)
    """
    relative = _gamma(weights.value.shape[-1], precision) + 2 * _unit(precision)
    y, _ = ops.mix(weights.value, value.value)
    p, v = weights.value + weights.error, np.abs(value.value) + value.error
    error, _ = ops.mix(weights.error + relative * p, v)
    if value.error.any():
        error = error + ops.mix(weights.value, value.error)[0]
    return Enclosed(y, error)


def layer_norm(x: Enclosed, weight: Array, bias: Array, eps: float, precision: Precision) -> Enclosed:
    """Bound of layer normalisation.

    A nearly constant row divides by almost nothing, and its bound says so: it grows up to 1/√ε times.

    Parameters
    ----------
    x : Enclosed (..., D)
    weight, bias : (D,) arrays
    eps : float
    precision : Precision

    Returns
    -------
    y : Enclosed (..., D)
    """
    unit, size = _unit(precision), np.abs(x.value) + x.error
    width = x.value.shape[-1]

    def mean(values: Array) -> Array:
        return values.mean(axis=-1, keepdims=True)

    average = mean(x.value)
    centred = x.value - average
    variance = mean(centred * centred)
    shift = mean(x.error) + (_gamma(width + 1, precision) + unit) * mean(size)  # error of the mean
    moved = x.error + shift
    off_centre = moved + unit * (np.abs(centred) + moved)
    # E x² − (E x)² loses what E x² has more than the variance; two passes and updating lose less.
    off_variance = mean(2 * np.abs(centred) * moved + moved * moved)
    off_variance += (_gamma(width + 3, precision) + 5 * unit) * mean(size * size)
    inverse_std = 1 / np.sqrt(variance + eps)
    rounding = FUNCTION_UNITS * unit
    largest = (1 + rounding) / np.sqrt(np.maximum(variance - off_variance, 0) + eps)
    smallest = (1 - rounding) / np.sqrt(variance + off_variance + eps)
    off_inverse = np.maximum(largest - inverse_std, inverse_std - smallest)
    x_hat = centred * inverse_std
    off_hat = np.abs(centred) * off_inverse + largest * off_centre
    off_hat += 2 * unit * (np.abs(x_hat) + off_hat)
    value = x_hat * weight + bias
    gamma = np.abs(weight)
    error = gamma * off_hat + 4 * unit * (gamma * (np.abs(x_hat) + off_hat) + np.abs(bias))
    return Enclosed(value, error)


def gelu(x: Enclosed, precision: Precision) -> Enclosed:
    """Bound of ``x Φ(x)``: its slope is at most 1.13, and Φ is off by a few units of 1.

    Parameters
    ----------
    x : Enclosed
    precision : Precision

    Returns
    -------
    y : Enclosed
    """
    value, _ = ops.gelu(x.value)
    size = np.abs(x.value) + x.error
    return Enclosed(value, 1.13 * x.error + 2 * FUNCTION_UNITS * _unit(precision) * size)
