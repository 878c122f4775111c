"""One sentence: rates that settle, rasters, probabilities over time, attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from ...evaluation.observe import RASTER_TOKENS, Trace
from ...files import require
from ...model.network import encoder_of, kind_of
from ...ops import Array
from ..words import KINDS, population_title
from .style import COLOUR, WIDTH, figure_legend, log_axis, new_figure, time_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "WEIGHT_SCALE",
    "attention_figure",
    "convergence_figure",
    "draw_spikes",
    "label_tokens",
    "probability_figure",
    "raster_figure",
    "time_cursor",
]


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
    encoders = 1 + max(encoder_of(name) or 0 for name in trace.distance)
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
            if encoder_of(name) not in (None, encoder):
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


#: Colour of the spikes of −1, in every population.
NEGATIVE = "#e6007e"


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
    _, count, _ = next(iter(trace.spikes.values())).shape
    figure = new_figure(min(10.5, max(3.2, 0.3 * count + 0.9)))
    grid = figure.subplots(1, len(trace.spikes), sharey=True)
    for axes, (name, spikes) in zip(grid, trace.spikes.items(), strict=True):
        draw_spikes(axes, spikes, KINDS[kind_of(name)][1])
        axes.set_title(population_title(name))
    label_tokens(grid[0], tokens[:count])
    return figure


def draw_spikes(axes: Axes, spikes: Array, colour: str) -> None:
    """Draw one population's spikes, a band for each token; those of −1 in pink.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    spikes : (T, N, D) array
    colour : str
    """
    steps, count, neurons = spikes.shape
    half = 0.3 / neurons
    width = min(2.2, max(0.7, 110 / steps))
    for marked, drawn in ((spikes > 0, colour), (spikes < 0, NEGATIVE)):
        t, token, neuron = np.nonzero(marked)
        y = token + 0.1 + 0.8 * (neuron + 0.5) / neurons
        if len(t) or drawn == colour:
            axes.vlines(t + 1, y - half, y + half, color=drawn, lw=width, rasterized=True)
    if not spikes.any():
        axes.text(0.5, 0.5, "no spikes", transform=axes.transAxes, ha="center", va="center", color=COLOUR["grey"])
    for i in range(0, count, 2):
        axes.axhspan(i, i + 1, color="#f3f3ef", lw=0, zorder=0)
    axes.set_xlim(0, steps + 1)
    axes.set_xlabel("time step")
    axes.xaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(5, integer=True))
    axes.grid(False)
    axes.tick_params(axis="y", length=0)


def label_tokens(axes: Axes, tokens: Sequence[str]) -> None:
    """Write the tokens beside their bands, the first on top.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    tokens : sequence of str
    """
    count = len(tokens)
    labels = [token if len(token) <= 14 else token[:13] + "…" for token in tokens]
    axes.set_yticks(np.arange(count) + 0.5, labels, fontsize=9 if count <= 25 else 7.5)
    axes.set_ylim(count, 0)
    axes.set_ylabel("token")


def probability_figure(
    trace: Trace,
    classes: Sequence[str],
    label: int | None,
    times: Sequence[int],
    score: float | None = None,
    top: float = 0.0,
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
    top : float
        Greatest score of the scale.

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
    axes.set_ylim(low, 1 if score is None else 1.05 * max(top, score, trace.probabilities.max()))
    if score is not None:
        axes.axhline(score, color=COLOUR["black"], ls=":", lw=1.4, label="true score")
    time_axis(axes, [2**i for i in range(int(np.log2(len(t))) + 1)])
    axes.set_xlim(0.9, len(t) * 1.1)
    axes.set_xlabel("time step t")
    axes.set_ylabel("class probability" if score is None else "score")
    figure_legend(figure, columns=5)
    return figure


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
