"""Losses over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from ...files import require
from ...ops import Array
from .style import COLOUR, figure_legend, log_axis, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "STAGES",
    "training_figure",
]

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
