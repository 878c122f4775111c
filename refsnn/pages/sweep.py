"""Pages of sweeps: one for each run, and one that compares several."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.metrics import Spread
from ..evaluation.sweep import group, own_setting, spreads
from ..files import atomic, write_text
from .document import drawings, render
from .figures.accuracy import Curve, Panel, lines_figure
from .figures.style import figure_style
from .tables import setting_title, shown_times
from .words import metric_sign, metric_title, metric_value, percent, plural, population_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_comparison", "write_sweep"]

RULES = ("inst", "running")


def write_sweep(result: Mapping[str, Any]) -> Path:
    """Write the page of a run's sweep, ``sweep.html``, and each of its figures as ``sweep-NAME.svg``, into its folder.

    Parameters
    ----------
    result : dict
        As from `refsnn.evaluation.sweep.sweep_run`.

    Returns
    -------
    path : Path
    """
    metric, own = result["metric"], result["settings"][0]
    values = {
        "teacher (BERT)": (result["teacher"] or {}).get(metric),
        "student, rate map": (own["rate"] or {}).get(metric),
        f"spikes, {own['rule']}, T = {own['rows'][-1]['t']}": own["rows"][-1]["metrics"][metric],
    }
    return _write(
        Path(result["run"]) / "sweep.html",
        _sections(result),
        result=result,
        run=Path(result["run"]).resolve().name,
        metric=metric_title(metric),
        numbers=[(name, "–" if v is None else metric_value(v, metric), "") for name, v in values.items()],
    )


def write_comparison(results: Sequence[Mapping[str, Any]]) -> Path:
    """Write the page that compares several runs, ``compare.html``, with its figures, into the folder of the first.

    Parameters
    ----------
    results : sequence of dict
        As from `refsnn.evaluation.sweep.sweep`.

    Returns
    -------
    path : Path
    """
    path = Path(results[0]["run"]) / "compare.html"
    return _write(path, _comparison(results), result=results[0], runs=len(results))


class Picture(NamedTuple):
    """A figure of a page, drawn when the page is written.

    Attributes
    ----------
    name : str
        Its id in the page, and a part of the name of its file.
    label : str
        What it shows, for readers who do not see it.
    caption : str
    draw : callable
        Returns the figure.
    """

    name: str
    label: str
    caption: str
    draw: Callable[[], Figure]


class Section(NamedTuple):
    """A part of a page: a figure, tables below it, or both.

    Attributes
    ----------
    picture : Picture or None
    tables : sequence
        Each with its caption, head and rows, and its kind if that is not figures.
    note : str
        Which of the template's remarks stands before the figure, if any.
    """

    picture: Picture | None
    tables: Sequence[Any] = ()
    note: str = ""


def _write(path: Path, sections: Mapping[str, Section], **values: Any) -> Path:
    """Write a page, and its figures by themselves too."""
    draw = {section.picture.name: section.picture.draw for section in sections.values() if section.picture}
    for name, figure in draw.items():
        with figure_style(), atomic(path.with_name(f"{path.stem}-{name}.svg")) as temporary:
            figure().savefig(temporary, format="svg", metadata={"Date": None})
    write_text(path, render(path.name, parts=sections, drawn=drawings(draw), **values))
    return path


# ---------------------------------------------------------------------------------------------------------------------
# One run


def _title(setting: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    return setting_title(setting, own).replace(" = ", "\u202f=\u202f")


def _sections(result: Mapping[str, Any]) -> dict[str, Section]:
    found, own = result["settings"], result["settings"][0]
    constant = [s for s in found if (s["vth"], s["leak"]) == (own["vth"], own["leak"])]
    thresholds = _varied(found, "vth")
    leaks = _varied(found, "leak")
    name = metric_title(result["metric"])
    sections: dict[str, Section] = {
        f"{name[0].upper()}{name[1:]} against T": _against_time(
            result, constant, "rules", "How many steps does an answer need?"
        )
    }
    if len(thresholds) > 1:
        sections["The threshold"] = _against_threshold(result, thresholds)
    if len(leaks) > 1:
        sections["The leak"] = _against_time(
            result, sorted(leaks, key=lambda s: -s["leak"]), "leaks", "IF neurons (leak = 1) and LIF neurons:"
        )
    sections["Stopping early"] = _stopping(result)
    sections["Firing rates"] = Section(None, [_rates_table(constant)])
    sections["Settings"] = Section(None, _settings_tables(result))
    return sections


def _varied(found: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """Find the settings that differ from the first by one constant only, and the first."""
    own = found[0]
    rest = [key for key in ("rule", "vth", "leak", "u0") if key != name]
    return [setting for setting in found if all(setting[key] == own[key] for key in rest)]


def _percentages(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else 100 * value for value in values]


def _levels(result: Mapping[str, Any], rate: Mapping[str, float] | None) -> dict[str, float]:
    """Heights of teacher and rate map, where they are known."""
    known = {"teacher": result["teacher"], "rate map": rate}
    values = {name: (metrics or {}).get(result["metric"]) for name, metrics in known.items()}
    return {name: 100 * value for name, value in values.items() if value is not None}


def _agrees(result: Mapping[str, Any]) -> str:
    return "correlation with the rate map (×100)" if result["regression"] else "same answer as the rate map (%)"


def _against_time(result: Mapping[str, Any], shown: Sequence[Mapping[str, Any]], name: str, question: str) -> Section:
    metric, own = result["metric"], result["settings"][0]

    def curves(value: Callable[[Mapping[str, Any]], float | None]) -> list[Curve]:
        return [
            Curve(
                setting_title(setting, own),
                [row["t"] for row in setting["rows"]],
                _percentages([value(row) for row in setting["rows"]]),
            )
            for setting in shown
        ]

    def draw() -> Figure:
        left = Panel(
            metric_title(metric),
            f"{metric_title(metric)} ({metric_sign(metric)})",
            curves(lambda row: row["metrics"][metric]),
            _levels(result, own["rate"]),
        )
        right = Panel("Agreement with the rate map", _agrees(result), curves(lambda row: row["agreement"]))
        return lines_figure([left, right], "time steps T")

    times = shown_times([row["t"] for row in own["rows"]])
    rows = [
        [
            _title(setting, own),
            *(percent(row["metrics"][metric]) for row in setting["rows"] if row["t"] in times),
            percent((setting["rate"] or {}).get(metric)),
            f"{setting['rows'][-1]['firing_rate']:.3f}",
        ]
        for setting in shown
    ]
    head = [
        "",
        *(f"T\u202f=\u202f{t}" for t in times),
        "rate map",
        ("firing rate", f"at T = {own['rows'][-1]['t']}"),
    ]
    caption = (
        f"{question} Left: {metric_title(metric)} of the answers after T steps; lines: teacher and rate map. Right: "
        "whether those are the answers of the rate map with the same constants."
    )
    label = (
        f"{metric_title(metric)} and agreement with the rate map against the number of time steps, one line a setting."
    )
    table = (f"{metric_title(metric)} ({metric_sign(metric)})", head, rows)
    return Section(Picture(name, label, caption, draw), [table])


def _against_threshold(result: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> Section:
    metric, own = result["metric"], result["settings"][0]
    found = sorted(found, key=lambda setting: setting["vth"])
    grid = [setting["vth"] for setting in found]
    rows = {row["t"]: i for i, row in enumerate(own["rows"])}
    times = shown_times(list(rows))[::-2][:4][::-1]

    def curves(value: Callable[[Mapping[str, Any]], float | None]) -> list[Curve]:
        return [
            Curve(f"T = {t}", grid, _percentages([value(setting["rows"][rows[t]]) for setting in found])) for t in times
        ]

    def draw() -> Figure:
        rates = _percentages([(setting["rate"] or {}).get(metric) for setting in found])
        accuracies = [*curves(lambda row: row["metrics"][metric]), Curve("rate map", grid, rates)]
        left = Panel(metric_title(metric), f"{metric_title(metric)} ({metric_sign(metric)})", accuracies)
        right = Panel("Firing rate", "spikes per 100 neurons and step", curves(lambda row: row["firing_rate"]))
        return lines_figure([left, right], "threshold V_th", in_time=False)

    head = ["V_th", *(f"T\u202f=\u202f{t}" for t in times), "rate map", ("firing rate", f"at T = {max(rows)}")]
    body = [
        [
            f"{setting['vth']:g}",
            *(percent(setting["rows"][rows[t]]["metrics"][metric]) for t in times),
            percent((setting["rate"] or {}).get(metric)),
            f"{setting['rows'][-1]['firing_rate']:.3f}",
        ]
        for setting in found
    ]
    table = (f"{metric_title(metric)} ({metric_sign(metric)}), rule {own['rule']}", head, body)
    label = f"{metric_title(metric)} and firing rate against the threshold, one line for each number of time steps."
    caption = (
        f"The student was trained with V_th = {own['vth']:g} and is simulated, and its rate map computed, with others. "
        "A higher threshold means fewer spikes, and rates that the next population was not trained for."
    )
    return Section(Picture("thresholds", label, caption, draw), [table])


def _stopping(result: Mapping[str, Any]) -> Section:
    metric = result["metric"]
    shown = {rule: setting for rule in RULES if (setting := own_setting(result, rule))}

    def draw() -> Figure:
        panels = []
        for rule, setting in shown.items():
            values = _percentages([row["metrics"][metric] for row in setting["rows"]])
            curves = [Curve("the same T for all", [row["t"] for row in setting["rows"]], values)]
            curves += [
                Curve(name, [p["mean_t"] for p in points], _percentages([p["value"] for p in points]))
                for name, points in setting["early"].items()
            ]
            levels = {k: v for k, v in _levels(result, setting["rate"]).items() if k == "rate map"}
            panels.append(Panel(f"Rule {rule}", f"{metric_title(metric)} ({metric_sign(metric)})", curves, levels))
        return lines_figure(panels, "time steps, mean over the examples")

    rows = [
        [
            f"{rule}, {name}",
            f"{point['level']:.3g}",
            f"{point['mean_t']:.1f}",
            percent(point["value"]),
            percent(point["fixed"]),
        ]
        for rule, setting in shown.items()
        for name, points in setting["early"].items()
        for point in points
        if point["mean_t"] <= 0.5 * setting["rows"][-1]["t"]
    ]
    label = f"{metric_title(metric)} against the mean number of steps, for early stopping and for a fixed T."
    caption = "Early stopping against a fixed T. A rule pays where its line lies above the blue one."
    head = ["", "level θ", "mean T", (metric_title(metric), metric_sign(metric)), "fixed T"]
    table = ("Up to half of the largest T", head, rows)
    return Section(Picture("stopping", label, caption, draw), [table], "stopping")


def _rates_table(shown: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    own = shown[0]
    head = ["population", *(_title(setting, own) for setting in shown)]
    rows = [
        [population_title(name), *(f"{setting['rows'][-1]['firing_rates'][name]:.3f}" for setting in shown)]
        for name in own["rows"][-1]["firing_rates"]
    ]
    return f"Spikes per neuron and step over T = {own['rows'][-1]['t']} steps", head, rows


def _settings_tables(result: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    trained, own = result["trained"], result["settings"][0]
    return [
        ("Trained with", [], [[key, str(value)] for key, value in trained["recipe"].items()], "words keys"),
        ("Time of each simulation", [], [[_title(s, own), f"{s['seconds']:.1f} s"] for s in result["settings"]]),
        ("Versions", [], [[key, str(value)] for key, value in result["versions"].items()], "words"),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Several runs


def _comparison(results: Sequence[Mapping[str, Any]]) -> dict[str, Section]:
    metric = results[0]["metric"]
    groups = group(results)
    found = {label: spreads(runs) for label, runs in groups.items()}
    rules = [rule for rule in RULES if all(rule in spread["spikes"] for spread in found.values())]

    def panel(rule: str, key: str, title: str, ylabel: str) -> Panel:
        curves = []
        for label, spread in found.items():
            times = list(spread[key][rule])
            mean, low, high = (_percentages(part) for part in zip(*spread[key][rule].values(), strict=True))
            curves.append(Curve(label, times, mean, low, high) if len(groups[label]) > 1 else Curve(label, times, mean))
        return Panel(title, ylabel, curves)

    def draw() -> Figure:
        ylabel = f"{metric_title(metric)} ({metric_sign(metric)})"
        return lines_figure([panel(rule, "spikes", f"Rule {rule}", ylabel) for rule in rules], "time steps T")

    def draw_agreement() -> Figure:
        panels = [panel(rule, "agreement", f"Rule {rule}", _agrees(results[0])) for rule in rules]
        return lines_figure(panels, "time steps T")

    name = metric_title(metric)
    name = name[0].upper() + name[1:]
    runs = [
        [label, Path(run["run"]).resolve().name, str(run["trained"]["recipe"].get("seed", "–"))]
        + [percent((run["teacher"] or {}).get(metric)), percent((run["settings"][0]["rate"] or {}).get(metric))]
        + [percent(run["settings"][0]["rows"][-1]["metrics"][metric])]
        for label, of in groups.items()
        for run in of
    ]
    last = results[0]["settings"][0]["rows"][-1]["t"]
    head = ["", "run", "seed", "teacher", "rate map", f"inst, T = {last}"]
    against = Picture(
        "runs",
        f"{name} against the number of time steps, a line for each kind of run.",
        f"{name} after T steps.",
        draw,
    )
    agreement = Picture(
        "agreement",
        "Agreement with the rate map against the number of time steps.",
        "How far the answers after T steps are those of the run’s own rate map.",
        draw_agreement,
    )
    every = (f"Every run: {metric_title(metric)} ({metric_sign(metric)})", head, runs)
    return {
        f"{name} against T": Section(against, [_spread_table(found, groups, rules, metric)]),
        "Agreement with the rate map": Section(agreement),
        "Runs": Section(None, [every]),
    }


def _spread_table(
    found: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[Any]], rules: Sequence[str], metric: str
) -> tuple[Any, ...]:
    rows = [["teacher", *(_range(spread["teacher"]) for spread in found.values())]]
    rows.append(["rate map", *(_range(spread["rate"]) for spread in found.values())])
    for rule in rules:
        for t in shown_times(list(next(iter(found.values()))["spikes"][rule])):
            rows.append([f"{rule}, T = {t}", *(_range(spread["spikes"][rule][t]) for spread in found.values())])
    head = ["", *((label, plural(len(groups[label]), "run")) for label in found)]
    return f"{metric_title(metric)} ({metric_sign(metric)}): mean (lowest–highest)", head, rows


def _range(spread: Spread) -> str:
    if math.isnan(spread.mean) or spread.low == spread.high:
        return percent(spread.mean)
    return f"{percent(spread.mean)} ({percent(spread.low)}–{percent(spread.high)})"
