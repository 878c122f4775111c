"""Anytime inference: each sentence is simulated only until its prediction has settled.

A spiking student can be asked at any step. Here it is asked at *check points*, the times of a grid, and a *confidence*
says how settled each answer is; a sentence stops at the first check point where its confidence reaches a level θ, and
at the last one otherwise. Sweeping θ trades the mean number of steps against accuracy.

Everything is a function of class scores over time, ``logits`` of shape (times, n, classes), which one simulation gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.metrics import METRICS, decide
from ..ops import Array

__all__ = ["Point", "confidences", "curve", "fixed", "margin", "steadiness", "stops", "streak"]


def margin(logits: Array, times: Sequence[int]) -> Array:
    """Confidence by the lead of the best class: ``t·(largest score − second largest)``.

    One more step moves rates counted over t of them by at most 1/t, so an early lead has to be larger than a late one:
    it counts as settled where it is at least ``θ/t``.

    Parameters
    ----------
    logits : (times, n, classes) array
    times : sequence of int

    Returns
    -------
    confidence : (times, n) array

    Examples
    --------
    >>> margin(np.array([[[3.0, 1.0]], [[3.0, 2.5]]]), [1, 16])
    array([[2.],
           [8.]])
    """
    second, first = np.moveaxis(np.partition(logits.astype(np.float64), -2, axis=-1)[..., -2:], -1, 0)
    return np.asarray(times)[:, None] * (first - second)


def streak(logits: Array) -> Array:
    """Confidence by persistence: how many check points in a row have given this answer, this one included.

    Parameters
    ----------
    logits : (times, n, classes) array

    Returns
    -------
    confidence : (times, n) integer array

    Examples
    --------
    >>> answers = np.array([0, 1, 1, 1, 0])
    >>> streak(np.eye(2)[answers][:, None])[:, 0]
    array([1, 1, 2, 3, 1])
    """
    answers = logits.argmax(axis=-1)  # (times, n)
    position = np.arange(len(answers))[:, None]
    changed = np.ones(answers.shape, bool)
    changed[1:] = answers[1:] != answers[:-1]
    return position - np.maximum.accumulate(np.where(changed, position, 0)) + 1


def steadiness(logits: Array) -> Array:
    """Confidence of a score: minus its change since the check point before, and −∞ at the first.

    Parameters
    ----------
    logits : (times, n, 1) array

    Returns
    -------
    confidence : (times, n) array

    Examples
    --------
    >>> steadiness(np.array([[[1.0]], [[3.0]], [[2.5]]]))[:, 0]
    array([-inf, -2. , -0.5])
    """
    change = np.abs(np.diff(logits[..., 0].astype(np.float64), axis=0))
    return np.concatenate([np.full((1, logits.shape[1]), -np.inf), -change])


def confidences(logits: Array, times: Sequence[int]) -> dict[str, Array]:
    """All confidences that a task has: margin and streak of classes, steadiness of scores.

    Parameters
    ----------
    logits : (times, n, classes) array
    times : sequence of int

    Returns
    -------
    confidences : dict
        Name of the rule -> (times, n) array.
    """
    if logits.shape[-1] == 1:
        return {"steadiness": steadiness(logits)}
    return {"margin": margin(logits, times), "streak": streak(logits)}


def stops(confidence: Array, level: float) -> Array:
    """Index of the check point at which each sentence stops.

    Parameters
    ----------
    confidence : (times, n) array
    level : float
        θ.

    Returns
    -------
    stops : (n,) integer array

    Examples
    --------
    >>> stops(np.array([[1.0, 0.0, 0.0], [3.0, 2.0, 0.0], [0.0, 9.0, 1.0]]), 2.0)
    array([1, 1, 2])
    """
    settled = confidence >= level
    settled[-1] = True
    return settled.argmax(axis=0)


@dataclass(frozen=True)
class Point:
    """Early stopping at one level.

    Attributes
    ----------
    level : float
        θ.
    mean_t : float
        Steps, averaged over the sentences.
    value : float
        The metric of the answers given when each sentence stopped.
    fixed : float
        The metric where every sentence is given the same number of steps, at the same mean.
    """

    level: float
    mean_t: float
    value: float
    fixed: float


def fixed(logits: Array, truth: Array, metric: str) -> Array:
    """Metric of the answers at each check point.

    Parameters
    ----------
    logits : (times, n, classes) array
    truth : (n,) array
    metric : str
        Of `refsnn.data.metrics.METRICS`.

    Returns
    -------
    values : (times,) array
    """
    return np.array([METRICS[metric](decide(z), truth) for z in logits])


def curve(
    logits: Array, times: Sequence[int], truth: Array, metric: str, confidence: Array, points: int = 32
) -> list[Point]:
    """Mean number of steps against the metric, over levels from the first check point to the last.

    The levels are evenly spaced quantiles of the confidence, so that they suit any task; one level too high for every
    sentence ends the curve at the largest T. The metric at a fixed T is interpolated linearly between check points.
    Accuracy between two of them can be had at that cost: by giving a random part of the sentences the larger T.

    Parameters
    ----------
    logits : (times, n, classes) array
    times : sequence of int
    truth : (n,) array
    metric : str
        Of `refsnn.data.metrics.METRICS`.
    confidence : (times, n) array
        Of `confidences`.
    points : int
        Quantiles.

    Returns
    -------
    points : list of Point
        By rising level, and so by rising mean T; levels at which every sentence stops as before are left out.
    """
    reached = np.sort(np.append(confidence[np.isfinite(confidence)], 0.0))
    levels = np.unique(reached[np.linspace(0, len(reached) - 1, points).astype(int)])
    values, steps, everyone = fixed(logits, truth, metric), np.asarray(times), np.arange(len(truth))
    found: dict[float, Point] = {}
    for level in [*levels, reached[-1] + 1]:
        at = stops(confidence, level)
        mean = float(steps[at].mean())
        if mean not in found:
            value = METRICS[metric](decide(logits[at, everyone]), truth)
            found[mean] = Point(float(level), mean, float(value), float(np.interp(mean, steps, values)))
    return list(found.values())
