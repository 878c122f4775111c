"""Scaled dot-product attention, head by head: scores, softmax, mixing of the values.

The same conventions as in `refsnn.ops.dense`. N is the number of queries, S the number of keys, h the number of heads,
D = h·d the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError
from .dense import Array
from .fast import softmax_float32

__all__ = ["MASKED", "attention", "attention_scores", "causal_mask", "mix", "softmax", "split_heads"]

#: What is added to the score of a key that may not be seen. Its exponential is 0 in every precision.
MASKED = -10000.0


def split_heads(x: Array, heads: int) -> Array:
    """Separate the heads' shares of the width: (..., N, h·d) -> (..., h, N, d).

    Parameters
    ----------
    x : (..., N, D) array
    heads : int

    Returns
    -------
    x : (..., h, N, d) array

    Raises
    ------
    InputError
        The number of heads does not divide the width.
    """
    if x.shape[-1] % heads:
        raise InputError(f"{heads} heads cannot share a width of {x.shape[-1]}: the width must be a multiple")
    return np.swapaxes(x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads), -3, -2)


def _merge(x: Array) -> Array:
    """(..., h, N, d) -> (..., N, h·d)."""
    swapped = np.swapaxes(x, -3, -2)
    return swapped.reshape(*swapped.shape[:-2], swapped.shape[-2] * swapped.shape[-1])


def _unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum a cotangent over the axes along which its primal was repeated."""
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(extra)))
    return gradient.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1 < gradient.shape[i]), keepdims=True)


def attention_scores(
    query: Array, key: Array, heads: int, mask: Array | None = None
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Raw attention scores ``S = Q Kᵀ/√d + mask``, before the softmax.

    Parameters
    ----------
    query : (..., N, D) array
    key : (..., S, D) array
    heads : int
        h; must divide D.
    mask : array that broadcasts to (..., h, N, S), optional
        Added to the scores: 0 where a key may be seen, −10000 on padding. Real, a constant: it has no cotangent.

    Returns
    -------
    scores : (..., h, N, S) array
    pullback : callable
        ``pullback(dS) -> (dQ, dK)`` with ``dQ = dS K/√d`` and ``dK = dSᵀ Q/√d``, head by head.

    References
    ----------
    Vaswani et al., *Attention Is All You Need*, section 3.2.1; SpikingBERT, section *Spiking attention*.

    Examples
    --------
    >>> scores, pullback = attention_scores(np.eye(2), np.ones((3, 2)), heads=2)
    >>> scores.shape, scores[0, 0]
    ((2, 2, 3), array([1., 1., 1.]))
    """
    q, k = split_heads(query, heads), split_heads(key, heads)  # (..., h, N, d), (..., h, S, d)
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ np.swapaxes(k, -1, -2)  # -> (..., h, N, S)
    scores *= scale
    if mask is not None:
        scores += mask

    def pullback(dscores: Array) -> tuple[Array, Array]:
        scaled = dscores * scale
        return (
            _unbroadcast(_merge(scaled @ k), query.shape),
            _unbroadcast(_merge(np.swapaxes(scaled, -1, -2) @ q), key.shape),
        )

    return scores, pullback


def causal_mask(queries: int, keys: int, dtype: np.dtype[Any] | type = np.float64) -> Array:
    """Return what is added to scores so that nobody looks ahead: 0 on keys up to a query's own position, −10000 beyond.

    The queries are the last positions of the keys: with as many of both, a lower triangle; with one query, that of the
    last position, all zeros.

    Parameters
    ----------
    queries, keys : int
        N ≤ S.
    dtype : dtype

    Returns
    -------
    mask : (N, S) array

    Examples
    --------
    >>> causal_mask(2, 3)
    array([[     0.,      0., -10000.],
           [     0.,      0.,      0.]])
    """
    return np.triu(np.full((queries, keys), MASKED, dtype), k=1 + keys - queries)


def softmax(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Softmax of the last axis: ``p = exp(x − max x)/Σ exp(x − max x)``.

    Parameters
    ----------
    x : (..., S) array

    Returns
    -------
    p : (..., S) array
    pullback : callable
        ``pullback(dp) -> dx = p·(dp − Σ p·dp)``.

    Examples
    --------
    >>> p, pullback = softmax(np.log(np.array([1.0, 3.0])))
    >>> p, pullback(np.array([1.0, 0.0]))
    (array([0.25, 0.75]), array([ 0.1875, -0.1875]))
    """

    def shifted(x: Array) -> Array:
        p = np.exp(x - x.real.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        return p

    p = softmax_float32(x, shifted) if x.dtype == np.float32 else shifted(x)

    def pullback(dp: Array) -> Array:
        return p * (dp - (p * dp).sum(axis=-1, keepdims=True))

    return p, pullback


def mix(weights: Array, value: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Values averaged by attention weights: ``Y = P V``, head by head, heads side by side in the result.

    Parameters
    ----------
    weights : (..., h, N, S) array
        P, usually from `softmax`.
    value : (..., S, D) array

    Returns
    -------
    y : (..., N, D) array
    pullback : callable
        ``pullback(dY) -> (dP, dV)`` with ``dP = dY Vᵀ`` and ``dV = Pᵀ dY``.

    Examples
    --------
    >>> y, pullback = mix(np.full((1, 1, 2), 0.5), np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> y
    array([[0.5, 0.5]])
    """
    heads = weights.shape[-3]
    v = split_heads(value, heads)  # (..., h, S, d)
    y = _merge(weights @ v)  # (..., h, N, S) @ (..., h, S, d) -> (..., N, D)

    def pullback(dy: Array) -> tuple[Array, Array]:
        d = split_heads(dy, heads)  # (..., h, N, d)
        return (
            _unbroadcast(d @ np.swapaxes(v, -1, -2), weights.shape),
            _unbroadcast(_merge(np.swapaxes(weights, -1, -2) @ d), value.shape),
        )

    return y, pullback


def attention(
    query: Array, key: Array, value: Array, heads: int, mask: Array | None = None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """Multi-head attention ``softmax(Q Kᵀ/√d + mask) V``: the three operations above, one after the other.

    Parameters
    ----------
    query : (..., N, D) array
    key, value : (..., S, D) arrays
    heads : int
    mask : array that broadcasts to (..., h, N, S), optional

    Returns
    -------
    y : (..., N, D) array
    pullback : callable
        ``pullback(dY) -> (dQ, dK, dV)``.

    Notes
    -----
    The weights sum to 1, so a value feature that is 1 at every key gives a context of exactly 1 in exact arithmetic,
    and 1 ± rounding in floating point: the structural ties described in ``docs/architecture.md``.

    Examples
    --------
    >>> y, pullback = attention(np.eye(2), np.eye(2), np.ones((2, 2)), heads=1)
    >>> np.allclose(y, 1), np.allclose(pullback(np.eye(2))[0], 0)
    (True, True)
    """
    scores, scores_pullback = attention_scores(query, key, heads, mask)
    weights, softmax_pullback = softmax(scores)
    y, mix_pullback = mix(weights, value)

    def pullback(dy: Array) -> tuple[Array, Array, Array]:
        dweights, dvalue = mix_pullback(dy)
        return *scores_pullback(softmax_pullback(dweights)), dvalue

    return y, pullback
