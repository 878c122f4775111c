"""Fast forms of element-wise functions; each has a plain twin that the tests hold it against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["normal_cdf_float32"]

#: Elements per slice: a slice and its scratch stay in a core's cache through all passes.
SLICE = 16384

#: log(Φ(x)/Φ(−x)) = x·R(x²); R's coefficients from degree 0 to 6, for |x| ≤ 6.5. The tanh approximation of GELU is the
#: first two terms of this series with other constants. Weighted minimax fit to 40-digit values
#: (`reference_tests/fit_normal_cdf.py` makes them); the error of Φ is 3e-8 before rounding, 1.3e-7 with it.
LOGIT = (
    1.5957698822021484,
    0.07266616821289062,
    -6.519082671729848e-05,
    -0.00011061207624152303,
    7.929441380838398e-06,
    -2.6452352130945656e-07,
    3.512266255611962e-09,
)
LIMIT = 6.5**2


def normal_cdf_float32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Evaluate the normal distribution function ``Φ(x) = 1/(1 + exp(−x·R(x²)))`` in float32, R a polynomial.

    Three to four times as fast as SciPy's error function; off by at most 1.3e-7, where SciPy's is off by 6e-8.

    Parameters
    ----------
    x : array of float32

    Returns
    -------
    cdf : array of float32
    """
    flat = np.ascontiguousarray(x).reshape(-1)
    cdf = np.empty_like(flat)
    square = np.empty(min(SLICE, flat.size), np.float32)
    for start in range(0, flat.size, SLICE):
        z, y = flat[start : start + SLICE], cdf[start : start + SLICE]
        t = square[: len(z)]
        np.multiply(z, z, out=t)
        np.minimum(t, LIMIT, out=t)
        np.multiply(t, LOGIT[-1], out=y)
        for coefficient in LOGIT[-2:0:-1]:
            y += coefficient
            y *= t
        y += LOGIT[0]
        y *= z
        np.negative(y, out=y)
        np.minimum(y, 80.0, out=y)  # exp stays finite; Φ is 0 in float32 long before
        np.exp(y, out=y)
        y += 1
        np.reciprocal(y, out=y)
    return cdf.reshape(x.shape)
