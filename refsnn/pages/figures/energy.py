"""Energy, term by term, of spikes and of the ordinary network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files import require
from ...model.network import kind_of
from ..words import KINDS, last_row
from .style import COLOUR, PAPER, figure_legend, log_axis, new_figure, time_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "energy_figure",
    "spent",
]

#: Where energy goes: label, the count's terms, colour. Terms of your own projections come last.
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
        As from `refsnn.evaluation.evaluate.evaluate_run`, ordered by T. Without a full count the paper's is drawn
        alone.

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
    lines = {"paper’s count": ([row["energy_gain"] or np.nan for row in results["spikes"]], COLOUR["blue"], (6, 6))}
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
