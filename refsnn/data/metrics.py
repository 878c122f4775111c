"""GLUE's metrics: numbers that say how good predictions are, and how such numbers are written and put together.

Pure functions of predictions and truth, one-dimensional arrays of equal length. Where a metric is 0/0 they agree with
the usual programs: F1 and Matthews' correlation are 0, as in scikit-learn, and the other correlations NaN, as in SciPy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import InputError
from ..ops import Array
from .tasks import Task

__all__ = [
    "METRICS",
    "Spread",
    "accuracy",
    "agreement",
    "answer",
    "decide",
    "defined",
    "f1",
    "hundredfold",
    "majority",
    "matthews",
    "measure",
    "metric_name",
    "pearson",
    "spearman",
    "spread",
    "task_metrics",
]


def _pair(predicted: Array, truth: Array) -> tuple[Array, Array]:
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape or predicted.ndim != 1:
        raise InputError(
            f"predictions and truth have shapes {predicted.shape} and {truth.shape}, but must be lists of equal length"
        )
    if not len(truth):
        raise InputError("there are no predictions to measure; give at least one")
    return predicted, truth


def accuracy(predicted: Array, truth: Array) -> float:
    """Fraction of examples that are right.

    Parameters
    ----------
    predicted, truth : (n,) arrays
        Class indices.

    Returns
    -------
    accuracy : float

    Examples
    --------
    >>> accuracy([0, 1, 2, 1], [0, 1, 1, 1])
    0.75
    """
    predicted, truth = _pair(predicted, truth)
    return float((predicted == truth).mean())


def f1(predicted: Array, truth: Array) -> float:
    """Harmonic mean of precision and recall of class 1: ``2·TP / (2·TP + FP + FN)``.

    Parameters
    ----------
    predicted, truth : (n,) arrays
        Class indices.

    Returns
    -------
    f1 : float
        0 where class 1 is neither there nor predicted.

    Examples
    --------
    >>> f1([1, 1, 0, 0], [1, 0, 1, 0])
    0.5
    >>> f1([0, 0], [0, 0])
    0.0
    """
    predicted, truth = _pair(predicted, truth)
    shared = int(((predicted == 1) & (truth == 1)).sum())
    both = int((predicted == 1).sum() + (truth == 1).sum())  # 2·TP + FP + FN
    return 2 * shared / both if both else 0.0


def matthews(predicted: Array, truth: Array) -> float:
    """Matthews' correlation, of any number of classes (Gorodkin's R_K): that of the two one-hot codings.

    With C = ``Σ_k cov(p_k, t_k)`` over the classes' indicators, it is ``C(p, t) / √(C(p, p)·C(t, t))``.

    Parameters
    ----------
    predicted, truth : (n,) arrays
        Class indices.

    Returns
    -------
    correlation : float
        0 where either is all of one class.

    Examples
    --------
    >>> matthews([1, 1, 0, 0], [1, 1, 0, 0]), matthews([0, 0, 1, 1], [1, 1, 0, 0])
    (1.0, -1.0)
    >>> matthews([1, 1, 1], [1, 0, 1])
    0.0
    """
    predicted, truth = _pair(predicted, truth)
    classes = np.union1d(predicted, truth)
    p = (predicted[:, None] == classes).astype(float)  # (n, classes)
    t = (truth[:, None] == classes).astype(float)

    def covariance(a: Array, b: Array) -> float:  # times n²: whole numbers, exact
        return len(a) * (a * b).sum() - a.sum(axis=0) @ b.sum(axis=0)

    scale = np.sqrt(covariance(p, p) * covariance(t, t))
    return float(covariance(p, t) / scale) if scale else 0.0


def pearson(predicted: Array, truth: Array) -> float:
    """Pearson's correlation: the cosine of the angle between the deviations from the means.

    Parameters
    ----------
    predicted, truth : (n,) arrays
        Scores.

    Returns
    -------
    correlation : float
        NaN where it is undefined: a constant array, a single example, or a score that is not finite.

    Examples
    --------
    >>> round(pearson([1.0, 2.0, 4.0], [1.0, 2.0, 3.0]), 4)
    0.982
    >>> pearson([2.5, 2.5], [1.0, 3.0])
    nan
    """
    from scipy import stats  # here, because most tasks need no correlation and it takes half a second

    units = []
    for scores in _pair(predicted, truth):
        x = scores.astype(np.float64)
        if (x == x[0]).all() or not np.isfinite(x).all():  # rounding of the mean would make noise of a constant
            return float("nan")
        units.append(x / np.abs(x).max())  # so that no square overflows
    with warnings.catch_warnings(action="ignore", category=stats.NearConstantInputWarning):
        return float(stats.pearsonr(*units).statistic)


def spearman(predicted: Array, truth: Array) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal scores sharing the mean of theirs.

    Parameters
    ----------
    predicted, truth : (n,) arrays
        Scores.

    Returns
    -------
    correlation : float
        NaN where it is undefined: a constant array, a single example, or a NaN.

    Examples
    --------
    >>> spearman([1.0, 10.0, 100.0], [1.0, 2.0, 3.0])
    1.0
    >>> round(spearman([1.0, 1.0, 2.0], [1.0, 2.0, 3.0]), 4)
    0.866
    """
    from scipy import stats

    predicted, truth = _pair(predicted, truth)
    if np.isnan(predicted).any() or np.isnan(truth).any():
        return float("nan")
    return pearson(stats.rankdata(predicted), stats.rankdata(truth))


#: The metrics by their names in tasks and results.
METRICS = {function.__name__: function for function in (accuracy, f1, matthews, pearson, spearman)}


def measure(names: Sequence[str], predicted: Array, truth: Array) -> dict[str, float]:
    """Compute several metrics.

    Parameters
    ----------
    names : sequence of str
        Of `METRICS`.
    predicted, truth : (n,) arrays

    Returns
    -------
    values : dict

    Examples
    --------
    >>> measure(["accuracy", "f1"], [0, 1], [1, 1])
    {'accuracy': 0.5, 'f1': 0.6666666666666666}
    """
    return {name: METRICS[name](predicted, truth) for name in names}


def metric_name(name: str) -> str:
    """Spell a metric for people.

    Parameters
    ----------
    name : str

    Returns
    -------
    title : str

    Examples
    --------
    >>> [metric_name(name) for name in METRICS]
    ['accuracy', 'F1', 'Matthews', 'Pearson', 'Spearman']
    """
    return name if name == "accuracy" else name.capitalize()


def defined(value: float | None) -> float | None:
    """Turn a number into one that JSON knows: it has neither NaN nor infinity.

    Parameters
    ----------
    value : float or None

    Returns
    -------
    value : float or None
        None where it is undefined.

    Examples
    --------
    >>> [defined(value) for value in (0.5, float("nan"), float("inf"), None)]
    [0.5, None, None, None]
    """
    return None if value is None or not math.isfinite(value) else value


def hundredfold(value: float | None) -> str:
    """Write a metric for the terminal: in percent, a dash where it is undefined.

    Parameters
    ----------
    value : float or None

    Returns
    -------
    text : str

    Examples
    --------
    >>> [hundredfold(value) for value in (0.9266, -0.25, None)]
    ['92.7', '-25.0', '-']
    """
    return "-" if value is None else f"{100 * value:.1f}"


class Spread(NamedTuple):
    """Mean and range of a number over runs.

    Attributes
    ----------
    mean, low, high : float
        NaN where a run lacks the number.
    """

    mean: float
    low: float
    high: float


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and range.

    Parameters
    ----------
    values : sequence of float or None

    Returns
    -------
    spread : Spread

    Examples
    --------
    >>> spread([0.5, 0.75, 1.0])
    Spread(mean=0.75, low=0.5, high=1.0)
    >>> spread([0.5, None])
    Spread(mean=nan, low=nan, high=nan)
    """
    if any(value is None for value in values):
        return Spread(math.nan, math.nan, math.nan)
    numbers = [float(value) for value in values if value is not None]
    return Spread(math.fsum(numbers) / len(numbers), min(numbers), max(numbers))


def decide(logits: Array) -> Array:
    """Turn class scores into predictions: the class with the largest, or, where there is one only, that score.

    Parameters
    ----------
    logits : (n, classes) array

    Returns
    -------
    predictions : (n,) array

    Raises
    ------
    InputError
        A score is NaN or infinite.

    Examples
    --------
    >>> decide(np.array([[1.0, 2.0], [3.0, 0.0]])), decide(np.array([[2.5], [4.0]]))
    (array([1, 0]), array([2.5, 4. ]))
    """
    logits = _finite(logits)
    return logits[:, 0] if logits.shape[1] == 1 else logits.argmax(axis=-1)


def _finite(logits: Array) -> Array:
    """Refuse class scores that say nothing: of NaN, the largest is in no class."""
    if not (sound := np.isfinite(logits)).all():
        raise InputError(
            f"{(~sound).any(axis=-1).sum()} of {len(logits)} examples have class scores that are NaN or infinite, so "
            "they have no answer; the model's parameters, or its precision, are not fit to compute with"
        )
    return logits


def answer(logits: Array) -> Array:
    """Turn class scores into what is shown of them: probabilities, their softmax, or, where there is one, that score.

    Parameters
    ----------
    logits : (..., classes) array

    Returns
    -------
    answer : (..., classes) array

    Examples
    --------
    >>> answer(np.log([[1.0, 3.0], [2.0, 2.0]])).round(6), answer(np.array([[2.5], [4.0]]))
    (array([[0.25, 0.75],
           [0.5 , 0.5 ]]), array([[2.5],
           [4. ]]))
    """
    logits = _finite(logits)
    return logits if logits.shape[-1] == 1 else ops.softmax(logits)[0]


def task_metrics(task: Task, logits: Array, labels: Array) -> dict[str, float | None]:
    """Compute a task's metrics from class scores.

    Parameters
    ----------
    task : Task
    logits : (n, classes) array
    labels : (n,) array
        The true classes or scores.

    Returns
    -------
    metrics : dict
        Name -> value, in the task's order; None where undefined, as JSON has no NaN.

    Examples
    --------
    >>> from refsnn.data.tasks import TASKS
    >>> task_metrics(TASKS["mrpc"], np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 0]))
    {'accuracy': 0.5, 'f1': 0.6666666666666666}
    >>> task_metrics(TASKS["stsb"], np.array([[2.5], [2.5]]), np.array([1.0, 3.0]))
    {'pearson': None, 'spearman': None}
    """
    return {metric: defined(value) for metric, value in measure(task.metrics, decide(logits), labels).items()}


def majority(task: Task, labels: Array) -> dict[str, Any] | None:
    """Score the answer that needs no model: always the most frequent class.

    Parameters
    ----------
    task : Task
    labels : (n,) array

    Returns
    -------
    majority : dict or None
        ``"label"``, its ``"share"`` and the ``"metrics"``; None for a regression.

    Examples
    --------
    >>> from refsnn.data.tasks import TASKS
    >>> majority(TASKS["sst2"], np.array([1, 0, 1, 1]))
    {'label': 'positive', 'share': 0.75, 'metrics': {'accuracy': 0.75}}
    """
    if not task.labels:
        return None
    counts = np.bincount(labels, minlength=len(task.labels))
    label = int(counts.argmax())
    scores = np.eye(len(task.labels))[np.full(len(labels), label)]
    share = float(counts[label] / len(labels))
    return {"label": task.classes[label], "share": share, "metrics": task_metrics(task, scores, labels)}


def agreement(logits: Array, others: Array) -> float | None:
    """How far two predictions of the same examples agree: fraction of equal classes, or correlation of scores.

    Parameters
    ----------
    logits, others : (n, classes) arrays

    Returns
    -------
    agreement : float or None
        Pearson's r where there is one class; None where it is undefined.

    Examples
    --------
    >>> agreement(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[5.0, 6.0], [1.0, 2.0]]))
    0.5
    """
    compare = pearson if logits.shape[1] == 1 else accuracy
    return defined(compare(decide(logits), decide(others)))
