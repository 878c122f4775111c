"""Operations on the last axis: embedding, linear map, layer norm, GELU, ReLU, tanh, clip.

Every operation returns ``(y, pullback)``. ``pullback(dy)`` takes the cotangent of ``y`` and returns the cotangents of
the array arguments in argument order (integer arguments have none). An operation keeps the dtype it is given; complex
input is allowed wherever the formula is analytic, so that derivatives can be checked by the complex step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .fast import TAIL, gelu_float32
from .rows import Rows

Array = NDArray[Any]

__all__ = [
    "Array",
    "LinearPullback",
    "clip",
    "embedding",
    "gelu",
    "gelu_tanh",
    "layer_norm",
    "linear",
    "relu",
    "scale",
    "tanh",
]


def check_indices(indices: Array, count: int, what: str) -> None:
    """Raise InputError unless all indices lie in [0, count): NumPy would count negative ones from the end."""
    if indices.size and not 0 <= indices.min() <= indices.max() < count:
        raise InputError(f"{what} lie between {indices.min()} and {indices.max()}, but must lie in [0, {count})")


def _add(x: Array, y: Array) -> Array:
    """``x + y`` in the place of x, which is the caller's own, unless y has a wider type (a complex step, say)."""
    return np.add(x, y, out=x if x.dtype == np.result_type(x, y) else None)


def _mean(x: Array, *y: Array) -> Array:
    """Mean over the last axis, kept as an axis of length 1, of x or of x·y: no array of products, in half the time."""
    total = np.einsum(",".join(["...i"] * (1 + len(y))) + "->...", x, *y)
    return total[..., None] / x.shape[-1]


class EmbeddingPullback(NamedTuple):
    """Pullback of `embedding`, which can leave out the rows that are 0: most of a large table."""

    ids: Array
    length: int
    frozen_row: int | None

    def rows(self, dy: Array) -> Rows:
        """Gradient of the rows that were read.

        Parameters
        ----------
        dy : (..., D) array

        Returns
        -------
        dtable : Rows
        """
        flat, dy = self.ids.reshape(-1), dy.reshape(self.ids.size, dy.shape[-1])
        # Sorting brings equal ids together: each row of the gradient is then one contiguous sum.
        order = np.argsort(flat, kind="stable")
        numbers, starts = np.unique(flat[order], return_index=True)
        values = np.add.reduceat(dy[order], starts, axis=0) if flat.size else dy
        if self.frozen_row is not None:
            moves = numbers != self.frozen_row
            numbers, values = numbers[moves], values[moves]
        return Rows(numbers, values, self.length)

    def __call__(self, dy: Array) -> Array:
        """Gradient of the whole table."""
        return self.rows(dy).dense()


def embedding(ids: Array, table: Array, frozen_row: int | None = None) -> tuple[Array, EmbeddingPullback]:
    """Rows of a table: ``y[..., :] = table[ids[...], :]``.

    Parameters
    ----------
    ids : (...) integers in [0, V)
    table : (V, D) array
    frozen_row : int, optional
        A row that receives no gradient. BERT freezes the word embedding of the padding token (id 0).

    Returns
    -------
    y : (..., D) array
    pullback : callable
        ``pullback(dy) -> dtable``; ``dtable[v]`` sums the cotangents of all places where ``ids == v``.
        ``pullback.rows(dy)`` gives the same as `refsnn.ops.Rows`.

    Examples
    --------
    >>> y, pullback = embedding(np.array([2, 0, 2]), np.eye(3))
    >>> pullback(np.ones((3, 3))).sum(axis=1)
    array([3., 0., 6.])
    """
    check_indices(ids, len(table), "ids")
    return table[ids], EmbeddingPullback(ids, len(table), frozen_row)  # (..., D)


class LinearPullback(NamedTuple):
    """Pullback of `linear`, in two halves of equal cost: a product ``Jᵀv`` needs the first alone."""

    x: Array
    weight: Array
    biased: bool

    def reads(self, dy: Array) -> Array:
        """Cotangent of x: ``dx = dy W``.

        Parameters
        ----------
        dy : (..., E) array

        Returns
        -------
        dx : (..., D) array
        """
        return (dy.reshape(-1, dy.shape[-1]) @ self.weight).reshape(self.x.shape)  # (M, E) @ (E, D) -> (M, D)

    def parameters(self, dy: Array) -> tuple[Array, ...]:
        """Cotangents of weight and bias: ``dW = Σ dyᵀ x``, ``db = Σ dy``.

        Parameters
        ----------
        dy : (..., E) array

        Returns
        -------
        dweight : (E, D) array
        dbias : (E,) array
            Where there is a bias.
        """
        dy2 = dy.reshape(-1, dy.shape[-1])  # (M, E)
        dweight = dy2.T @ self.x.reshape(-1, self.x.shape[-1])  # (E, M) @ (M, D) -> (E, D)
        return (dweight, dy2.sum(axis=0)) if self.biased else (dweight,)

    def __call__(self, dy: Array) -> tuple[Array, ...]:
        """Both."""
        return self.reads(dy), *self.parameters(dy)


def linear(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, LinearPullback]:
    """Affine map of the last axis: ``y = x Wᵀ + b``.

    Parameters
    ----------
    x : (..., D) array
    weight : (E, D) array
        Output dimension first, as in BERT checkpoints.
    bias : (E,) array, optional

    Returns
    -------
    y : (..., E) array
    pullback : callable
        ``pullback(dy) -> (dx, dweight, dbias)``, without ``dbias`` where there is no bias:
        ``dx = dy W``, ``dW = Σ dyᵀ x``, ``db = Σ dy``, the sums over all leading axes. `LinearPullback` gives each
        half alone.

    Examples
    --------
    >>> y, pullback = linear(np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [0.0, 3.0]]), np.array([0.5, 0.0]))
    >>> y
    array([[3.5, 6. ]])
    >>> pullback(np.array([[1.0, 0.0]]))[0]
    array([[1., 1.]])
    """
    x2 = x.reshape(-1, x.shape[-1])  # one large matrix product whatever the leading axes: (M, D)
    y2 = x2 @ weight.T  # (M, D) @ (D, E) -> (M, E)
    if bias is not None:
        y2 = _add(y2, bias)

    return y2.reshape(*x.shape[:-1], weight.shape[0]), LinearPullback(x, weight, bias is not None)


def layer_norm(
    x: Array, weight: Array, bias: Array, eps: float = 1e-12
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """Layer normalisation over the last axis: ``y = γ·x̂ + β`` with ``x̂ = (x − mean) / √(var + ε)``.

    The variance is the biased one (divided by D) and ε = 1e-12, as in BERT.

    Parameters
    ----------
    x : (..., D) array
    weight, bias : (D,) arrays
        γ and β.
    eps : float

    Returns
    -------
    y : (..., D) array
    pullback : callable
        ``pullback(dy) -> (dx, dweight, dbias)``. With ``g = γ·dy``:
        ``dx = (g − mean(g) − x̂·mean(g·x̂)) / √(var + ε)``, ``dγ = Σ dy·x̂``, ``dβ = Σ dy``.

    References
    ----------
    Ba, Kiros & Hinton, *Layer Normalization*, arXiv 1607.06450.

    Examples
    --------
    >>> y, pullback = layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2))
    >>> y
    array([[-1.,  1.]])
    >>> bool(np.abs(pullback(np.ones((1, 2)))[0]).max() < 1e-12)  # a common shift of y cannot come from x
    True
    """
    x_hat = x - _mean(x)
    x_hat -= _mean(x_hat)  # the rounding of the first mean: all there is in a constant row
    inverse_std = 1 / np.sqrt(_mean(x_hat, x_hat) + eps)  # (..., 1)
    x_hat *= inverse_std
    y = _add(x_hat * weight, bias)

    def pullback(dy: Array) -> tuple[Array, Array, Array]:
        leading = tuple(range(dy.ndim - 1))
        g = dy * weight
        dx = g - _mean(g)
        dx -= x_hat * _mean(g, x_hat)
        dx *= inverse_std
        return dx, (dy * x_hat).sum(axis=leading), dy.sum(axis=leading)

    return y, pullback


def gelu(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Gaussian error linear unit, exact form: ``y = x·Φ(x)`` with ``Φ(x) = ½(1 + erf(x/√2)) = ½ erfc(−x/√2)``.

    Parameters
    ----------
    x : array

    Returns
    -------
    y : array
    pullback : callable
        ``pullback(dy) -> dx = dy·(Φ(x) + x·φ(x))``, ``φ`` the standard normal density.

    Notes
    -----
    BERT's ``hidden_act="gelu"`` is this form; the tanh approximation differs from it by up to 5e-4.

    References
    ----------
    Hendrycks & Gimpel, *Gaussian Error Linear Units*, arXiv 1606.08415.

    Examples
    --------
    >>> y, pullback = gelu(np.array([0.0, 1.0]))
    >>> y.round(6), pullback(np.ones(2)).round(6)
    (array([0.      , 0.841345]), array([0.5     , 1.083315]))
    """
    if x.dtype == np.float32:
        y = gelu_float32(x)
    else:
        from scipy.special import erfc  # here, because float32 does without

        # erfc, because 1 + erf cancels where x is negative; and no infinite x meets a Φ of 0
        y = np.maximum(x, -TAIL) * (0.5 * erfc(x * -math.sqrt(0.5)))

    def pullback(dy: Array) -> Array:
        z = np.clip(x, -TAIL, TAIL)  # no square overflows
        with np.errstate(invalid="ignore"):
            cdf = np.minimum(y, TAIL) / z  # Φ = y/x
        cdf[z == 0] = 0.5
        slope = z * z
        slope *= -0.5
        np.exp(slope, out=slope)
        slope *= 1 / math.sqrt(2 * math.pi)  # φ(x)
        slope *= z
        slope += cdf
        slope *= dy
        return slope

    return y, pullback


#: √(2/π) and the factor of x³ in GELU's tanh form.
TANH_SCALE, TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


def gelu_tanh(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """GELU's tanh form, as GPT-2 has it: ``y = ½x(1 + tanh w)`` with ``w = √(2/π)·(x + 0.044715·x³)``.

    Parameters
    ----------
    x : array

    Returns
    -------
    y : array
    pullback : callable
        ``pullback(dy) -> dx = dy·½(1 + tanh w + x·(1 − tanh² w)·w')`` with ``w' = √(2/π)·(1 + 3·0.044715·x²)``.

    Notes
    -----
    GPT-2's ``activation_function="gelu_new"`` is this form; it differs from `gelu` by up to 5e-4.

    References
    ----------
    Hendrycks & Gimpel, *Gaussian Error Linear Units*, arXiv 1606.08415, section 2.

    Examples
    --------
    >>> y, pullback = gelu_tanh(np.array([0.0, 1.0]))
    >>> y.round(6), pullback(np.ones(2)).round(6)
    (array([0.      , 0.841192]), array([0.5     , 1.082964]))
    """
    z = np.clip(x, -TAIL, TAIL)  # no cube overflows; beyond, tanh is ±1 and its slope 0
    square = z * z
    tanh = np.tanh(TANH_SCALE * z * (1 + TANH_CUBE * square))
    y = 0.5 * np.maximum(x, -TAIL) * (1 + tanh)

    def pullback(dy: Array) -> Array:
        slope = TANH_SCALE * z * (1 + 3 * TANH_CUBE * square)
        return dy * 0.5 * (1 + tanh + slope * (1 - tanh * tanh))

    return y, pullback


def relu(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Rectifier ``y = max(x, 0)``; its derivative at exactly 0 is 0.

    Parameters
    ----------
    x : array

    Returns
    -------
    y : array
    pullback : callable
        ``pullback(dy) -> dx``.

    Examples
    --------
    >>> y, pullback = relu(np.array([-1.0, 0.0, 2.0]))
    >>> y, pullback(np.ones(3))
    (array([0., 0., 2.]), array([0., 0., 1.]))
    """
    positive = x.real > 0
    return np.where(x.real <= 0, 0, x), lambda dy: dy * positive  # NaN stays NaN


def tanh(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Hyperbolic tangent (the pooler of the BERT teacher); ``dx = dy·(1 − y²)``.

    Parameters
    ----------
    x : array

    Returns
    -------
    y : array
    pullback : callable
        ``pullback(dy) -> dx``.

    Examples
    --------
    >>> y, pullback = tanh(np.array([0.0]))
    >>> pullback(np.array([3.0]))
    array([3.])
    """
    y = np.tanh(x)
    return y, lambda dy: dy * (1 - y * y)


def scale(x: Array, weight: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """``y = w ⊙ x``: one factor for each feature.

    Parameters
    ----------
    x : (..., D) array
    weight : (D,) array

    Returns
    -------
    y : (..., D) array
    pullback : callable
        ``pullback(dy) -> (dx, dweight)``.

    Examples
    --------
    >>> y, pullback = scale(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([2.0, 0.5]))
    >>> y, pullback(np.ones((2, 2)))[1]
    (array([[2., 1.],
           [6., 2.]]), array([4., 6.]))
    """

    def pullback(dy: Array) -> tuple[Array, Array]:
        return dy * weight, (dy * x).reshape(-1, x.shape[-1]).sum(axis=0)

    return x * weight, pullback


def clip(x: Array, edge_derivative: float = 0.0, low: float = 0.0) -> tuple[Array, Callable[[Array], Array]]:
    """``σ(x) = min(max(x, low), 1)``, the rate of an integrate-and-fire neuron under a constant current x (V_th = 1).

    Parameters
    ----------
    x : array
    edge_derivative : float
        The derivative at exactly `low` and exactly 1, where none exists. It is 1 inside and 0 outside. PyTorch 2.13
        answers 1 at the edges and PyTorch 2.14 answers 0; both are subgradients.
    low : float
        0, or −1 where spikes of −1 lower the rate.

    Returns
    -------
    y : array
    pullback : callable
        ``pullback(dy) -> dx``.

    Examples
    --------
    >>> y, pullback = clip(np.array([-0.5, 0.0, 0.25, 1.0, 1.5]))
    >>> y
    array([0.  , 0.  , 0.25, 1.  , 1.  ])
    >>> pullback(np.ones(5))
    array([0., 0., 1., 0., 0.])
    """
    real = x.real
    if np.iscomplexobj(x):
        y = np.where(real < low, low, np.where(real > 1, 1, x))
    else:
        y = np.clip(x, low, 1)
    inside = (real > low) & (real < 1)

    def pullback(dy: Array) -> Array:
        dx = dy * inside
        if edge_derivative:
            dx += dy * (edge_derivative * ((real == low) | (real == 1)))
        return dx

    return y, pullback
