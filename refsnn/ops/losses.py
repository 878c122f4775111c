"""Scalar losses, each a mean, each with its pullback; see `refsnn.ops.dense` for the conventions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import InputError
from .attention import softmax
from .dense import Array, check_indices

__all__ = ["cross_entropy", "log_softmax", "mse", "soft_cross_entropy"]


def _check_shapes(a: Array, b: Array, what: str) -> None:
    """Raise InputError where two arrays differ in shape: NumPy would repeat the smaller one."""
    if a.shape != b.shape:
        raise InputError(f"{what} have shapes {a.shape} and {b.shape}, but must have the same")


def _plain(number: Array | float) -> complex:
    """Return the same number as a Python one, which does not raise the precision of an array that it multiplies."""
    return np.asarray(number).item()


def mse(prediction: Array, target: Array) -> tuple[Array, Callable[[Array | float], tuple[Array, Array]]]:
    """Mean squared error over all entries: ``L = mean((p − t)²)``.

    Parameters
    ----------
    prediction, target : arrays of one shape

    Returns
    -------
    loss : scalar
    pullback : callable
        ``pullback(dL) -> (dp, dt)`` with ``dp = dL·2(p − t)/n = −dt``.

    Examples
    --------
    >>> loss, pullback = mse(np.array([1.0, 2.0]), np.array([0.0, 2.0]))
    >>> float(loss), pullback(1.0)[0]
    (0.5, array([1., 0.]))
    """
    _check_shapes(prediction, target, "prediction and target")
    difference = prediction - target

    def pullback(dloss: Array | float) -> tuple[Array, Array]:
        dprediction = difference * (2 / difference.size * _plain(dloss))
        return dprediction, -dprediction

    return (difference * difference).mean(), pullback


def log_softmax(x: Array) -> Array:
    """``x − log Σ exp x`` over the last axis, without overflow.

    Parameters
    ----------
    x : (..., C) array

    Returns
    -------
    y : (..., C) array

    Examples
    --------
    >>> log_softmax(np.array([1000.0, 1000.0])).round(4)
    array([-0.6931, -0.6931])
    """
    shifted = x - x.real.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Callable[[Array | float], Array]]:
    """Cross-entropy against class indices: ``L = −mean_b log softmax(z_b)[y_b]``.

    Parameters
    ----------
    logits : (B, C) array
    labels : (B,) integers in [0, C)

    Returns
    -------
    loss : scalar
    pullback : callable
        ``pullback(dL) -> dz = dL·(softmax(z) − onehot(y))/B``.

    Examples
    --------
    >>> loss, pullback = cross_entropy(np.zeros((1, 2)), np.array([1]))
    >>> round(float(loss), 4), pullback(1.0)
    (0.6931, array([[ 0.5, -0.5]]))
    """
    _check_shapes(logits[:, 0], labels, "rows of logits and labels")
    check_indices(labels, logits.shape[-1], "labels")
    rows = np.arange(len(labels))
    log_p = log_softmax(logits)

    def pullback(dloss: Array | float) -> Array:
        dlogits = np.exp(log_p)
        dlogits[rows, labels] -= 1
        return dlogits * (_plain(dloss) / len(labels))

    return -log_p[rows, labels].mean(), pullback


def soft_cross_entropy(
    student: Array, teacher: Array, temperature: float = 1.0
) -> tuple[Array, Callable[[Array | float], tuple[Array, Array]]]:
    """Distillation loss on logits: ``L = −mean_{b,c} softmax(z_T/τ)·log softmax(z_S/τ)``.

    The mean is over batch *and* classes and there is no factor τ², as in the authors' program.

    Parameters
    ----------
    student, teacher : (B, C) arrays
        Logits.
    temperature : float
        τ.

    Returns
    -------
    loss : scalar
    pullback : callable
        ``pullback(dL) -> (dz_S, dz_T)``: with ``p = softmax(z_T/τ)``, ``q = softmax(z_S/τ)``, n = B·C,
        ``dz_S = dL·(q − p)/(nτ)`` and ``dz_T = −dL·p·(log q − Σ p log q)/(nτ)``.

    Examples
    --------
    >>> z = np.array([[2.0, 0.0]])
    >>> bool(np.abs(soft_cross_entropy(z, z)[1](1.0)[0]).max() < 1e-16)
    True
    """
    _check_shapes(student, teacher, "student's and teacher's logits")
    p, softmax_pullback = softmax(teacher / temperature)
    log_q = log_softmax(student / temperature)

    def pullback(dloss: Array | float) -> tuple[Array, Array]:
        scale = _plain(dloss) / (p.size * temperature)
        return (np.exp(log_q) - p) * scale, softmax_pullback(-log_q * scale)

    return -(p * log_q).mean(), pullback
