"""Solvers compared, and the margins of a certificate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...evaluation.solvers import Solved
from ...files import atomic, require
from ...readings.certify import DECADES, Verdict

__all__ = [
    "plot_margins",
    "plot_solvers",
]


def plot_solvers(rows: list[Solved], path: str | os.PathLike) -> None:
    """Draw the residual history of every method.

    Parameters
    ----------
    rows : list of Row
    path : Path
        An ``.svg`` file.
    """
    require("matplotlib")
    from matplotlib.figure import Figure

    # Okabe and Ito's colours, told apart by the colour-blind; markers tell them apart in print.
    colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
    markers = "osD^vPX"
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    shown: list[Any] = [row for row in rows if row.solution is not None and row.method != "dense"]
    for row, colour, marker in zip(shown, colours, markers, strict=True):
        trace = np.maximum(row.solution.trace, 1e-17)
        products = row.products * np.arange(1, len(trace) + 1) / len(trace)
        axes.semilogy(products, trace, color=colour, marker=marker, markersize=5, label=row.method)
    axes.set_xlabel("products with the transposed derivative")
    axes.set_ylabel("relative residual of the adjoint equation")
    axes.grid(True, which="major", color="#dddddd")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    with atomic(path) as temporary:
        figure.savefig(temporary, format="svg")


def plot_margins(verdicts: Mapping[str, Verdict], path: str | os.PathLike) -> None:
    """Draw the margins, population by population, as a picture.

    Parameters
    ----------
    verdicts : mapping
    path : path
        An ``.svg`` file.
    """
    require("matplotlib")
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    counts = np.array([v.margins for v in verdicts.values()])
    figure = Figure(figsize=(8, 1.6 + 0.24 * len(counts)), layout="constrained")
    axes = figure.add_subplot()
    edges = [*DECADES, DECADES[-1] + 1]
    shown = np.ma.masked_equal(counts, 0)
    mesh = axes.pcolormesh(
        edges, np.arange(len(counts) + 1), shown, norm=LogNorm(1, max(counts.max(), 2)), cmap="cividis"
    )
    axes.set_yticks(np.arange(len(counts)) + 0.5, list(verdicts))
    axes.invert_yaxis()
    axes.set_xticks(edges[1::2], [f"$10^{{{e}}}$" for e in edges[1::2]])
    axes.set_xlabel("margin of a decision, |u − V_th| / V_th (leftmost: exact ties)")
    for y, verdict in enumerate(verdicts.values()):
        bound = np.log10(max(verdict.largest_bound, 10.0 ** DECADES[0]))
        axes.plot(
            [bound, bound], [y, y + 1], color="#D55E00", linewidth=2, label="largest rounding bound" if not y else None
        )
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    figure.colorbar(mesh, ax=axes, label="decisions")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="svg")
