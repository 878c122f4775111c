"""Makes the coefficients of `refsnn.ops.fast.LOGIT`: run it with Python, it needs mpmath.

log(Φ(x)/Φ(−x)) is an odd function; divided by x it is a smooth function of x² that a polynomial fits well. An error δ
of the polynomial moves Φ by Φ(x)Φ(−x)·x·δ, which is therefore the weight of the fit; Lawson's iteration turns least
squares into the smallest largest error.
"""

import mpmath
import numpy as np

LARGEST, DEGREE, POINTS = 6.5, 6, 400


def coefficients() -> np.ndarray:
    mpmath.mp.dps = 40
    squares = LARGEST**2 * (1 - np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)) / 2
    x = np.sqrt(squares[squares > 1e-6])
    target = np.array([float(mpmath.log(mpmath.ncdf(v) / mpmath.ncdf(-mpmath.mpf(v))) / v) for v in x])
    weight = np.array([float(mpmath.ncdf(v) * mpmath.ncdf(-v) * v) for v in x])
    basis = np.polynomial.chebyshev.chebvander(2 * x**2 / LARGEST**2 - 1, DEGREE)
    emphasis = np.ones_like(x)
    for _ in range(200):
        w = np.sqrt(emphasis) * weight
        fit = np.linalg.lstsq(basis * w[:, None], target * w, rcond=None)[0]
        error = np.abs((basis @ fit - target) * weight)
        emphasis *= error / error.max() + 1e-3
        emphasis /= emphasis.mean()
    chebyshev = np.polynomial.chebyshev.Chebyshev(fit, domain=[0, LARGEST**2])
    print(f"largest error of the distribution function before rounding: {error.max():.1e}")
    return chebyshev.convert(kind=np.polynomial.Polynomial).coef


if __name__ == "__main__":
    for value in coefficients():
        print(float(np.float32(value)))
