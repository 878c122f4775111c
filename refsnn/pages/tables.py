"""Results as tables of text, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.metrics import Spread, decide, hundredfold, majority, metric_name, task_metrics
from ..data.tasks import Task
from ..evaluation.solvers import Solved
from ..evaluation.sweep import group, own_setting, spreads
from ..ops import Array
from ..readings.certify import DECADES, Verdict

__all__ = [
    "break_even",
    "comparison_table",
    "dev_line",
    "margin_histogram",
    "one_class",
    "results_table",
    "setting_title",
    "shown_times",
    "solvers_table",
    "sweep_table",
    "unsolved",
    "verdict_table",
]


def results_table(results: dict[str, Any]) -> str:
    """Format results for the terminal.

    Parameters
    ----------
    results : dict
        As from `evaluate_run`.

    Returns
    -------
    text : str
    """
    regression = results["teacher_accuracy"] is None
    lines = []
    for part in (results, *results["others"]):
        metrics = list(part["metrics"]["teacher"])
        percent = ["%" if metric in ("accuracy", "f1") else "x100" for metric in metrics]
        lines += [
            f"{results['task']} {part['split']}, {part['examples']} examples, integration rule {results['rule']}",
            "",
            f"{'':24}{_cells(map(metric_name, metrics))}{'agrees':>9}{'firing':>9}{'Norm#OPS':>10}"
            f"{'energy':>9}{'full':>9}",
            f"{'':24}{_cells(percent)}{'x100' if regression else '%':>9}{'rate':>9}{'':>10}{'gain':>9}{'gain':>9}",
            *_majority_row(part),
            f"{'teacher (BERT)':24}{_cells(map(hundredfold, part['metrics']['teacher'].values()))}",
            f"{'student, rate map':24}{_cells(map(hundredfold, part['metrics']['rate'].values()))}",
        ]
        for row in part["spikes"]:
            name = f"student, T = {row['t']}"
            lines.append(
                f"{name:24}{_cells(map(hundredfold, row['metrics'].values()))}{hundredfold(row['agreement']):>9}"
                f"{row['firing_rate']:9.3f}{row['norm_ops']:10.2f}{_times(row['energy_gain']):>9}"
                f"{_times(row['full']['gain']):>9}"
            )
        lines.append(f"break-even, firing as in those {row['t']} steps: {break_even(row)}")
        lines += one_class(part)
        if solved := part["equilibrium"]:
            lines.append(f"rate map: residual up to {solved['residual']:.1e}, {solved['sweeps']:.1f} sweeps on average")
        lines.append("")
    agrees = "Pearson's correlation with the rate map" if regression else "same class as the rate map"
    lines += [
        f"agrees: {agrees}. firing rate: spikes per neuron and step. energy gain: against the",
        "same-size network of ordinary units, by the paper's count (4.6 pJ a multiply-accumulate, 0.9 pJ an",
        "accumulate); full gain: by every operation, memory traffic "
        f"{'included' if results['memory'] else 'left out'} (docs/energy.md); below 1x the",
        "spiking network costs more.",
    ]
    if any("-" in line.split() for line in lines):
        lines.append("-: undefined, as all predictions, or all true scores, are the same.")
    memory = f", peak memory {results['peak_memory_mb']} MB" if results["peak_memory_mb"] else ""
    return "\n".join([*lines, f"{results['seconds']} s{memory}"])


def _majority_row(part: Mapping[str, Any]) -> list[str]:
    if not (majority := part.get("majority")):
        return []
    return [f"{'always ' + majority['label']:24.24}{_cells(map(hundredfold, majority['metrics'].values()))}"]


def one_class(part: Mapping[str, Any]) -> list[str]:
    """Say where a student gives every text the same class, and what to try.

    Parameters
    ----------
    part : mapping
        Results on one set of examples.

    Returns
    -------
    lines : list of str
        Empty where nothing does.
    """
    where = ["the rate map"] if part.get("classes_answered", {}).get("rate") == 1 else []
    where += [f"T = {row['t']}" for row in part["spikes"] if row.get("classes_answered") == 1]
    if not where or part["examples"] < 2:
        return []
    advice = (
        "a larger T, or the rule running"
        if where[0] != "the rate map"
        else ("more epochs, another learning rate, a start from the teacher (init = converted)")
    )
    return [f"gives every text the same class at {', '.join(where)}; try {advice}"]


def dev_line(stage: str, task: Task, logits: Array, labels: Array) -> str:
    """Say what a stage of training has reached on the dev split.

    Parameters
    ----------
    stage : str
    task : Task
    logits : (n, classes) array
    labels : (n,) array

    Returns
    -------
    line : str

    Examples
    --------
    >>> from refsnn.data.tasks import TASKS
    >>> dev_line("teacher", TASKS["sst2"], np.array([[0.0, 1], [0, 1], [1, 0]]), np.array([1, 1, 1]))
    'teacher: dev accuracy 66.7 %; always positive 100.0 %'
    """
    metric = task.metrics[0]
    value = hundredfold(task_metrics(task, logits, labels)[metric])
    line = f"{stage}: dev {metric_name(metric).lower()} {value}{' %' if metric == 'accuracy' else ' x100'}"
    if base := majority(task, labels):
        line += f"; always {base['label']} {hundredfold(base['metrics'][metric])}{' %' if metric == 'accuracy' else ''}"
        if len(np.unique(decide(logits))) == 1:
            line += "; it gives every text the same class"
    return line


def break_even(row: Mapping[str, Any]) -> str:
    """Say at which T spiking costs as much as the ordinary network, by both counts.

    Parameters
    ----------
    row : mapping
        Results of the spikes after some T.

    Returns
    -------
    text : str
    """
    paper, full = (
        "no T" if t is None else f"T = {t:.1f}" if t >= 1 else "T < 1"
        for t in (row["break_even"], row["full"]["break_even"])
    )
    return f"{paper} by the paper's count, {full} by the full count"


def _times(gain: float | None) -> str:
    return "-" if gain is None else f"{gain:.2f}x"


def _cells(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>10}" for cell in cells)


def shown_times(times: Sequence[int], most: int = 9) -> list[int]:
    """Choose the T that tables show: all where they are few, or else powers of two, or else some.

    Parameters
    ----------
    times : sequence of int
    most : int

    Returns
    -------
    shown : list of int

    Examples
    --------
    >>> from refsnn.evaluation.sweep import TIMES
    >>> shown_times(TIMES)
    [1, 2, 4, 8, 16, 32, 64, 128, 256]
    >>> shown_times([3, 5])
    [3, 5]
    """
    if len(times) <= most:
        return list(times)
    powers = [t for t in times if t & (t - 1) == 0]
    if 3 <= len(powers) <= most:
        return powers
    return [times[i] for i in np.linspace(0, len(times) - 1, most).astype(int)]


def setting_title(setting: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Name a setting by its rule and by what the run was not trained with.

    Parameters
    ----------
    setting, own : mapping
        Of a result's settings; the first of them is the run's own.

    Returns
    -------
    title : str

    Examples
    --------
    >>> own = {"rule": "inst", "vth": 1.0, "leak": 1.0, "u0": 0.0}
    >>> setting_title(own | {"u0": 0.5}, own)
    'inst, u0 = 0.5'
    """
    names = {"vth": "V_th", "leak": "leak", "u0": "u0"}
    changed = [f"{name} = {setting[key]:g}" for key, name in names.items() if setting[key] != own[key]]
    return ", ".join([setting["rule"], *changed])


def sweep_table(result: Mapping[str, Any]) -> str:
    """Format the sweep of one run.

    Parameters
    ----------
    result : dict
        As from `sweep_run`.

    Returns
    -------
    text : str
    """
    metric, found = result["metric"], result["settings"]
    own = found[0]
    times = shown_times([row["t"] for row in own["rows"]])
    constants = f"V_th = {own['vth']:g}, leak = {own['leak']:g}, u0 = {own['u0']:g}"
    lines = [
        f"{result['run']}: {result['task']} {result['split']}, {result['examples']} examples, trained with {constants}"
    ]
    if result["teacher"]:
        lines.append(f"teacher (BERT): {metric_name(metric)} {hundredfold(result['teacher'][metric])}")
    blocks: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        (f"{metric_name(metric)} after T steps", lambda row: hundredfold(row["metrics"][metric])),
        ("agrees with the rate map", lambda row: hundredfold(row["agreement"])),
        ("spikes per neuron and step", lambda row: f"{row['firing_rate']:.3f}"),
    ]
    for number, (name, cell) in enumerate(blocks):
        last = "rate map" if number == 0 else ""
        lines += ["", f"{name:28}" + "".join(f"{t:>7}" for t in times) + f"{last:>10}".rstrip()]
        for setting in found:
            cells = "".join(f"{cell(row):>7}" for row in setting["rows"] if row["t"] in times)
            rate = hundredfold((setting["rate"] or {}).get(metric)) if last else ""
            lines.append(f"{setting_title(setting, own):28}{cells}{rate:>10}".rstrip())
    lines += unsolved(found, own)
    lines += ["", f"{'early stopping':28}{'level':>9}{'mean T':>9}{metric_name(metric):>10}{'fixed T':>10}"]
    for setting in filter(None, (own_setting(result, rule) for rule in ("inst", "running"))):
        for name, points in setting["early"].items():
            means = np.array([point["mean_t"] for point in points])
            for i in dict.fromkeys(int(np.abs(np.log(means / t)).argmin()) for t in times):
                cells = "".join(f"{hundredfold(points[i][key]):>10}" for key in ("value", "fixed"))
                who = f"{setting['rule']}, {name}"
                lines.append(f"{who:28}{points[i]['level']:9.3g}{means[i]:9.1f}{cells}")
    agrees = "Pearson's correlation with" if result["regression"] else "same answer as"
    lines += [
        "",
        f"agrees: {agrees} the rate map of the same constants. fixed T: all examples stopped at the same",
        "T, with the same mean. Shares in percent, correlations times 100.",
    ]
    return "\n".join(lines)


def unsolved(found: Sequence[Mapping[str, Any]], own: Mapping[str, Any]) -> list[str]:
    """Explain why settings of a sweep have no rate map.

    Parameters
    ----------
    found : sequence of dict
        The ``"settings"`` of `refsnn.evaluation.sweep.sweep_run`.
    own : dict
        The first, with the constants of the run.

    Returns
    -------
    lines : list of str
        Empty where every setting has one.
    """
    return [
        f"no rate map with {setting_title(setting, own)}: {setting['unsolved']}"
        for setting in found
        if setting.get("unsolved")
    ]


def comparison_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Format several runs side by side, runs that differ by their seed alone as mean and range.

    Parameters
    ----------
    results : sequence of dict
        As from `sweep`.

    Returns
    -------
    text : str
    """
    metric = results[0]["metric"]
    lines = [f"{metric_name(metric)} x 100 of {len(results)} runs; of several seeds: mean (lowest to highest)"]
    for label, runs in group(results).items():
        found = spreads(runs)
        seeds = ", ".join(str(run["trained"]["recipe"].get("seed", "-")) for run in runs)
        lines += ["", f"{label}: {len(runs)} run{'s' * (len(runs) > 1)}, seed{'s' * (len(runs) > 1)} {seeds}"]
        lines += [f"  {name:22}{_range(found[key])}" for name, key in (("teacher", "teacher"), ("rate map", "rate"))]
        for rule, by_time in found["spikes"].items():
            for t in shown_times(list(by_time)):
                agrees = _range(found["agreement"][rule][t])
                lines.append(f"  {f'{rule}, T = {t}':22}{_range(by_time[t]):24}agrees {agrees}")
    return "\n".join(lines)


def _range(found: Spread) -> str:
    if math.isnan(found.mean):
        return "-"
    if found.low == found.high:
        return f"{100 * found.mean:.1f}"
    return f"{100 * found.mean:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def solvers_table(rows: list[Solved]) -> str:
    """Format the comparison for the terminal.

    Parameters
    ----------
    rows : list of Row

    Returns
    -------
    text : str
    """
    lines = [f"{'method':24}{'products':>9}{'seconds':>9}{'true residual':>15}{'gradient error':>16}"]
    for row in rows:
        residual = "" if row.solution is None else f"{row.solution.residual.max():.1e}"
        lines.append(f"{row.method:24}{row.products:9d}{row.seconds:9.3f}{residual:>15}{row.error:16.1e}")
    reference = "the dense solve" if any(row.method == "dense" for row in rows) else "GMRES at 1e-13"
    lines.append(f"\nproducts: with the transposed derivative of a sweep; gradient error: against {reference}")
    return "\n".join(lines)


def verdict_table(verdicts: Mapping[str, Verdict]) -> str:
    """Lay verdicts out, a line a population, and say the outcome.

    Parameters
    ----------
    verdicts : mapping

    Returns
    -------
    text : str
    """
    heads = ("decisions", "spikes", "ties", "undecidable", "by rounding", "wrong", "largest bound")
    lines = [f"{'population':<28}" + "".join(f"{head:>14}" for head in heads)]
    for name, v in verdicts.items():
        counts = (v.decisions, v.spikes, v.ties, v.undecidable, v.by_rounding, v.wrong)
        lines.append(f"{name:<28}" + "".join(f"{count:>14,}" for count in counts) + f"{v.largest_bound:>14.1e}")
    total = {name: sum(getattr(v, name) for v in verdicts.values()) for name in ("decisions", "by_rounding", "wrong")}
    outcome = "WRONG" if total["wrong"] else "consistent"
    lines += [
        "",
        f"{outcome}: of {total['decisions']:,} decisions {total['wrong']:,} are wrong and {total['by_rounding']:,} "
        "differ from ours within rounding",
    ]
    first = [(v.first_wrong.t, name) for name, v in verdicts.items() if v.first_wrong]
    if first:
        t = min(t for t, _ in first)
        name = next(name for name in verdicts if (t, name) in first)  # firing order within the step
        lines.append(f"the first wrong decision is of {name}: {verdicts[name].first_wrong}")
    return "\n".join(lines)


def margin_histogram(verdicts: Mapping[str, Verdict], columns: int = 60) -> str:
    """Draw the margins of all populations together as text: how far from the threshold decisions were taken.

    Parameters
    ----------
    verdicts : mapping
    columns : int
        Length of the longest bar.

    Returns
    -------
    text : str
    """
    counts = np.sum([v.margins for v in verdicts.values()], axis=0)
    longest = max(int(counts.max()), 1)
    lines = ["margin |u − V_th|/V_th"]
    for decade, count in zip(DECADES, counts, strict=True):
        if count:
            ends = f"below 1e{decade + 1:+03d}" if decade == DECADES[0] else f"1e{decade:+03d} … 1e{decade + 1:+03d}"
            lines.append(f"{ends:>15}  {'█' * -(-int(count) * columns // longest)} {count:,}")
    return "\n".join(lines)
