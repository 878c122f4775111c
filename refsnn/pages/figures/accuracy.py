"""Accuracy against the number of time steps, and other lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..words import main_metric, metric_sign, metric_title, metric_value
from .style import COLOUR, figure_legend, new_figure, time_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Curve",
    "Panel",
    "accuracy_figure",
    "lines_figure",
]


def wilson_interval(fraction: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a fraction."""
    z2 = 1.96**2
    centre = (fraction + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 / (1 + z2 / count) * sqrt(fraction * (1 - fraction) / count + z2 / (4 * count**2))
    return min(centre - half, fraction), max(centre + half, fraction)


def accuracy_figure(results: Mapping[str, Any]) -> Figure:
    """Accuracy, or the task's own metric, of the spikes against T, beside the teacher's and the rate map's.

    Parameters
    ----------
    results : mapping
        As from `refsnn.evaluation.evaluate.evaluate_run`, ordered by T.

    Returns
    -------
    figure : Figure
    """
    times = [row["t"] for row in results["spikes"]]
    teacher, rate, spikes = main_metric(results)
    values, bars, metric = np.array(spikes), None, results["metric"]
    if metric == "accuracy":
        bars = 100 * np.abs(np.array([wilson_interval(v, results["examples"]) for v in values]).T - values)
    figure = new_figure(3.9)
    axes = figure.subplots()
    axes.axhline(100 * teacher, color=COLOUR["black"], lw=1.4, label=f"teacher, {metric_value(teacher, metric)}")
    label = f"student, rate map, {metric_value(rate, metric)}"
    axes.axhline(100 * rate, color=COLOUR["orange"], lw=2.2, ls=(0, (5, 3)), label=label)
    blue = COLOUR["blue"]
    axes.errorbar(times, 100 * values, bars, color=blue, marker="o", capsize=3, elinewidth=1, label="student, spikes")
    low, high = axes.get_ylim()
    if high - low < 10:
        low, high = (low + high) / 2 - 5, (low + high) / 2 + 5
    axes.set_ylim(max(low, 0) if bars is not None else low, min(high, 101.5))
    time_axis(axes, times)
    axes.set_ylabel(f"{metric_title(metric)} on the dev split ({metric_sign(metric)})")
    figure_legend(figure)
    return figure


class Curve(NamedTuple):
    """One line of `lines_figure`.

    Attributes
    ----------
    label : str
        Curves of one label look the same in every panel.
    x, y : sequences of float
        NaN leaves a gap.
    low, high : sequences of float, optional
        A range around `y`, shaded.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class Panel(NamedTuple):
    """One set of axes of `lines_figure`.

    Attributes
    ----------
    title, ylabel : str
    curves : sequence of Curve
    levels : mapping
        Label -> height of a horizontal line.
    """

    title: str
    ylabel: str
    curves: Sequence[Curve]
    levels: Mapping[str, float] = MappingProxyType({})


def lines_figure(panels: Sequence[Panel], xlabel: str, in_time: bool = True, columns: int | None = None) -> Figure:
    """Draw numbers that depend on one other, in panels that share it.

    Parameters
    ----------
    panels : sequence of Panel
    xlabel : str
    in_time : bool
        Whether x is a number of steps, on a logarithmic axis.
    columns : int, optional
        Panels side by side; all of them by default.

    Returns
    -------
    figure : Figure
    """
    curves = [curve for panel in panels for curve in panel.curves]
    names = dict.fromkeys(curve.label for curve in curves)
    colours = [COLOUR[name] for name in ("blue", "vermillion", "green", "purple", "orange", "sky", "grey")]
    looks = {
        name: {"color": colours[i % 7], "marker": "os^DvPX"[i % 7], "ls": ("-", "--", ":")[i // 7 % 3]}
        for i, name in enumerate(names)
    }
    levels = dict.fromkeys(name for panel in panels for name in panel.levels)
    dashes: dict[str, Any] = dict(zip(levels, ("-", (0, (5, 3)), (0, (1, 2)), "-."), strict=False))
    columns = min(columns or len(panels), len(panels))
    rows = ceil(len(panels) / columns)
    figure = new_figure((3.9 if rows == 1 else 3.1 * rows + 0.3) + 0.22 * (len(names) + len(levels) > 4))
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for empty in places[len(panels) :]:
        empty.remove()
    for axes, panel in zip(places, panels, strict=False):
        for name, height in panel.levels.items():
            axes.axhline(height, color=COLOUR["black"], lw=1.3, ls=dashes.get(name, ":"), label=name)
        for label, x, y, low, high in panel.curves:
            axes.plot(x, y, label=label, markersize=4, **looks[label])
            if low is not None and high is not None:
                axes.fill_between(x, low, high, color=looks[label]["color"], alpha=0.18, lw=0)
        if in_time:
            time_axis(axes, sorted({int(x) for curve in panel.curves for x in curve.x}))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(panel.ylabel)
        axes.set_title(panel.title)
    shown: dict[str, Any] = {}
    for axes in figure.axes:
        shown |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure_legend(figure, list(shown.values()))
    return figure
