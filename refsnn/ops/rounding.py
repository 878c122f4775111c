"""A-priori rounding bounds: how far any correct program's currents may lie from the exact ones.

Each function takes quantities *with* a bound of their error and returns its result with a bound, from unit round-off,
fan-in and magnitudes alone (Higham, *Accuracy and Stability of Numerical Algorithms*, chapters 3 and 4). What a correct
program is allowed:

* sums in any order, one rounding per term, of unit round-off a;
* one rounding to the storage precision, of unit round-off u, after every elementary operation, and of every parameter;
  what underflows may lose all of an amount η;
* a variance by two passes, as E x² − (E x)², or by updating in the precision of sums;
* exp, erf, erfc and 1/√ within four units;
* inputs of matrix products rounded once more, where the precision says so (TF32): spikes are not changed by that.

A number that n roundings of sums and k of storage went into is off by at most ``γ = (n·a + k·u)/(1 − n·a − k·u)`` times
the sum of the magnitudes it was made from, whatever the order. What overflows is not covered.

The values themselves are computed here in float64, whose round-off is added to a and u, so that a bound covers the
distance from a program's number to *ours*, not only to the exact one. Nothing is estimated and nothing is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import ops
from ..errors import InputError, shown
from . import Array

__all__ = [
    "MIXED",
    "PRECISIONS",
    "Enclosed",
    "Precision",
    "add",
    "cut",
    "gelu",
    "gelu_tanh",
    "layer_norm",
    "linear",
    "mix",
    "scale",
    "scores",
    "softmax",
]

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
        η, what a result near 0 may lose altogether: what is less than the smallest normal number may be flushed to 0,
        except in float16, which would lose too much of its range so and keeps subnormals, 2⁻²⁴ apart.
    product : float
        Unit round-off of what enters matrix products, where it is rounded for them; else 0.
    """

    name: str
    unit: float
    accumulate: float
    tiny: float
    product: float = 0.0

    @classmethod
    def named(cls, name: str, accumulate: str | None = None) -> Precision:
        """Look a precision up; half precisions accumulate in float32 unless told otherwise.

        Parameters
        ----------
        name : {"float64", "float32", "float16", "bfloat16", "tf32", "bf16_f32"}
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
            if not isinstance(given, str) or given not in PRECISIONS:
                raise InputError(f"the precision is {shown(given)}, but it must be one of {', '.join(PRECISIONS)}")
        own = PRECISIONS[name]
        if accumulate is None:
            return own
        return cls(name, own.unit, PRECISIONS[accumulate].unit, own.tiny, own.product)


PRECISIONS = {
    "float64": Precision("float64", 2.0**-53, 2.0**-53, 2.0**-1022),
    "float32": Precision("float32", 2.0**-24, 2.0**-24, 2.0**-126),
    "float16": Precision("float16", 2.0**-11, 2.0**-24, 2.0**-25),
    "bfloat16": Precision("bfloat16", 2.0**-8, 2.0**-24, 2.0**-126),
    # float32, but what enters a matrix product has 11 significant bits, or bfloat16's eight.
    "tf32": Precision("tf32", 2.0**-24, 2.0**-24, 2.0**-126, 2.0**-11),
    "bf16_f32": Precision("bf16_f32", 2.0**-24, 2.0**-24, 2.0**-126, 2.0**-8),
}
#: Precisions of accelerators: float32 but for what enters matrix products.
MIXED = tuple(name for name, precision in PRECISIONS.items() if precision.product)


class Enclosed(NamedTuple):
    """A quantity, in float64, and a bound of how far a correct program's may lie from it; both of one shape."""

    value: Array
    error: Array

    @classmethod
    def exact(cls, value: Array) -> Enclosed:
        """Spikes, and whatever else every program has the same."""
        return cls(value, np.zeros_like(value))


def cut(x: Array, unit: float) -> Array:
    """Round to the significant bits of a unit round-off, to nearest.

    Parameters
    ----------
    x : array
    unit : float
        2⁻¹¹ for TF32.

    Returns
    -------
    x : array of float64

    Examples
    --------
    >>> cut(np.array([1 + 2.0**-10, 1 + 2.0**-12]), 2.0**-11)
    array([1.00097656, 1.        ])
    """
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.rint(mantissa / unit) * unit, exponent)


def _entering(x: Enclosed | Array, precision: Precision) -> int:
    """How often an array is rounded for a matrix product: not at all if it is exact, and short enough."""
    value, error = x if isinstance(x, Enclosed) else (x, None)
    exact = not precision.product or (
        (error is None or not error.any()) and np.array_equal(cut(value, precision.product), value)
    )
    return 0 if exact else 1


def _gamma(sums: float, stores: float, precision: Precision, entered: int = 0) -> float:
    """γ of so many roundings of sums, of storage and for a product; a large number where every digit could be lost."""
    size = sums * (precision.accumulate + OWN) + stores * (precision.unit + OWN)
    size += entered * (precision.product + OWN) if entered else 0.0
    return size / (1 - size) if size < 0.5 else 1e30


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
    return Enclosed(value, error + _gamma(0, len(terms), precision) * size + len(terms) * precision.tiny)


def scale(x: Enclosed, factor: Array, precision: Precision) -> Enclosed:
    """Bound of a factor per feature, or of a division by its reciprocal: three roundings of storage.

    Parameters
    ----------
    x : Enclosed (..., D)
    factor : (D,) array
    precision : Precision

    Returns
    -------
    y : Enclosed (..., D)
    """
    size = np.abs(factor)  # the factor or its reciprocal is stored, the reciprocal formed, and the product
    error = size * (x.error + _gamma(0, 3, precision) * (np.abs(x.value) + x.error))
    return Enclosed(factor * x.value, error + (2 + np.abs(x.value) + x.error) * precision.tiny)


def linear(x: Enclosed, weight: Array, bias: Array | None, precision: Precision) -> Enclosed:
    """Bound of ``x Wᵀ + b``: ``|W| δx + γ(|x| |W|ᵀ + |b|)``, γ of D + 2 roundings of sums and 3 of storage.

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
    width, tiny = weight.shape[1], precision.tiny
    stores = 2 if bias is None else 3  # weight, product, and its sum with the bias
    relative = _gamma(width + 2, stores, precision, _entering(x, precision) + _entering(weight, precision))
    value, _ = ops.linear(x.value, weight, bias)
    size = np.abs(x.value) + x.error
    error, _ = ops.linear(x.error + relative * size, np.abs(weight))
    error += tiny * (size.sum(axis=-1, keepdims=True) + width + 3)
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
    value, _ = ops.attention_scores(query.value, key.value, heads, mask)
    q, k = np.abs(query.value) + query.error, np.abs(key.value) + key.error
    d, tiny = query.value.shape[-1] // heads, precision.tiny
    entered = _entering(query, precision) + _entering(key, precision)
    relative = _gamma(d + 2, 4, precision, entered)  # root, its reciprocal, sum, scaling
    # |q'k' − qk| ≤ δq|k'| + |q|δk, rounding included in the first factor.
    error, _ = ops.attention_scores(query.error + relative * q + tiny * np.sqrt(d), k, heads)
    if key.error.any():
        error = error + ops.attention_scores(np.abs(query.value), key.error, heads)[0]
    return Enclosed(value, error + _gamma(0, 2, precision) * (np.abs(value) + error + np.abs(mask)) + (d + 4) * tiny)


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
    p, _ = ops.softmax(x.value)
    highest = (x.value + x.error).max(axis=-1, keepdims=True)  # of what the program subtracts
    exponents = _gamma(0, 1, precision) * (highest - x.value + x.error)
    eta = x.error + exponents + _gamma(0, FUNCTION_UNITS, precision)
    # p e^η − p; where η is large p may be 0 and p e^η not, so it is formed from log p.
    log_p = ops.log_softmax(x.value)
    more = np.where(eta < 1, p * np.expm1(np.minimum(eta, 1)), np.exp(np.minimum(eta + log_p, 200.0)))
    less = -p * np.expm1(-eta)  # p − p e^{−η}
    sum_more, sum_less = more.sum(axis=-1, keepdims=True), less.sum(axis=-1, keepdims=True)
    kept = (p * np.exp(-eta)).sum(axis=-1, keepdims=True)  # 1 − Σ less, without cancellation
    above = np.where(kept > 1e-200, (more + p * sum_less) / np.maximum(kept, 1e-200), 1)
    under = (less + p * sum_more) / (1 + sum_more)
    off = np.maximum(above, under)
    terms = x.value.shape[-1]
    rounding = _gamma(terms, 3, precision)  # sum, its reciprocal, product
    error = off + rounding * (p + off) + (3 + terms * p) * precision.tiny
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
    terms = weights.value.shape[-1]
    relative = _gamma(terms, 1, precision, _entering(weights, precision) + _entering(value, precision))
    y, _ = ops.mix(weights.value, value.value)
    p, v = weights.value + weights.error, np.abs(value.value) + value.error
    error, _ = ops.mix(weights.error + relative * p, v)
    if value.error.any():
        error = error + ops.mix(weights.value, value.error)[0]
    return Enclosed(y, error + (terms + 1) * precision.tiny)


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
    size, tiny = np.abs(x.value) + x.error, precision.tiny
    width = x.value.shape[-1]

    def mean(values: Array) -> Array:
        return values.mean(axis=-1, keepdims=True)

    centred = x.value - mean(x.value)
    centred -= mean(centred)
    variance = mean(centred * centred)
    # Error of the mean; if the mean of what is left is subtracted as well, as we do, it is that one's instead.
    summed = np.maximum(mean(size), mean(np.abs(centred) + 2 * x.error))
    shift = mean(x.error) + _gamma(width + 2, 4, precision) * summed + 4 * tiny
    moved = x.error + shift
    # Roundings of x − mean; or, written as x·scale + (−mean·scale) in the precision of sums, two of each term.
    off_centre = moved + _gamma(0, 2, precision) * (np.abs(centred) + moved)
    off_centre += _gamma(2, 0, precision) * (size + mean(size) + shift)
    off_variance = mean(2 * np.abs(centred) * moved + moved * moved) + 8 * tiny
    # E x² − (E x)² loses what E x² has more than the variance, in each of three sums; the other ways lose less.
    largest = np.maximum(size, np.abs(centred) + moved)
    off_variance += _gamma(3 * width + 6, 15, precision) * mean(largest * largest)
    inverse_std = 1 / np.sqrt(variance + eps)
    rounding = _gamma(0, FUNCTION_UNITS + 1, precision)
    most = (1 + rounding) / np.sqrt(np.maximum(variance - off_variance, 0) + max(eps - tiny, tiny))
    least = (1 - rounding) / np.sqrt(variance + off_variance + eps)
    off_inverse = np.maximum(most - inverse_std, inverse_std - least)
    x_hat = centred * inverse_std
    off_hat = np.abs(centred) * off_inverse + most * off_centre
    off_hat += _gamma(0, 2, precision) * (np.abs(x_hat) + off_hat)
    value, _ = ops.layer_norm(x.value, weight, bias, eps)
    gamma, hat = np.abs(weight), np.abs(x_hat) + off_hat
    error = gamma * off_hat + _gamma(0, 4, precision) * (gamma * hat + np.abs(bias)) + tiny * (gamma + hat + 3)
    return Enclosed(value, error)


def gelu(x: Enclosed, precision: Precision) -> Enclosed:
    """Bound of ``x Φ(x)``: its slope is at most 1.13, and Φ = ½(1 + erf) = ½ erfc is off by some units of 1.

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
    relative = _gamma(0, FUNCTION_UNITS + 2, precision)  # erfc ≤ 2; its argument; product
    return Enclosed(value, 1.13 * x.error + relative * size + 3 * precision.tiny)


def gelu_tanh(x: Enclosed, precision: Precision) -> Enclosed:
    """Bound of ``½x(1 + tanh w)``: its slope is at most 1.13, and ``|w|·(1 − tanh² w)`` at most 0.45.

    Parameters
    ----------
    x : Enclosed
    precision : Precision

    Returns
    -------
    y : Enclosed
    """
    value, _ = ops.gelu_tanh(x.value)
    size = np.abs(x.value) + x.error
    # w has eight roundings, of constants, powers and sums, whose terms have one sign; then tanh, its sum with 1 (≤ 2),
    # and two products, all halved.
    relative = _gamma(0, 0.5 * (0.45 * 8 + FUNCTION_UNITS + 2 + 4), precision)
    return Enclosed(value, 1.13 * x.error + relative * size + 4 * precision.tiny)
