"""Three common pictures, each a Matplotlib figure: spikes, rates that settle, accuracy against T.

Nothing here touches `matplotlib.pyplot` or its settings, so the functions work without a screen and in threads. Save a
figure with ``figure.savefig("spikes.svg")``; a notebook that has said ``%matplotlib inline`` shows it. For figures of
your own, `COLOUR` is the palette and `STYLE` what Matplotlib's ``rcParams`` are set to while these are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..model.network import encoder_of, kind_of
from ..ops import Array
from ..readings.rate_map import Rates
from .figures.accuracy import accuracy_figure
from .figures.spikes import draw_spikes, label_tokens
from .figures.style import COLOUR, STYLE, figure_legend, figure_style, log_axis, new_figure, time_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOUR", "STYLE", "accuracy", "raster", "settling"]

#: Line colours, and with more lines than colours their styles.
COLOURS = [COLOUR[name] for name in ("blue", "vermillion", "green", "purple", "orange", "sky", "grey")]
STYLES = ("-", "--", ":", "-.")


def raster(
    spikes: Array | tuple[Array, Sequence[str]],
    tokens: Sequence[str] | None = None,
    *,
    neurons: int = 32,
    title: str | None = None,
) -> Figure:
    """Draw who fires when: a band for each token, a row in it for each neuron, a mark for each spike.

    Parameters
    ----------
    spikes : (T, N, D) array of 0 and 1, or refsnn.models.Raster
        Spikes of D neurons for each of N tokens over T time steps; or what `refsnn.Student.raster` returns.
    tokens : sequence of N str, optional
        Labels of the bands; the tokens of a `Raster`, or else their numbers.
    neurons : int
        Rows to draw for each token, evenly spaced; all neurons where there are fewer.
    title : str, optional

    Returns
    -------
    figure : matplotlib.figure.Figure

    Raises
    ------
    InputError
        The array is no spikes, or the tokens are not as many as its second axis is long.

    Examples
    --------
    >>> spikes = np.zeros((20, 2, 8))
    >>> spikes[::4, 0] = 1
    >>> figure = raster(spikes, ["good", "film"])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['good', 'film']
    """
    if isinstance(spikes, tuple) and len(spikes) == 2:
        spikes, own = spikes
        tokens = own if tokens is None else tokens
    seen = np.asarray(spikes)
    if seen.ndim != 3 or not seen.size:
        raise InputError(f"`spikes` has the shape {seen.shape}, but (T, N, D) was expected: steps, tokens, neurons")
    if not np.isin(seen, (0, 1)).all():
        raise InputError("`spikes` holds other values than 0 and 1; rates are drawn by `refsnn.plot.settling`")
    if neurons < 1:
        raise InputError(f"`neurons` is {neurons}, but at least one neuron is drawn for each token")
    _, count, width = seen.shape
    labels = [str(i) for i in range(count)] if tokens is None else [str(token) for token in tokens]
    if len(labels) != count:
        raise InputError(f"there are {len(labels)} `tokens`, but `spikes` has {count}, by its shape {seen.shape}")
    shown = np.linspace(0, width - 1, min(neurons, width)).round().astype(int)
    with figure_style():
        figure = new_figure(min(10.5, max(2.8, 0.4 * count + 0.9)))
        axes = figure.subplots()
        draw_spikes(axes, seen[..., shown], COLOUR["blue"])
        label_tokens(axes, labels)
        if title is not None:
            axes.set_title(title)
    return figure


def settling(
    asr: Mapping[int, Rates],
    rates: Rates,
    *,
    populations: Sequence[str] | None = None,
    mask: Array | None = None,
) -> Figure:
    """Draw how the spikes' rates settle at the rate map: their mean distance from it against T.

    Parameters
    ----------
    asr : mapping
        T -> population -> (B, N, width) average spiking rates, as from `refsnn.Student.simulate` or `refsnn.simulate`.
    rates : mapping
        Population -> (B, N, width) rates at equilibrium, as from `refsnn.Student.rates` or `refsnn.rate_map`.
    populations : sequence of str, optional
        Those to draw; by default all of a small network, of a larger one the embeddings and every encoder's output.
    mask : (B, N) array, optional
        1 where a token is real (``batch.attention_mask``): padding is left out of the mean.

    Returns
    -------
    figure : matplotlib.figure.Figure

    Raises
    ------
    InputError
        Nothing to draw, a population that one of the two lacks, or shapes that differ.

    Examples
    --------
    >>> exact = {"embeddings": np.full((1, 2, 3), 0.5)}
    >>> asr = {t: {"embeddings": exact["embeddings"] + 1 / t} for t in (4, 16, 64)}
    >>> figure = settling(asr, exact)
    >>> figure.axes[0].lines[-1].get_ydata().tolist()
    [0.25, 0.0625, 0.015625]
    """
    if not asr or min(asr) < 1:
        raise InputError(f"`asr` has the timesteps {sorted(asr)}, but at least one T of 1 or more was expected")
    times = sorted(asr)
    common = [name for name in rates if all(name in found for found in asr.values())]
    names = list(populations) if populations is not None else _overview(common)
    if lacking := [name for name in names if name not in common]:
        raise InputError(f"`asr` and `rates` do not both have {', '.join(lacking)}; both have {', '.join(common)}")
    if not names:
        raise InputError("`asr` and `rates` have no population in common")
    with figure_style():
        figure = new_figure(3.9 + 0.22 * (len(names) > 3))
        axes = figure.subplots()
        axes.plot(times, [1 / t for t in times], color=COLOUR["grey"], ls=":", lw=1.2, label="1/T")
        smallest = 1 / times[-1]
        for i, name in enumerate(names):
            away = np.array([_distance(asr[t][name], rates[name], mask, name) for t in times])
            smallest = min([smallest, *away[away > 0]])
            shown = np.where(away > 0, away, np.nan)  # what is exact has no place on a logarithmic axis
            axes.plot(times, shown, color=COLOURS[i % 7], ls=STYLES[i // 7 % 4], marker="o", markersize=4, label=name)
        axes.set_yscale("log")
        log_axis(axes.yaxis, smallest, axes.get_ylim()[1])
        time_axis(axes, times)
        axes.set_ylabel("mean |ASR − rate map|\n(spikes per step)")
        figure_legend(figure)
    return figure


def _overview(names: Sequence[str]) -> list[str]:
    """Choose the populations to show: all that can be told apart, or else one for each encoder."""
    chosen = [name for name in names if encoder_of(name) is None or kind_of(name) == "output"]
    return list(names) if len(names) <= 7 or not chosen else chosen


def _distance(found: Array, rates: Array, mask: Array | None, name: str) -> float:
    if np.shape(found) != np.shape(rates):
        raise InputError(f"{name} has the shape {np.shape(found)} in `asr` and {np.shape(rates)} in `rates`")
    away = np.abs(np.asarray(found, float) - rates)
    if mask is None:
        return float(away.mean())
    if np.shape(mask) != away.shape[:2] or not np.any(mask):
        raise InputError(f"`mask` has the shape {np.shape(mask)}, but {away.shape[:2]} with a 1 in it was expected")
    return float(away[np.asarray(mask, bool)].mean())


def accuracy(results: Mapping[str, Any]) -> Figure:
    """Draw accuracy, or the task's own metric, against T, beside the teacher's and the rate map's.

    Parameters
    ----------
    results : mapping
        What `refsnn.evaluate` returns, or `refsnn.Run(folder).results(rule)` reads.

    Returns
    -------
    figure : matplotlib.figure.Figure

    Raises
    ------
    InputError
        These are no results of an evaluation.

    Examples
    --------
    >>> rows = [{"t": t, "metrics": {"accuracy": value}} for t, value in ((16, 0.7), (4, 0.5))]
    >>> metrics = {"teacher": {"accuracy": 0.9}, "rate": {"accuracy": 0.8}}
    >>> figure = accuracy({"metric": "accuracy", "metrics": metrics, "spikes": rows, "examples": 100})
    >>> figure.axes[0].get_ylabel()
    'accuracy on the dev split (%)'
    """
    needed = ("metric", "metrics", "spikes", "examples")
    if not isinstance(results, Mapping):
        raise InputError(f"`results` is {results!r:.80}, but what `refsnn.evaluate` returns was expected")
    if lacking := [name for name in needed if not results.get(name)]:
        raise InputError(f"`results` lacks {', '.join(lacking)}; what `refsnn.evaluate` returns was expected")
    with figure_style():
        return accuracy_figure({**results, "spikes": sorted(results["spikes"], key=lambda row: row["t"])})
