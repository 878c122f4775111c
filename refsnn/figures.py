"""Figures of a run, each a function of numbers, and the numbers of one sentence's simulation.

They are drawn in one style, whatever the user's own settings, with a palette that readers with any kind of colour
vision can tell apart; the same numbers give the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import ceil, sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .data.metrics import answer, metric_name
from .data.tasks import LARGEST_SCORE
from .distillation.student import logits
from .files import require
from .model.batch import Batch
from .model.parameters import Params
from .model.student import StudentConfig
from .ops import Array
from .readings.equilibrium import equilibrium
from .readings.simulate import Rule, spike_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOUR",
    "KINDS",
    "STAGES",
    "STYLE",
    "WEIGHT_SCALE",
    "Curve",
    "Panel",
    "Trace",
    "accuracy_figure",
    "attention_figure",
    "convergence_figure",
    "energy_figure",
    "figure_legend",
    "figure_style",
    "follow",
    "is_regression",
    "kind_of",
    "last_row",
    "lines_figure",
    "log_axis",
    "main_metric",
    "metric_sign",
    "metric_title",
    "metric_value",
    "new_figure",
    "percent",
    "population_title",
    "probability_figure",
    "raster_figure",
    "spent",
    "time_axis",
    "time_cursor",
    "training_figure",
]

#: Okabe & Ito's palette, which readers with any kind of colour vision can tell apart; its yellow is too pale for lines.
COLOUR = {
    "black": "#000000",
    "grey": "#767676",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}

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

#: Titles of the stages, and of the losses by their names in the log, with a colour each.
STAGES = {
    "teacher": "Teacher: fine-tuning",
    "general": "Student: general distillation",
    "internal": "Student: internal distillation",
    "prediction": "Student: prediction",
}
LOSSES = {
    "loss": ("cross-entropy", COLOUR["black"]),
    "prediction": ("cross-entropy", COLOUR["black"]),
    "hidden": ("hidden states", COLOUR["blue"]),
    "attention": ("attention scores", COLOUR["vermillion"]),
}

#: Where energy goes: label, the count's terms, colour. Terms of projections of one's own come last.
SPENT: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("linear maps", ("linear", "query", "residual", "activations"), COLOUR["blue"]),
    ("attention products", ("attention",), COLOUR["vermillion"]),
    ("softmax", ("softmax",), COLOUR["orange"]),
    ("LayerNorm", ("normalisation",), COLOUR["green"]),
    ("GELU", ("gelu",), COLOUR["purple"]),
    ("membranes", ("membrane",), COLOUR["black"]),
    ("running means", ("running means",), COLOUR["grey"]),
    ("embeddings, read-out", ("embeddings", "read-out"), COLOUR["sky"]),
    ("other", (), "#bdbdb5"),
)

#: How every figure looks. Text stays text in the SVG; Verdana is as wide as DejaVu Sans, where that is not installed.
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 10,
    "text.parse_math": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titley": 1.0,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "text.color": "#222222",
    "axes.labelcolor": "#222222",
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.wspace": 0.04,
    "svg.fonttype": "none",
    "svg.hashsalt": "refsnn",
}
PAPER = "#fdfdfb"  # the page's background
WIDTH = 9.0  # inches; the page scales figures to its own width
PIXELS_PER_INCH = 200  # of what is rasterised

#: What the raster shows at most; the neurons are per token.
RASTER_NEURONS, RASTER_TOKENS, RASTER_STEPS = 12, 40, 64


class Trace(NamedTuple):
    """What one sentence's simulation shows; time runs along axis 0.

    Attributes
    ----------
    distance : dict
        Population -> (T,) array, distance of the ASR after t steps from the rate map, mean over tokens and neurons.
    probabilities : (T, classes) array
        Softmax of the class scores from the rates after t steps; of a regression the score itself.
    limit : (classes,) array
        The same from the rate map.
    spikes : dict
        Population -> (steps, tokens, neurons) array of 0 and 1: the first steps and tokens of neurons at evenly spaced
        ranks of activity, the busiest first.
    """

    distance: dict[str, Array]
    probabilities: Array
    limit: Array
    spikes: dict[str, Array]


def follow(
    config: StudentConfig, params: Params, ids: Sequence[int], kinds: Sequence[int], t_conv: int, rule: Rule
) -> Trace:
    """Simulate one sentence and record how its rates settle.

    Parameters
    ----------
    config : StudentConfig
    params : dict
    ids, kinds : sequences of int
        Token ids and token types.
    t_conv : int
    rule : {"inst", "running"}

    Returns
    -------
    trace : Trace
    """
    network = config.network
    batch = Batch(np.array([ids]), np.array([kinds]), np.ones((1, len(ids)), int))
    rates = equilibrium(network, params, batch).rates
    last = network.readouts[-1]
    shown = ("embeddings", network.contexts[-1], last)
    distance: dict[str, list[float]] = {population.name: [] for population in network.populations}
    cls: list[Array] = []
    raster: dict[str, list[Array]] = {name: [] for name in shown}
    for t, spikes, asr in spike_steps(network, params, batch, t_conv, rule):
        for name, rate in asr.items():
            distance[name].append(np.abs(rate - rates[name]).mean())
        cls.append(asr[last][0, :1])  # (1, D): [CLS] is all that the classifier reads
        if t <= RASTER_STEPS:
            for name in shown:
                raster[name].append(spikes[name][0, :RASTER_TOKENS].astype(bool))
    return Trace(
        {name: np.array(values) for name, values in distance.items()},
        answer(logits(params, np.array(cls))[0]),
        answer(logits(params, rates[last])[0])[0],
        {name: _sample(np.array(steps)) for name, steps in raster.items()},
    )


def _sample(spikes: Array) -> Array:
    """Neurons at evenly spaced ranks of activity, the busiest first."""
    ranked = np.argsort(-spikes.sum(axis=(0, 1)), kind="stable")
    places = np.linspace(0, len(ranked) - 1, min(RASTER_NEURONS, len(ranked))).astype(int)
    return spikes[..., ranked[places]]


def kind_of(population: str) -> str:
    """Kind of a population, a key of `KINDS`.

    Parameters
    ----------
    population : str

    Returns
    -------
    kind : str
    """
    return population.rpartition(".")[2]


def population_title(population: str) -> str:
    """Name of a population for readers.

    Parameters
    ----------
    population : str

    Returns
    -------
    title : str
    """
    parts = population.split(".")
    return KINDS[parts[-1]][0] + (f" of encoder {int(parts[1]) + 1}" if len(parts) > 1 else "")


# ---------------------------------------------------------------------------------------------------------------------
# What results hold, and how a metric is written


def last_row(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results of the spikes after the largest T.

    Parameters
    ----------
    results : mapping
        Of `refsnn.evaluate.evaluate_run`.

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
        Of `refsnn.evaluate.evaluate_run`.

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
        Of `refsnn.evaluate.evaluate_run`.

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


# ---------------------------------------------------------------------------------------------------------------------
# Figures: each a function of numbers


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw with this module's style alone, whatever the user's own settings, and leave those as they were.

    Yields
    ------
    None
    """
    matplotlib = require("matplotlib")
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's browser has other fonts
        yield


def new_figure(height: float) -> Figure:
    """Make a figure of the page's width.

    Parameters
    ----------
    height : float
        In inches.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    return require("matplotlib.figure").Figure((WIDTH, height), layout="constrained")


def figure_legend(figure: Figure, handles: Sequence[Any] | None = None, columns: int = 4) -> None:
    """Put the legend above the axes, where it hides nothing.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    handles : sequence, optional
        What it shows; by default all that the first axes have labels for.
    columns : int
    """
    if handles is None:
        handles = figure.axes[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, borderaxespad=0.2, columnspacing=1.8)


def _number(x: float, _: Any = None) -> str:
    """Write a tick of a logarithmic axis without mathematics' typesetting: 0.01, 250, 10⁻⁵."""
    if x == 0 or 1e-4 < abs(x) < 1e5:
        return f"{x:g}"
    digits, _, exponent = f"{x:.0e}".partition("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digits == "1" else f"{digits}·{power}"


def log_axis(axis: Any, low: float, high: float) -> None:
    """Label a logarithmic axis at powers of ten, and at 2 and 5 times them where there are few of those.

    Parameters
    ----------
    axis : matplotlib.axis.Axis
    low, high : float
        Its ends.
    """
    ticker = require("matplotlib.ticker")
    few = high < 300 * low
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=12))
    axis.set_major_formatter(ticker.FuncFormatter(_number))
    axis.set_minor_locator(ticker.NullLocator())


def time_axis(axes: Axes, times: Sequence[int]) -> None:
    """Time steps on a base-2 logarithmic axis, labelled at the evaluated T or, where those crowd, at powers of two.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    times : sequence of int
    """
    ticker = require("matplotlib.ticker")
    low, high = min(times), max(times)
    crowded = any(b / a < 1.4 for a, b in pairwise(times)) or len(times) > 10
    axes.set_xscale("log", base=2)
    ticks = [2**i for i in range(int(np.log2(low)), ceil(np.log2(high)) + 1)] if crowded else list(times)
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(_number))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    margin = max(1.15, (high / low) ** 0.05)
    axes.set_xlim(low / margin, high * margin)
    axes.set_xlabel("time steps T")


def _smooth(values: Array, width: int) -> Array:
    """Centred running mean, over fewer values at the ends."""
    kernel = np.ones(width)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def training_figure(log: Mapping[str, Sequence[Mapping[str, float]]], soft: bool, regression: bool = False) -> Figure:
    """Losses of every stage against the training step.

    Parameters
    ----------
    log : mapping
        As from `read_log`; not empty.
    soft : bool
        Whether the prediction stage learned soft labels: that loss is a mean over the classes, too.
    regression : bool
        Whether the labels are scores, and their loss the mean squared error.

    Returns
    -------
    figure : Figure
    """
    lines = require("matplotlib.lines")
    names = [name for name in STAGES if name in log] + [name for name in log if name not in STAGES]
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    rows = ceil(len(names) / columns)
    figure = new_figure(2.8 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    legend = {}
    for name, axes in zip(names, grid, strict=False):  # names first: what is left of the grid is removed
        steps = np.array([line["step"] for line in log[name]])
        keys = [key for key in dict.fromkeys(key for line in log[name] for key in line) if key not in ("step", "lr")]
        losses = {key: np.array([line.get(key, np.nan) for line in log[name]]) for key in keys}
        every = np.concatenate([np.ones(0), *losses.values()])
        every = every[every > 0]
        logarithmic = bool(len(every)) and every.max() > 5 * every.min()
        for key, values in losses.items():
            label, colour = LOSSES.get(key, (key, COLOUR["green"]))
            label = "score" if regression and label == "cross-entropy" else label
            legend[label] = colour
            width = len(values) // 25
            if width < 2:
                axes.plot(steps, values, color=colour, marker="o" if len(values) < 3 else None)
            else:
                positive = np.where(values > 0, values, np.nan)
                smooth = np.exp(_smooth(np.log(positive), width)) if logarithmic else _smooth(values, width)
                axes.plot(steps, values, color=colour, lw=0.8, alpha=0.5)
                axes.plot(steps, smooth, color=colour)
        if logarithmic:
            axes.set_yscale("log")
            log_axis(axes.yaxis, every.min(), every.max())
        elif len(every):
            axes.set_ylim(0, every.max() * 1.15)
        entropy = "nats per class" if soft and name == "prediction" else "nats"
        axes.set_title(STAGES.get(name, name))
        axes.set_xlim(0, steps.max() * 1.02)
        axes.set_xlabel("training step")
        axes.set_ylabel(f"loss ({'mean squared error' if regression or 'hidden' in losses else entropy})")
    for axes in list(grid):
        axes.remove()
    figure_legend(figure, [lines.Line2D([], [], color=colour, label=label) for label, colour in legend.items()])
    return figure


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
        As from `refsnn.evaluate.evaluate_run`, ordered by T.

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


def convergence_figure(trace: Trace) -> Figure:
    """Distance of the spiking rates from the rate map against T, a panel per encoder.

    Parameters
    ----------
    trace : Trace

    Returns
    -------
    figure : Figure
    """
    lines = require("matplotlib.lines")
    encoders = 1 + max((int(name.split(".")[1]) for name in trace.distance if "." in name), default=0)
    columns = encoders if encoders <= 3 else 2 if encoders == 4 else 3 if encoders <= 6 else 4
    rows = ceil(encoders / columns)
    steps = len(trace.distance["embeddings"])
    shown = np.unique(np.geomspace(1, steps, 60).round().astype(int))
    figure = new_figure((3.4 if columns < 4 else 2.6) * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    smallest = 1.0 / steps
    for encoder, axes in zip(range(encoders), grid, strict=False):
        axes.plot(shown, 1.0 / shown, color=COLOUR["grey"], lw=1.2, ls=":")
        for name, values in trace.distance.items():
            if "." in name and int(name.split(".")[1]) != encoder:
                continue
            _, colour, style = KINDS[kind_of(name)]
            seen = np.where(values > 0, values, np.nan)[shown - 1]
            smallest = min(smallest, np.nanmin(seen, initial=1.0))
            axes.plot(shown, seen, color=colour, ls=style, marker="o" if steps < 3 else None)
        axes.set_title(f"encoder {encoder + 1}")
        axes.set_yscale("log")
        time_axis(axes, [1, steps] if steps > 1 else [1])
        powers = [2**i for i in range(0, int(np.log2(steps)) + 1, 1 if columns < 3 else 2)]
        axes.xaxis.set_major_locator(require("matplotlib.ticker").FixedLocator(powers))
        if encoder + columns < encoders:  # another panel below
            axes.set_xlabel("")
        else:
            axes.tick_params(labelbottom=True)
    figure.axes[0].set_ylim(smallest / 1.5, 1.3)
    log_axis(figure.axes[0].yaxis, smallest, 1.0)
    for axes in figure.axes[::columns]:
        axes.set_ylabel("mean |ASR − rate map|\n(spikes per step)")
    for axes in list(grid):
        axes.remove()
    handles = [lines.Line2D([], [], color=c, ls=style, label=label) for label, c, style in KINDS.values()]
    handles.append(lines.Line2D([], [], color=COLOUR["grey"], ls=":", lw=1.2, label="1/T"))
    figure_legend(figure, handles)
    return figure


def raster_figure(trace: Trace, tokens: Sequence[str]) -> Figure:
    """Spikes of a sample of neurons, grouped by token, in three populations.

    Parameters
    ----------
    trace : Trace
    tokens : sequence of str
        One per token of the sentence.

    Returns
    -------
    figure : Figure
    """
    steps, count, _ = next(iter(trace.spikes.values())).shape
    figure = new_figure(min(10.5, max(3.2, 0.3 * count + 0.9)))
    grid = figure.subplots(1, len(trace.spikes), sharey=True)
    for axes, (name, spikes) in zip(grid, trace.spikes.items(), strict=True):
        neurons = spikes.shape[-1]
        t, token, neuron = np.nonzero(spikes)
        y = token + 0.1 + 0.8 * (neuron + 0.5) / neurons
        half = 0.3 / neurons
        width = min(2.2, max(0.7, 110 / steps))
        axes.vlines(t + 1, y - half, y + half, color=KINDS[kind_of(name)][1], lw=width, rasterized=True)
        if not len(t):
            axes.text(0.5, 0.5, "no spikes", transform=axes.transAxes, ha="center", va="center", color=COLOUR["grey"])
        for i in range(0, count, 2):
            axes.axhspan(i, i + 1, color="#f3f3ef", lw=0, zorder=0)
        axes.set_title(population_title(name))
        axes.set_xlim(0, steps + 1)
        axes.set_xlabel("time step")
        axes.xaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(5, integer=True))
        axes.grid(False)
        axes.tick_params(axis="y", length=0)
    labels = [token if len(token) <= 14 else token[:13] + "…" for token in tokens[:count]]
    grid[0].set_yticks(np.arange(count) + 0.5, labels, fontsize=9 if count <= 25 else 7.5)
    grid[0].set_ylim(count, 0)
    grid[0].set_ylabel("token")
    return figure


def probability_figure(
    trace: Trace, classes: Sequence[str], label: int | None, times: Sequence[int], score: float | None = None
) -> Figure:
    """Class probabilities, or the score, of the example as its rates settle.

    Parameters
    ----------
    trace : Trace
    classes : sequence of str
    label : int or None
        Index of the true class.
    times : sequence of int
        The evaluated T, marked.
    score : float, optional
        True score of a regression, whose only class is the score.

    Returns
    -------
    figure : Figure
    """
    colours = [COLOUR[name] for name in ("vermillion", "blue", "green", "purple", "orange", "sky")]
    figure = new_figure(3.7)
    axes = figure.subplots()
    t = np.arange(1, len(trace.probabilities) + 1)
    for i, (name, values, limit) in enumerate(zip(classes, trace.probabilities.T, trace.limit, strict=True)):
        colour = colours[i % len(colours)]
        marker = "o" if len(t) < 3 else None
        axes.plot(t, values, color=colour, marker=marker, label=f"{name} (true)" if i == label else name)
        axes.axhline(limit, color=colour, ls=(0, (5, 3)), lw=1.2)
    axes.plot([], [], color=COLOUR["grey"], ls=(0, (5, 3)), lw=1.2, label="rate map")
    low = min(0.0, trace.probabilities.min())
    axes.plot(times, np.full(len(times), low), ls="", marker="^", color="#444444", clip_on=False, label="evaluated T")
    axes.set_ylim(low, 1 if score is None else 1.05 * max(LARGEST_SCORE, trace.probabilities.max()))
    if score is not None:
        axes.axhline(score, color=COLOUR["black"], ls=":", lw=1.4, label="true score")
    time_axis(axes, [2**i for i in range(int(np.log2(len(t))) + 1)])
    axes.set_xlim(0.9, len(t) * 1.1)
    axes.set_xlabel("time step t")
    axes.set_ylabel("class probability" if score is None else "score")
    figure_legend(figure, columns=5)
    return figure


def spent(picojoules: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Add up the energy of a full count by what it is spent on.

    Parameters
    ----------
    picojoules : mapping
        Kind of population -> term -> energy.

    Returns
    -------
    energy : dict
        Label -> energy; what costs nothing is not there.
    """
    labels = {term: label for label, terms, _ in SPENT for term in terms}
    totals = {label: 0.0 for label, _, _ in SPENT}
    for terms in picojoules.values():
        for term, energy in terms.items():
            totals[labels.get(term, "other")] += energy
    return {label: total for label, total in totals.items() if total}


def energy_figure(results: Mapping[str, Any]) -> Figure:
    """Draw the firing rate of every population at the largest T, the energy gain against T, and where energy goes.

    Parameters
    ----------
    results : mapping
        As from `refsnn.evaluate.evaluate_run`, ordered by T. Without a full count the paper's is drawn alone.

    Returns
    -------
    figure : Figure
    """
    patches = require("matplotlib.patches")
    full = "full" in last_row(results)
    figure = new_figure(6.6 if full else 4.3)
    grid = figure.add_gridspec(1 + full, 2, width_ratios=(3, 2), height_ratios=(7, 2)[: 1 + full])
    left, right = (figure.add_subplot(grid[0, i]) for i in range(2))
    rates = last_row(results)["firing_rates"]
    place, places = -1.0, []
    centres: dict[str, list[float]] = {}
    for name in rates:
        group = f"{int(name.split('.')[1]) + 1}" if "." in name else "emb."
        if group not in centres:  # room between groups, and for the label of the first, which is one bar wide
            place += 1 + len(rates) / 24 if len(centres) == 1 else 1
        place += 1
        centres.setdefault(group, []).append(place)
        places.append(place)
    left.bar(places, list(rates.values()), 0.85, color=[KINDS[kind_of(name)][1] for name in rates])
    left.set_xticks([float(np.mean(group)) for group in centres.values()], list(centres))
    left.tick_params(axis="x", length=0)
    left.grid(False, axis="x")
    left.set_xlabel("encoder (emb.: the embedding population)")
    left.set_ylabel("firing rate (spikes per neuron and step)")
    left.set_title(f"Firing rates at T = {last_row(results)['t']}")

    times = [row["t"] for row in results["spikes"]]
    lines = {"paper’s count": ([row["energy_gain"] for row in results["spikes"]], COLOUR["blue"], (6, 6))}
    if full:
        found = [row["full"]["gain"] or np.nan for row in results["spikes"]]
        lines["full count"] = (found, COLOUR["black"], (-28, -12))
    right.axhline(1, color=COLOUR["vermillion"], ls=(0, (5, 3)), lw=1.5)
    drawn = [1.0]
    for label, (values, colour, offset) in lines.items():
        gains = [gain if 0 < gain < np.inf else np.nan for gain in values]
        drawn += gains
        right.plot(times, gains, color=colour, marker="o", label=label)
        labelled = 0.0
        for t, gain in zip(times, gains, strict=True):
            if gain > 0 and t >= 1.5 * labelled:
                labelled = t
                box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}
                right.annotate(f"{gain:.2g}×", (t, gain), offset, textcoords="offset points", fontsize=9, bbox=box)
    if full:
        right.legend(loc="upper right")
    right.set_yscale("log")
    low, high = np.nanmin(drawn), np.nanmax(drawn)
    right.set_ylim(low / 1.6, high * 1.9)
    log_axis(right.yaxis, low / 1.6, high * 1.9)
    time_axis(right, times)
    room = max(times) / min(times)  # for the labels
    right.set_xlim(right.get_xlim()[0] / room ** (0.1 * full), right.get_xlim()[1] * room**0.16 * 1.1)
    right.set_ylabel("energy gain (times less energy)")
    right.set_title("Energy gain (dashed: break-even)")
    if full:
        _draw_spent(figure.add_subplot(grid[1, :]), results)
    figure_legend(figure, [patches.Patch(color=colour, label=label) for label, colour, _ in KINDS.values()])
    return figure


def _draw_spent(axes: Axes, results: Mapping[str, Any]) -> None:
    """Shares of the energy by what it is spent on: the spiking network's at the largest T, and the ordinary one's."""
    patches = require("matplotlib.patches")
    row, colours = last_row(results), {label: colour for label, _, colour in SPENT}
    bars = {f"spiking, T = {row['t']}": row["full"], "ordinary": results["ordinary"]}
    for place, counted in enumerate(bars.values()):
        energy = spent(counted["picojoules"])
        total, start = sum(energy.values()), 0.0
        for label, value in energy.items():
            share = 100 * value / total
            axes.barh(place, share, 0.7, start, color=colours[label])
            start += share
        axes.text(101, place, f"{total / 1e6:.3g} µJ", va="center")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("share of the energy per token (%)")
    axes.set_title("Where the energy goes, by the full count")
    shown = {label for counted in bars.values() for label in spent(counted["picojoules"])}
    handles = [patches.Patch(color=colour, label=label) for label, colour in colours.items() if label in shown]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.55), ncols=4, borderaxespad=0)


# ---------------------------------------------------------------------------------------------------------------------
# One sentence


#: Colours of attention weights, from 0 to the largest: light to dark in one hue.
WEIGHT_SCALE = ("#ffffff", "#6baed6", "#08306b")


def attention_figure(
    student: Sequence[Array], teacher: Sequence[Array], layers: Sequence[int], tokens: Sequence[str]
) -> Figure:
    """Attention weights of every encoder and head, each student beside the teacher's layer it is paired with.

    Parameters
    ----------
    student, teacher : sequences of (heads, N, N) arrays
        Weights of each encoder and of its paired layer; a row is a query and adds up to 1.
    layers : sequence of int
        Number of the paired layer, counted from 1.
    tokens : sequence of str

    Returns
    -------
    figure : Figure
    """
    scale = require("matplotlib.colors").LinearSegmentedColormap.from_list("weights", WEIGHT_SCALE)
    heads, n = student[0].shape[:2]
    pairs = min(heads, 2 if heads in (2, 4) else 3)  # side by side
    rows = len(student) * ceil(heads / pairs)
    figure = new_figure(rows * (WIDTH / (2 * pairs) + 0.35))
    grid = figure.subplots(rows, 2 * pairs, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for encoder, (ours, theirs, layer) in enumerate(zip(student, teacher, layers, strict=True)):
        for head in range(heads):
            row = encoder * ceil(heads / pairs) + head // pairs
            largest = max(ours[head].max(), theirs[head].max())
            titles = (f"encoder {encoder + 1}, head {head + 1}", f"teacher’s layer {layer}")
            for side, (weights, name) in enumerate(zip((ours[head], theirs[head]), titles, strict=True)):
                axes = grid[row, 2 * (head % pairs) + side]
                axes.set_axis_on()
                axes.imshow(weights, cmap=scale, vmin=0, vmax=largest, interpolation="none")
                axes.set_title(name, fontsize=9 if pairs < 3 else 7, fontweight="bold" if side == 0 else "normal")
                axes.grid(False)
                axes.set_xticks([])
                axes.set_yticks([])
        if n <= RASTER_TOKENS:
            labels = [token if len(token) <= 12 else token[:11] + "…" for token in tokens]
            for row in range(encoder * ceil(heads / pairs), (encoder + 1) * ceil(heads / pairs)):
                grid[row, 0].set_yticks(range(n), labels, fontsize=max(3.0, min(8.0, 260 / (n * pairs))))
                grid[row, 0].tick_params(axis="y", length=0)
    return figure


def time_cursor(figure: Figure, steps: int) -> Figure:
    """Mark the first and the last time step of every panel, for a page's program to find the time axis and move along.

    Parameters
    ----------
    figure : Figure
    steps : int
        T, where the panels' logarithmic time axes end.

    Returns
    -------
    figure : Figure
        The same. Its parts ``first-0``, ``now-0``, ``first-1``, … are vertical lines at t = 1 and t = T.
    """
    for i, axes in enumerate(figure.axes):
        for name, t in (("first", 1), ("now", steps)):
            axes.axvline(t, color=COLOUR["black"], lw=1.0, alpha=0.55, gid=f"{name}-{i}")
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Numbers that depend on one other


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


def lines_figure(panels: Sequence[Panel], xlabel: str, in_time: bool = True) -> Figure:
    """Draw numbers that depend on one other, in panels side by side that share it.

    Parameters
    ----------
    panels : sequence of Panel
    xlabel : str
    in_time : bool
        Whether x is a number of steps, on a logarithmic axis.

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
    figure = new_figure(3.9 + 0.22 * (len(names) + len(levels) > 4))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
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
