"""How numbers, metrics and populations are called and written, on pages and in tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..data.metrics import metric_name
from ..model.network import encoder_of, kind_of
from .figures.style import COLOUR

__all__ = [
    "KINDS",
    "best_trade",
    "duration",
    "grouped",
    "is_regression",
    "last_row",
    "listed",
    "main_metric",
    "metric_sign",
    "metric_title",
    "metric_value",
    "percent",
    "plural",
    "population_title",
    "times",
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
    number, where = encoder_of(population), population.partition(".")[0]  # "encoder", or "block" of a GPT
    return kind_of(population).replace("_", " ") + ("" if number is None else f" of {where} {number + 1}")


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


def best_trade(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Results of the spikes after the T with the best metric among those that save energy, by the paper's count.

    Parameters
    ----------
    results : mapping
        Of `refsnn.evaluation.evaluate.evaluate_run`.

    Returns
    -------
    row : dict or None
        Of several that are equally good the cheapest; None where no T saves energy, or only one without any spike.

    Examples
    --------
    >>> rows = [(4, 0.5, 8.2), (16, 0.9, 1.6), (32, 0.95, 0.8)]
    >>> rows = [{"t": t, "metrics": {"accuracy": a}, "energy_gain": gain} for t, a, gain in rows]
    >>> best_trade({"metric": "accuracy", "spikes": rows})["t"]
    16
    """
    metric = results["metric"]
    rows = results["spikes"]
    saving = [row for row in rows if (row["energy_gain"] or 0) > 1 and row["metrics"][metric] is not None]
    return max(saving, key=lambda row: (row["metrics"][metric], row["energy_gain"]), default=None)


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


def times(gain: float | None) -> str:
    """Write an energy gain, a dash where it is undefined.

    Parameters
    ----------
    gain : float or None

    Returns
    -------
    text : str
    """
    return "–" if gain is None else f"{gain:.2f}×"


def plural(number: int, word: str) -> str:
    """Write a number of things.

    Parameters
    ----------
    number : int
    word : str

    Returns
    -------
    text : str

    Examples
    --------
    >>> plural(1, "encoder"), plural(2, "encoder")
    ('1 encoder', '2 encoders')
    """
    return f"{number} {word}{'s' * (number != 1)}"


def grouped(number: float) -> str:
    """Write a whole number with its digits in groups of three.

    Parameters
    ----------
    number : float

    Returns
    -------
    text : str
    """
    return f"{number:,.0f}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Write a time.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    text : str

    Examples
    --------
    >>> duration(3.14), duration(300), duration(9000)
    ('3.1 s', '5 min', '2 h 30 min')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def listed(names: Sequence[str]) -> str:
    """Write a list of words.

    Parameters
    ----------
    names : sequence of str

    Returns
    -------
    text : str

    Examples
    --------
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])
