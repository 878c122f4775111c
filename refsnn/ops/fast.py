"""Fast forms of element-wise functions; the tests compare each with its plain twin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["TAIL", "gelu_float32", "softmax_float32"]

#: Elements per slice: a slice and its scratch stay in a core's second-level cache through all passes.
SLICE = 32768

#: log(Φ(x)/Φ(−x)) = x·R(x²); R's coefficients from degree 0 to 6, for |x| ≤ 6.5; beyond that x·R(x²) only grows. The
#: tanh approximation of GELU is the first two terms of this series with other constants. Weighted minimax fit to
#: 40-digit values (`reference_tests/fit_normal_cdf.py` makes them); Φ is off by 3e-8 before rounding, 1e-7 with it.
LOGIT = (
    1.5957698822021484,
    0.07266616821289062,
    -6.519082671729848e-05,
    -0.00011061207624152303,
    7.929441380838398e-06,
    -2.6452352130945656e-07,
    3.512266255611962e-09,
)
HALF = tuple(np.float32(coefficient / 2) for coefficient in LOGIT)
#: Beyond ±40 the normal distribution function is 0 or 1, and its density 0, in float64 too.
TAIL = 40.0


def gelu_float32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Evaluate GELU in float32, slice by slice.

    ``y = x·Φ(x)``, ``Φ(x) = ½ + ½·tanh(½·x·R(x²))``, R a polynomial: several times as fast as SciPy's error function; Φ
    is off by at most 1e-7, where SciPy's is off by 6e-8.

    Parameters
    ----------
    x : array of float32

    Returns
    -------
    y : array of float32
    """
    flat = np.ascontiguousarray(x).reshape(-1)
    y = np.empty_like(flat)
    square = np.empty(min(SLICE, flat.size), np.float32)
    with np.errstate(over="ignore"):  # an infinite argument of tanh is right
        for start in range(0, flat.size, SLICE):
            z, p = flat[start : start + SLICE], y[start : start + SLICE]
            t = square[: len(z)]
            if z.min() < -TAIL:
                z = np.maximum(z, -TAIL)
            np.multiply(z, z, out=t)
            np.multiply(t, HALF[-1], out=p)
            for coefficient in HALF[-2:0:-1]:
                p += coefficient
                p *= t
            p += HALF[0]
            p *= z
            np.tanh(p, out=p)
            p *= 0.5
            p += 0.5
            p *= z
    return y.reshape(x.shape)


def softmax_float32(x: NDArray[np.float32], plain: Callable[[NDArray], NDArray]) -> NDArray[np.float32]:
    """Softmax of the last axis in float32, without looking for each row's maximum where that is not needed.

    Finding the maxima of many short rows takes NumPy six times as long as all their exponentials. Subtracting them
    guards against sums that overflow or vanish; a row whose exponentials sum up to something between 1 and 1e30 needs
    no guard, and is the more accurate for it. The others are given to `plain`.

    Parameters
    ----------
    x : (..., S) array of float32
    plain : callable
        The softmax of rows (n, S).

    Returns
    -------
    p : (..., S) array of float32
    """
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are found by their sums
        p = np.exp(x)
        total = (p.reshape(-1, x.shape[-1]) @ np.ones(x.shape[-1], np.float32)).reshape(*x.shape[:-1], 1)
        p /= total
    guarded = ~((total[..., 0] >= 1) & (total[..., 0] < 1e30))  # NaN too
    if guarded.any():
        p[guarded] = plain(x[guarded])
    return p
