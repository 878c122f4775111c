"""Fast forms of element-wise functions; each has a plain twin that the tests hold it against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["TAIL", "gelu_float32"]

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


def gelu_float32(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Evaluate GELU and the normal distribution function in float32, slice by slice.

    ``Φ(x) = ½ + ½·tanh(½·x·R(x²))``, R a polynomial, ``y = x·Φ(x)``: several times as fast as SciPy's error function;
    Φ is off by at most 1e-7, where SciPy's is off by 6e-8.

    Parameters
    ----------
    x : array of float32

    Returns
    -------
    y, cdf : arrays of float32
        x·Φ(x) and Φ(x).
    """
    flat = np.ascontiguousarray(x).reshape(-1)
    y, cdf = np.empty_like(flat), np.empty_like(flat)
    square = np.empty(min(SLICE, flat.size), np.float32)
    with np.errstate(over="ignore"):  # an infinite argument of tanh is right
        for start in range(0, flat.size, SLICE):
            part = slice(start, start + SLICE)
            z, p = flat[part], cdf[part]
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
            np.multiply(z, p, out=y[part])
    return y.reshape(x.shape), cdf.reshape(x.shape)
