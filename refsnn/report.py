"""One page about a run: what was done, how good the student is, and pictures of its spikes settling.

The page is drawn from the run's folder alone and needs nothing else: no network, no scripts, every figure inline SVG.
The same folder gives the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from itertools import pairwise
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import ops
from .config import BertConfig
from .distill import load_student
from .equilibrium import equilibrium
from .errors import InputError
from .files import existing, read_json, require, write_text
from .metrics import title
from .network import Batch, Params
from .ops import Array
from .simulate import Rule, spike_blocks
from .student import StudentConfig, logits
from .teacher import teacher_shapes
from .text import LARGEST_SCORE, TASKS, load_tokenizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["write_report"]

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

CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fdfdfb; color: #222; font: 17px/1.6 Charter, "Bitstream Charter", "Source Serif 4",
  Georgia, "DejaVu Serif", serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 2rem 4rem; }
h1, h2, nav, table, figcaption b, .numbers { font-family: system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 2rem; line-height: 1.25; margin: 0 0 .4em; text-wrap: balance; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #d9d9d2; }
p, figcaption, blockquote, .note { max-width: 46rem; }
p { margin: 0 0 1em; }
a { color: #00598a; }
nav { font-size: .88rem; margin: 1.6rem 0 0; }
nav a { margin-right: 1.4em; white-space: nowrap; }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.6rem 0; }
.numbers div { flex: 1 1 11rem; padding: .8rem 1.1rem; border: 1px solid #d9d9d2; border-radius: 6px;
  background: #fff; }
.numbers dt { font-size: .88rem; color: #555; }
.numbers dd { margin: 0; font-size: 1.9rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4; margin: .6rem 0 1.4rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5em; color: #555; }
th, td { padding: .38em .9em; text-align: right; border-bottom: 1px solid #e4e4de; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 1.5px solid #555; vertical-align: bottom; }
tbody th { font-weight: 400; }
thead small { display: block; font-weight: 400; color: #555; }
table.words td { text-align: left; overflow-wrap: anywhere; min-width: 8rem; }
.tables { display: flex; flex-wrap: wrap; column-gap: 4rem; align-items: flex-start; }
.tables > * { max-width: 100%; }
figure { margin: 1.4rem 0 2.2rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { margin-top: .6rem; font-size: .93rem; line-height: 1.5; color: #333; }
blockquote { margin: 1rem 0 1.4rem; padding: .2rem 0 .2rem 1.1rem; border-left: 3px solid #56b4e9;
  overflow-wrap: anywhere; }
.note { font-size: .93rem; color: #444; }
code { font-size: .9em; }
@media (max-width: 900px) { main { padding: 1.5rem 1.2rem 3rem; } }
@media print {
  @page { margin: 16mm; }
  body { background: #fff; font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h2 + p, blockquote { break-after: avoid; }
  h2 { margin-top: 1.6rem; }
  table, tr, .numbers { break-inside: avoid; }
}
""".strip()


#: What the columns of the table of results mean.
NOTE = """
<p class="note">Agrees: {agrees}. Firing rate: spikes per neuron and step. Norm#OPS:
synaptic operations over all T steps, relative to one pass of the ordinary network. Energy gain: against the same-size
network of ordinary units, by the paper’s count (4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate); below 1× the
spiking network costs more.</p>
""".strip()


def write_report(run: str | os.PathLike) -> Path:
    """Write ``report.html`` into the folder of an evaluated run.

    Parameters
    ----------
    run : path

    Returns
    -------
    path : Path
        The page; replaced in one go, so that an earlier one stays if anything fails.

    Raises
    ------
    InputError
        The run was not evaluated, or a file of it cannot be read.
    """
    run = existing(run, "the run")
    results = _results(run)
    record = read_json(existing(run / "run.json", "the run's settings"))
    config, params = load_student(run)
    example = results["example"]
    trace = follow(config, params, example["ids"], example["kinds"], _last(results)["t"], results["rule"])
    page = _page(run, results, record, config, trace, read_log(run))
    path = run / "report.html"
    write_text(path, page)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# What the page is made from


def _results(run: Path) -> dict[str, Any]:
    path = run / "results.json"
    if not path.exists():
        raise InputError(f"{run} holds no results.json to report on; run `refsnn evaluate {run} --data …` first")
    results = read_json(path)
    needed = ("task", "examples", "rule", "metric", "metrics", "spikes", "example")
    missing = [name for name in needed if not results.get(name) and results.get(name) != 0]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; run `refsnn evaluate {run} --data …` again")
    return results | {"spikes": sorted(results["spikes"], key=lambda row: row["t"])}


def _last(results: Mapping[str, Any]) -> dict[str, Any]:
    return results["spikes"][-1]


def _regression(results: Mapping[str, Any]) -> bool:
    return results["teacher_accuracy"] is None


def _main(results: Mapping[str, Any]) -> tuple[float, float, list[float]]:
    """Values of the task's first metric: the teacher's, the rate map's, and the spikes' after each T."""
    measured = [*(results["metrics"][who] for who in ("teacher", "rate")), *(r["metrics"] for r in results["spikes"])]
    values = [metrics[results["metric"]] for metrics in measured]
    teacher, rate, *spikes = (np.nan if value is None else value for value in values)
    return teacher, rate, spikes


def read_log(run: Path) -> dict[str, list[dict[str, float]]]:
    """Read the training log of a run.

    Parameters
    ----------
    run : Path

    Returns
    -------
    log : dict
        Stage -> its lines, each with ``"step"``, ``"lr"`` and the losses. Empty where there is no log; half a line, as
        a kill leaves it, is skipped.
    """
    log: dict[str, list[dict[str, float]]] = {}
    path = run / "log.jsonl"
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            stage, step = str(entry.pop("stage")), float(entry.pop("step"))
            log.setdefault(stage, []).append({"step": step} | {name: float(value) for name, value in entry.items()})
        except (ValueError, TypeError, AttributeError, KeyError):
            continue
    return log


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
    totals: dict[str, Array] = {}
    distance: dict[str, list[Array]] = {population.name: [] for population in network.populations}
    cls: list[Array] = []
    spikes: dict[str, list[Array]] = {name: [] for name in shown}
    for t, block in spike_blocks(network, params, batch, t_conv, rule):
        for name, s in block.items():
            summed = np.cumsum(s, axis=0, dtype=np.float64) + totals.get(name, 0.0)
            totals[name] = summed[-1]
            asr = summed / np.arange(t - len(s) + 1, t + 1)[:, None, None, None]
            distance[name].append(np.abs(asr - rates[name]).mean(axis=(1, 2, 3)))
            if name == last:
                cls.append(asr[:, 0, :1])  # (steps, 1, D): [CLS] is all that the classifier reads
            if name in shown and t - len(s) < RASTER_STEPS:
                spikes[name].append(s[:, 0].astype(bool))

    def read(readout: Array) -> Array:
        z = logits(params, readout)[0]
        return ops.softmax(z)[0] if config.classes > 1 else z

    return Trace(
        {name: np.concatenate(parts) for name, parts in distance.items()},
        read(np.concatenate(cls)),
        read(rates[last])[0],
        {name: _sample(np.concatenate(parts)[:RASTER_STEPS, :RASTER_TOKENS]) for name, parts in spikes.items()},
    )


def _sample(spikes: Array) -> Array:
    """Neurons at evenly spaced ranks of activity, the busiest first."""
    ranked = np.argsort(-spikes.sum(axis=(0, 1)), kind="stable")
    places = np.linspace(0, len(ranked) - 1, min(RASTER_NEURONS, len(ranked))).astype(int)
    return spikes[..., ranked[places]]


def _tokens(run: Path, config: StudentConfig, ids: Sequence[int]) -> list[str]:
    """Spell the tokens of the example, or number them where the run's tokenizer cannot be read."""
    try:
        tokenizer = load_tokenizer(run, config.bert.vocab_size, max(len(ids), 2))
    except InputError:
        return [str(i) for i in ids]
    return [tokenizer.id_to_token(i) or str(i) for i in ids]


def _kind(population: str) -> str:
    return population.rpartition(".")[2]


def _title(population: str) -> str:
    parts = population.split(".")
    return KINDS[parts[-1]][0] + (f" of encoder {int(parts[1]) + 1}" if len(parts) > 1 else "")


# ---------------------------------------------------------------------------------------------------------------------
# Figures: each a function of numbers


@contextmanager
def _style() -> Iterator[None]:
    """Draw with this module's style alone, whatever the user's own settings, and leave those as they were."""
    matplotlib = require("matplotlib")
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's browser has other fonts
        yield


def _figure(height: float) -> Figure:
    return require("matplotlib.figure").Figure((WIDTH, height), layout="constrained")


def _legend(figure: Figure, handles: Sequence[Any] | None = None, columns: int = 4) -> None:
    """Put the legend above the axes, where it hides nothing."""
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


def _log_axis(axis: Any, low: float, high: float) -> None:
    """Label a logarithmic axis at powers of ten, and at 2 and 5 times them where there are few of those."""
    ticker = require("matplotlib.ticker")
    few = high < 300 * low
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=12))
    axis.set_major_formatter(ticker.FuncFormatter(_number))
    axis.set_minor_locator(ticker.NullLocator())


def _time_axis(axes: Axes, times: Sequence[int]) -> None:
    """Time steps on a base-2 logarithmic axis, labelled at the evaluated T or, where those crowd, at powers of two."""
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
    figure = _figure(2.8 * rows + 0.4)
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
            _log_axis(axes.yaxis, every.min(), every.max())
        elif len(every):
            axes.set_ylim(0, every.max() * 1.15)
        entropy = "nats per class" if soft and name == "prediction" else "nats"
        axes.set_title(STAGES.get(name, name))
        axes.set_xlim(0, steps.max() * 1.02)
        axes.set_xlabel("training step")
        axes.set_ylabel(f"loss ({'mean squared error' if regression or 'hidden' in losses else entropy})")
    for axes in list(grid):
        axes.remove()
    _legend(figure, [lines.Line2D([], [], color=colour, label=label) for label, colour in legend.items()])
    return figure


def _interval(fraction: float, count: int) -> tuple[float, float]:
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
    teacher, rate, spikes = _main(results)
    values, bars, metric = np.array(spikes), None, results["metric"]
    if metric == "accuracy":
        bars = 100 * np.abs(np.array([_interval(v, results["examples"]) for v in values]).T - values)
    figure = _figure(3.9)
    axes = figure.subplots()
    axes.axhline(100 * teacher, color=COLOUR["black"], lw=1.4, label=f"teacher, {_value(teacher, metric)}")
    label = f"student, rate map, {_value(rate, metric)}"
    axes.axhline(100 * rate, color=COLOUR["orange"], lw=2.2, ls=(0, (5, 3)), label=label)
    blue = COLOUR["blue"]
    axes.errorbar(times, 100 * values, bars, color=blue, marker="o", capsize=3, elinewidth=1, label="student, spikes")
    low, high = axes.get_ylim()
    if high - low < 10:
        low, high = (low + high) / 2 - 5, (low + high) / 2 + 5
    axes.set_ylim(max(low, 0) if bars is not None else low, min(high, 101.5))
    _time_axis(axes, times)
    axes.set_ylabel(f"{_long_title(metric)} on the dev split ({_sign(metric)})")
    _legend(figure)
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
    figure = _figure((3.4 if columns < 4 else 2.6) * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    smallest = 1.0 / steps
    for encoder, axes in zip(range(encoders), grid, strict=False):
        axes.plot(shown, 1.0 / shown, color=COLOUR["grey"], lw=1.2, ls=":")
        for name, values in trace.distance.items():
            if "." in name and int(name.split(".")[1]) != encoder:
                continue
            _, colour, style = KINDS[_kind(name)]
            seen = np.where(values > 0, values, np.nan)[shown - 1]
            smallest = min(smallest, np.nanmin(seen, initial=1.0))
            axes.plot(shown, seen, color=colour, ls=style, marker="o" if steps < 3 else None)
        axes.set_title(f"encoder {encoder + 1}")
        axes.set_yscale("log")
        _time_axis(axes, [1, steps] if steps > 1 else [1])
        powers = [2**i for i in range(0, int(np.log2(steps)) + 1, 1 if columns < 3 else 2)]
        axes.xaxis.set_major_locator(require("matplotlib.ticker").FixedLocator(powers))
        if encoder + columns < encoders:  # another panel below
            axes.set_xlabel("")
        else:
            axes.tick_params(labelbottom=True)
    figure.axes[0].set_ylim(smallest / 1.5, 1.3)
    _log_axis(figure.axes[0].yaxis, smallest, 1.0)
    for axes in figure.axes[::columns]:
        axes.set_ylabel("mean |ASR − rate map|\n(spikes per step)")
    for axes in list(grid):
        axes.remove()
    handles = [lines.Line2D([], [], color=c, ls=style, label=label) for label, c, style in KINDS.values()]
    handles.append(lines.Line2D([], [], color=COLOUR["grey"], ls=":", lw=1.2, label="1/T"))
    _legend(figure, handles)
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
    figure = _figure(min(10.5, max(3.2, 0.3 * count + 0.9)))
    grid = figure.subplots(1, len(trace.spikes), sharey=True)
    for axes, (name, spikes) in zip(grid, trace.spikes.items(), strict=True):
        neurons = spikes.shape[-1]
        t, token, neuron = np.nonzero(spikes)
        y = token + 0.1 + 0.8 * (neuron + 0.5) / neurons
        half = 0.3 / neurons
        width = min(2.2, max(0.7, 110 / steps))
        axes.vlines(t + 1, y - half, y + half, color=KINDS[_kind(name)][1], lw=width, rasterized=True)
        if not len(t):
            axes.text(0.5, 0.5, "no spikes", transform=axes.transAxes, ha="center", va="center", color=COLOUR["grey"])
        for i in range(0, count, 2):
            axes.axhspan(i, i + 1, color="#f3f3ef", lw=0, zorder=0)
        axes.set_title(_title(name))
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
    figure = _figure(3.7)
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
    _time_axis(axes, [2**i for i in range(int(np.log2(len(t))) + 1)])
    axes.set_xlim(0.9, len(t) * 1.1)
    axes.set_xlabel("time step t")
    axes.set_ylabel("class probability" if score is None else "score")
    _legend(figure, columns=5)
    return figure


def energy_figure(results: Mapping[str, Any]) -> Figure:
    """Draw the firing rate of every population at the largest T, and the energy gain against T.

    Parameters
    ----------
    results : mapping
        As from `refsnn.evaluate.evaluate_run`, ordered by T.

    Returns
    -------
    figure : Figure
    """
    patches = require("matplotlib.patches")
    figure = _figure(4.3)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    rates = _last(results)["firing_rates"]
    place, places = -1.0, []
    centres: dict[str, list[float]] = {}
    for name in rates:
        group = f"{int(name.split('.')[1]) + 1}" if "." in name else "emb."
        if group not in centres:  # room between groups, and for the label of the first, which is one bar wide
            place += 1 + len(rates) / 24 if len(centres) == 1 else 1
        place += 1
        centres.setdefault(group, []).append(place)
        places.append(place)
    left.bar(places, list(rates.values()), 0.85, color=[KINDS[_kind(name)][1] for name in rates])
    left.set_xticks([float(np.mean(group)) for group in centres.values()], list(centres))
    left.tick_params(axis="x", length=0)
    left.grid(False, axis="x")
    left.set_xlabel("encoder (emb.: the embedding population)")
    left.set_ylabel("firing rate (spikes per neuron and step)")
    left.set_title(f"Firing rates at T = {_last(results)['t']}")

    times = [row["t"] for row in results["spikes"]]
    gains = [row["energy_gain"] if 0 < row["energy_gain"] < np.inf else np.nan for row in results["spikes"]]
    right.axhline(1, color=COLOUR["vermillion"], ls=(0, (5, 3)), lw=1.5)
    right.plot(times, gains, color=COLOUR["blue"], marker="o")
    labelled = 0.0
    for t, gain in zip(times, gains, strict=True):
        if gain > 0 and t >= 1.5 * labelled:
            labelled = t
            box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}
            right.annotate(f"{gain:.2g}×", (t, gain), (6, 6), textcoords="offset points", fontsize=9, bbox=box)
    right.set_yscale("log")
    low, high = np.nanmin([1.0, *gains]), np.nanmax([1.0, *gains])
    right.set_ylim(low / 1.6, high * 1.9)
    _log_axis(right.yaxis, low / 1.6, high * 1.9)
    _time_axis(right, times)
    right.set_xlim(right.get_xlim()[0], right.get_xlim()[1] * (max(times) / min(times)) ** 0.16 * 1.1)
    right.set_ylabel("energy gain (times less energy)")
    right.set_title("Energy gain (dashed: break-even)")
    _legend(figure, [patches.Patch(color=colour, label=label) for label, colour, _ in KINDS.values()])
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# The page


def _svg(figure: Figure, name: str, label: str) -> str:
    """Turn a figure into SVG that can stand inside a page among others."""
    file = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", dpi=PIXELS_PER_INCH, metadata=nothing, transparent=True)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    # Names of parts are global to a page, so each figure's get a prefix of their own.
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]*)"', rf'href="#{name}-\1"', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    return re.sub(r"<svg[^>]*>", f'<svg role="img" aria-label="{escape(label)}" {box[0]}>', svg, count=1).strip()


def _picture(number: int, name: str, label: str, caption: str, draw: Callable[[], Figure]) -> str:
    """Draw a figure and put it with its caption; `label` is plain text, `caption` HTML."""
    with _style():
        svg = _svg(draw(), name, label)
    return f'<figure id="{name}">\n{svg}\n<figcaption><b>Figure {number}.</b> {caption}</figcaption>\n</figure>'


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "figures") -> str:
    """Lay out a table; all arguments are HTML. The first cell of a row is its heading."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}">\n<caption>{caption}</caption>\n'
        + (f"<thead><tr>{top}</tr></thead>\n" if head else "")
        + f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None or np.isnan(fraction) else f"{100 * fraction:.1f}"


def _sign(metric: str) -> str:
    """Show how a metric is written: fractions as percentages, correlations a hundredfold."""
    return "%" if metric in ("accuracy", "f1") else "×100"


def _long_title(metric: str) -> str:
    return title(metric) if _sign(metric) == "%" else f"{title(metric)} correlation"


def _value(fraction: float, metric: str) -> str:
    return _percent(fraction) + "\u202f%" * (_sign(metric) == "%")


def _grouped(number: float) -> str:
    return f"{number:,.0f}".replace(",", "\u202f")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if len(words) > 1 else []), *words[-1:]])


def _results_table(name: str, results: Mapping[str, Any]) -> str:
    """Lay out the columns of `refsnn.evaluate.table`."""
    none = ["–"] * 4
    rows = [
        [name, *map(_percent, results["metrics"][who].values()), *none]
        for name, who in (("teacher (BERT)", "teacher"), ("student, rate map", "rate"))
    ]
    rows += [
        [
            f"student, T = {row['t']}",
            *map(_percent, row["metrics"].values()),
            _percent(row["agreement"]),
            f"{row['firing_rate']:.3f}",
            f"{row['norm_ops']:.2f}",
            f"{row['energy_gain']:.2f}×",
        ]
        for row in results["spikes"]
    ]
    head = ["", *(f"{title(metric)}<small>{_sign(metric)}</small>" for metric in results["metrics"]["teacher"])]
    head += [f"agrees<small>{'×100' if _regression(results) else '%'}</small>"]
    head += ["firing rate<small>per step</small>", "Norm#OPS<small>relative</small>", "energy gain<small>times</small>"]
    return _table(f"{escape(name)}, {results['examples']} examples", head, rows)


def _summary(results: Mapping[str, Any], recipe: Mapping[str, Any], config: StudentConfig) -> str:
    """One paragraph in plain words, from the numbers."""
    last, encoders = _last(results), config.bert.num_hidden_layers
    stages = [name for name in ("general", "internal", "prediction") if recipe.get(f"epochs_{name}")]
    gain = last["energy_gain"]
    cost = f"{gain:.2g} times less energy than" if gain >= 1 else f"{1 / gain:.2g} times the energy of"
    saving = [row["t"] for row in results["spikes"] if row["energy_gain"] >= 1]
    if gain >= 1:
        verdict = ""
    elif saving:
        verdict = f" Of the T evaluated, spiking saves energy up to T = {max(saving)}."
    else:
        verdict = f" Spiking saves no energy at {'any' if len(results['spikes']) > 1 else 'the'} T evaluated."
    metric, values = results["metric"], _main(results)
    teacher, rate, spikes = (_value(value, metric) for value in (*values[:2], values[2][-1]))
    if metric == "accuracy":
        is_good = f"names the right class in {teacher} of the cases. The student does so in {rate}"
        spikes = f"in {spikes}"
    else:
        is_good = f"reaches a {_long_title(metric)} with the truth of {teacher} (times 100). The student reaches {rate}"
    agree = _percent(last["agreement"])
    same = f"correlate by {agree}" if _regression(results) else f"name the same class in {agree}\u202f% of the cases"
    return (
        f"<p>A BERT teacher was {'fine-tuned' if recipe.get('epochs_teacher') else 'taken as it was'} for "
        f"{escape(results['task'])}, and a spiking student with {encoders} encoder{'s' * (encoders != 1)} of width "
        f"{config.bert.hidden_size} was made from it"
        + (f" by distillation in {len(stages)} stage{'s' * (len(stages) != 1)} ({_listed(stages)})" if stages else "")
        + f". On the {_grouped(results['examples'])} examples of the dev split the teacher {is_good} by its "
        f"rate map, the equilibrium that its spiking rates should settle at, and {spikes} by the spikes themselves, "
        f"counted over T = {last['t']} time steps; these two {same}. A neuron then fires in "
        f"{100 * last['firing_rate']:.0f}\u202f% of the steps on average, and by the paper’s count of operations a "
        f"sentence costs {cost} the same-size network of ordinary units.{verdict}</p>"
    )


def _headline(results: Mapping[str, Any]) -> str:
    metric, (teacher, rate, spikes) = results["metric"], _main(results)
    numbers = {
        "teacher (BERT)": teacher,
        "student, rate map": rate,
        f"student, spikes, T = {_last(results)['t']}": spikes[-1],
    }
    boxes = "\n".join(f"<div><dt>{name}</dt><dd>{_value(v, metric)}</dd></div>" for name, v in numbers.items())
    return f'<dl class="numbers" aria-label="{_long_title(metric)} on the dev split">\n{boxes}\n</dl>'


def _accuracy_picture(results: Mapping[str, Any]) -> str:
    times = [row["t"] for row in results["spikes"]]
    name = _long_title(results["metric"])
    name = name[0].upper() + name[1:]
    bars = ""
    if results["metric"] == "accuracy":
        bars = f" Bars: 95\u202f% intervals (Wilson) for {_grouped(results['examples'])} examples."
    return _picture(
        1,
        "accuracy",
        f"{name} of the spiking student for T from {times[0]} to {times[-1]} time steps, with lines for the teacher "
        "and for the rate map.",
        f"{name} against the number of time steps T. With more steps the spikes should come to agree with the rate "
        f"map (dashed); any distance that remains to the teacher (black) comes from distillation.{bars}",
        lambda: accuracy_figure(results),
    )


def _training_picture(log: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    if not log:
        return "<p>The run’s folder has no training log (<code>log.jsonl</code>), so there are no curves to show.</p>"
    regression = not TASKS[recipe["task"]].labels
    soft = recipe.get("labels") == "soft" and not regression
    return _picture(
        2,
        "training",
        f"Training losses against the step, one panel for each of the stages {_listed(list(log))}.",
        "Losses against the training step. Thin: as logged; thick: a running mean over one in 25 of the points "
        "(geometric on a logarithmic axis)."
        + (
            " The prediction loss, against the teacher’s soft labels, cannot fall below the entropy of those."
            if soft and "prediction" in log
            else ""
        ),
        lambda: training_figure(log, soft, regression),
    )


def _convergence_picture(trace: Trace, results: Mapping[str, Any], config: StudentConfig) -> str:
    last, steps = config.network.readouts[-1], _last(results)["t"]
    caption = (
        "Distance of the average spiking rates (ASR) of the example sentence from the rate map, mean over tokens and "
        "neurons. Dotted: 1/T, the smallest change of a rate that is counted over T steps. A population that settles "
        "at the rate map falls in parallel to it. "
    )
    if config.neuron.leak != 1:
        caption += "The neurons leak, so their rates keep a bias, and the lines level off. "
    elif results["rule"] == "inst":
        caption += (
            "One that levels off keeps a bias: under the rule <code>inst</code> softmax, LayerNorm and GELU act on "
            "single spikes, not on their mean. "
        )
    silent = [_title(name) for name, values in trace.distance.items() if not values.any()]
    if silent:
        caption += f"Exact at every T, and so without a line: {_listed(silent)}. "
    end = {name: f"{trace.distance[name][-1]:.2g}" for name in ("embeddings", last)}
    caption += (
        f"At T = {steps} the distance is {end['embeddings']} in the embeddings and {end[last]} in the last output."
    )
    return _picture(
        3,
        "convergence",
        "Mean distance between spiking rates and rate map against the number of time steps, on logarithmic axes: one "
        "panel per encoder, one line per kind of population, and a line that falls like 1/T.",
        caption,
        lambda: convergence_figure(trace),
    )


def _raster_picture(trace: Trace, tokens: Sequence[str], t_conv: int) -> str:
    steps, count, neurons = next(iter(trace.spikes.values())).shape
    part = [f"the first {count} of {len(tokens)} tokens"] * (count < len(tokens))
    part += [f"the first {steps} of {t_conv} steps"] * (steps < t_conv)
    return _picture(
        4,
        "raster",
        f"Raster of the spikes of each token of the example sentence over {steps} time steps, in the embeddings, the "
        "last context and the last output population.",
        "A band is a token, a row in it a neuron, a mark a spike"
        + (f" ({_listed(part)})" if part else "")
        + f". Of each population {neurons} neurons are shown, the same ones for every token, at evenly spaced ranks of "
        "activity from the busiest (top of each band) to the quietest. The current into the embeddings is "
        "constant, so their neurons keep a steady beat from the first step on; later populations are driven by spikes "
        "and need some steps to settle.",
        lambda: raster_figure(trace, tokens),
    )


def _score_picture(trace: Trace, results: Mapping[str, Any], true: float) -> str:
    steps = _last(results)["t"]
    return _picture(
        5,
        "probabilities",
        f"Score of the example pair over {steps} time steps, with the rate map's as a dashed line.",
        "What the student would answer if it were stopped after t steps: the score from the rates up to then. Dashed: "
        "from the rate map. Dotted: the true score. Triangles: the T evaluated. "
        f"After {steps} steps the score is {trace.probabilities[-1, 0]:.2f}, by the rate map {trace.limit[0]:.2f}; the "
        f"true score is {true:.2f}.",
        lambda: probability_figure(trace, ["score"], None, [row["t"] for row in results["spikes"]], true),
    )


def _probability_picture(trace: Trace, results: Mapping[str, Any], classes: Sequence[str], label: int | None) -> str:
    steps = _last(results)["t"]
    spikes, rates = (escape(classes[int(p.argmax())]) for p in (trace.probabilities[-1], trace.limit))
    return _picture(
        5,
        "probabilities",
        f"Class probabilities of the example sentence over {steps} time steps, with the rate map's as dashed lines.",
        "What the student would answer if it were stopped after t steps: softmax of the class scores from the rates up "
        "to then. Dashed: from the rate map. Triangles: the T evaluated. "
        f"After {steps} steps the answer is <i>{spikes}</i>, by the rate map <i>{rates}</i>"
        + (f"; the label is <i>{escape(classes[label])}</i>." if label is not None else "."),
        lambda: probability_figure(trace, classes, label, [row["t"] for row in results["spikes"]]),
    )


def _energy_picture(results: Mapping[str, Any]) -> str:
    steps = _last(results)["t"]
    return _picture(
        6,
        "energy",
        f"Left: firing rate of every population at T = {steps}, as bars. Right: energy gain against the number of time "
        "steps, with the break-even line at 1.",
        f"Left: mean firing rate of every population over the dev split at T = {steps}. Right: energy gain against the "
        "same-size network of ordinary units. Above the dashed line spiking costs less, below it more; every further "
        "step costs, so the gain falls like 1/T once the rates have settled.",
        lambda: energy_figure(results),
    )


def _models_table(run: Path, config: StudentConfig) -> str:
    def sizes(bert: BertConfig, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        numbers = [bert.num_hidden_layers, bert.hidden_size, bert.num_attention_heads, bert.intermediate_size]
        parameters = sum(int(np.prod(shape)) for shape in shapes.values())
        return [_grouped(number) for number in (*numbers, bert.vocab_size, parameters)]

    names = [
        "encoders",
        "width",
        "heads",
        "intermediate width",
        "vocabulary",
        "parameters",
        "spiking neurons per token",
    ]
    neurons = sum(population.width for population in config.network.populations)
    student = [*sizes(config.bert, config.shapes), _grouped(neurons)]
    path = run / "teacher" / "config.json"
    if not path.exists():
        return _table("Model", ["", "student"], zip(names, student, strict=True))
    values = read_json(path)
    bert = BertConfig.from_dict(values)
    teacher = [*sizes(bert, teacher_shapes(bert, values.get("num_labels", config.classes))), "–"]
    return _table("Models", ["", "teacher", "student"], zip(names, teacher, student, strict=True))


def _settings(
    run: Path,
    results: Mapping[str, Any],
    record: Mapping[str, Any],
    config: StudentConfig,
    log: Mapping[str, Sequence[Mapping[str, float]]],
) -> str:
    settings = record["settings"]
    recipe = settings["recipe"]
    timings = read_json(run / "timings.json") if (run / "timings.json").exists() else {}

    def value(x: Any, default: str = "–") -> str:
        return default if x is None else escape(str(x))

    stages = [
        [
            name,
            value(recipe.get(f"epochs_{name}")),
            value(recipe.get(f"lr_{name}") if recipe.get(f"epochs_{name}") else None),
            _grouped(log[name][-1]["step"]) if name in log else "–",
            _duration(timings[name]) if name in timings else "–",
        ]
        for name in STAGES
    ]
    stages.append(["evaluation", "–", "–", "–", _duration(results["seconds"]) if "seconds" in results else "–"])
    per_stage = {f"{what}_{name}" for what in ("epochs", "lr") for name in STAGES}
    options = [[f"<code>{escape(k)}</code>", value(v, "default")] for k, v in recipe.items() if k not in per_stage]
    then, now = record.get("versions", {}), results.get("versions", {})
    versions = [[escape(k), value(then.get(k)), value(now.get(k))] for k in dict.fromkeys([*then, *now])]
    teacher = settings.get("teacher")
    memory = results.get("peak_memory_mb")
    origin = [
        ["run", escape(run.resolve().name)],
        ["data", value(settings.get("data"))],
        ["teacher", "trained from scratch" if isinstance(teacher, dict) else value(teacher)],
        ["text of the general stage", value(settings.get("corpus"), "the task’s own")],
        ["peak memory of the evaluation", "–" if memory is None else f"{_grouped(memory)} MB"],
    ]
    tables = [
        _table("Stages", ["", "epochs", "learning rate", "steps", "time"], stages),
        _models_table(run, config),
        _table("Recipe", [], options, "words"),
        _table("Versions", ["", "training", "evaluation"], versions),
        _table("Sources and resources", [], origin, "words"),
    ]
    return '<div class="tables">\n' + "\n".join(tables) + "\n</div>"


def _page(
    run: Path,
    results: Mapping[str, Any],
    record: Mapping[str, Any],
    config: StudentConfig,
    trace: Trace,
    log: Mapping[str, Sequence[Mapping[str, float]]],
) -> str:
    recipe, example = record["settings"]["recipe"], results["example"]
    labels = TASKS[recipe["task"]].labels
    classes = [f"class {label}" if label.isdigit() else label for label in labels]
    label = labels.index(example["label"]) if example.get("label") in labels else None
    tokens = _tokens(run, config, example["ids"])
    if _regression(results):
        answer = _score_picture(trace, results, example["label"])
    else:
        answer = _probability_picture(trace, results, classes, label)
    task, rule = results["task"], results["rule"]
    tables = [
        _results_table(f"{task} {part['split']}, integration rule {rule}", part)
        for part in (results, *results["others"])
    ]
    agrees = "its correlation with the rate map" if _regression(results) else "names the same class as the rate map"
    sections = {
        "Results": "\n".join([*tables, NOTE.format(agrees=agrees), _accuracy_picture(results)]),
        "Training": _training_picture(log, recipe),
        "Do the spikes settle at the rate map?": _convergence_picture(trace, results, config),
        "One sentence, spike by spike": "<p>A sentence of typical length from the dev split:</p>\n"
        f"<blockquote>{escape(example.get('text', ''))}</blockquote>\n"
        f"{_raster_picture(trace, tokens, _last(results)['t'])}\n"
        f"{answer}",
        "Activity and energy": _energy_picture(results),
        "Settings": _settings(run, results, record, config, log),
    }
    title = f"A spiking student of BERT on {escape(results['task'])}"
    links = "\n".join(f'<a href="#section-{i}">{heading}</a>' for i, heading in enumerate(sections, 1))
    body = "\n".join(
        f'<section aria-labelledby="section-{i}">\n<h2 id="section-{i}">{heading}</h2>\n{content}\n</section>'
        for i, (heading, content) in enumerate(sections.items(), 1)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{CSS}\n</style>\n</head>\n<body>\n<main>\n"
        f"<header>\n<h1>{title}</h1>\n{_summary(results, recipe, config)}\n{_headline(results)}\n"
        f'<nav aria-label="sections">\n{links}\n</nav>\n</header>\n{body}\n</main>\n</body>\n</html>\n'
    )
