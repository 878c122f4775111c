"""One style for all figures, whatever the user's own settings.

The palette is one that readers with any kind of colour vision can tell apart; the same numbers give the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOUR",
    "STYLE",
    "figure_legend",
    "figure_style",
    "log_axis",
    "new_figure",
    "time_axis",
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
