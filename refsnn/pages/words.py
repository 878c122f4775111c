"""How numbers, metrics and populations are called and written, on pages and in tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.metrics import metric_name
from ..model.network import encoder_of, kind_of
from .figures.style import COLOUR

__all__ = [
    "KINDS",
    "is_regression",
    "last_row",
    "main_metric",
    "metric_sign",
    "metric_title",
    "metric_value",
    "percent",
    "population_title",
]

#: Kinds of population, in firing order: label, colour, line style.
KINDS: dict[str, tuple[str, str, Any]] = {
    "embeddings": ("embeddings", COLOUR["black"], "-"),
    "key": ("key", COLOUR["sky"], (0, (5, 1.5))),
    "value": ("value", COLOUR["blue"], (0, (5, 1.5))),
    "context": ("context", COLOUR["vermillion"], "-"),
    "attention_output": ("attention output", COLOUR["orange"], (0, (5, 1.5, 1, 1.5))),
    "intermediate": ("intermediate", COLOUR["green"], "-"),
    "output": ("output", COLOUR["purple"], "-"),
}


def population_title(population: str) -> str:
    """Name of a population for readers.

    Parameters
    ----------
    population : str

    Returns
    -------
    title : str
    """
    encoder = encoder_of(population)
    return KINDS[kind_of(population)][0] + ("" if encoder is None else f" of encoder {encoder + 1}")


def last_row(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results of the spikes after the largest T.

    Parameters
    ----------
    results : mapping
        Of `refsnn.evaluation.evaluate.evaluate_run`.

    Returns
    -------
    row : dict
    """
    return results["spikes"][-1]


def is_regression(results: Mapping[str, Any]) -> bool:
    """Whether the task has scores instead of classes.

    Parameters
    ----------
    results : mapping
        Of `refsnn.evaluation.evaluate.evaluate_run`.

    Returns
    -------
    regression : bool
    """
    return results["teacher_accuracy"] is None


def main_metric(results: Mapping[str, Any]) -> tuple[float, float, list[float]]:
    """Values of the task's first metric: the teacher's, the rate map's, and the spikes' after each T.

    Parameters
    ----------
    results : mapping
        Of `refsnn.evaluation.evaluate.evaluate_run`.

    Returns
    -------
    teacher, rate : float
    spikes : list of float
    """
    measured = [*(results["metrics"][who] for who in ("teacher", "rate")), *(r["metrics"] for r in results["spikes"])]
    values = [metrics[results["metric"]] for metrics in measured]
    teacher, rate, *spikes = (np.nan if value is None else value for value in values)
    return teacher, rate, spikes


def percent(fraction: float | None) -> str:
    """Write a fraction as a percentage, a dash where undefined.

    Parameters
    ----------
    fraction : float or None

    Returns
    -------
    text : str
    """
    return "–" if fraction is None or np.isnan(fraction) else f"{100 * fraction:.1f}"


def metric_sign(metric: str) -> str:
    """Show how a metric is written: fractions as percentages, correlations a hundredfold.

    Parameters
    ----------
    metric : str

    Returns
    -------
    sign : str
    """
    return "%" if metric in ("accuracy", "f1") else "×100"


def metric_title(metric: str) -> str:
    """Name of a metric for readers.

    Parameters
    ----------
    metric : str

    Returns
    -------
    title : str
    """
    return metric_name(metric) if metric_sign(metric) == "%" else f"{metric_name(metric)} correlation"


def metric_value(fraction: float, metric: str) -> str:
    """Write a value of a metric with its sign.

    Parameters
    ----------
    fraction : float
    metric : str

    Returns
    -------
    text : str
    """
    return percent(fraction) + "\u202f%" * (metric_sign(metric) == "%")
