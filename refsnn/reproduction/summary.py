"""The results of a whole plan: gathered, as a table of text, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.metrics import defined, metric_name, spread
from ..data.tasks import TASKS
from ..errors import InputError
from ..evaluation.published import GLUE
from ..pages.document import drawings, render
from ..pages.figures.accuracy import Curve, Panel, lines_figure
from ..pages.words import metric_sign, times
from ..readings.simulate import Rule
from ..storage.recipe import Recipe
from ..storage.run import Run, versions
from .plan import Plan
from .progress import duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "summarise",
]


def summarise(plan: Plan, out: Path, made: bool = False) -> dict[str, Any]:
    """Gather the results of all runs of a finished plan.

    Parameters
    ----------
    plan : Plan
    out : Path
    made : bool
        Whether text and teacher are made up.

    Returns
    -------
    results : dict
        Under ``"tasks"``, of each task its first GLUE metric for the teacher, the rate map and the spikes: mean, lowest
        and highest over the seeds, and all values, as fractions; and the published figure, None where there is none.
    """
    tasks = []
    for name in plan.tasks:
        folders = [out / name / f"seed-{seed}" for seed in plan.seeds]
        found = {rule: [_found(folder, rule) for folder in folders] for rule in plan.evaluation.rules}
        first = found[plan.evaluation.rules[0]]
        metric = TASKS[name].metrics[0]
        spikes = [
            {
                "rule": rule,
                "t": row["t"],
                **_over_seeds([run["spikes"][i]["metrics"][metric] for run in runs]),
                "firing_rate": spread([run["spikes"][i]["firing_rate"] for run in runs]).mean,
                "energy_gain": defined(spread([run["spikes"][i]["energy_gain"] for run in runs]).mean),
                "full_gain": defined(spread([run["spikes"][i]["full"]["gain"] for run in runs]).mean),
            }
            for rule, runs in found.items()
            for i, row in enumerate(runs[0]["spikes"])
        ]
        tasks.append(
            {
                "task": name,
                "name": first[0]["task"],
                "metric": metric,
                "split": first[0]["split"],
                "examples": first[0]["examples"],
                "teacher": _over_seeds([run["metrics"]["teacher"][metric] for run in first]),
                "rate": _over_seeds([run["metrics"]["rate"][metric] for run in first]),
                "spikes": spikes,
                "published": None if made else GLUE.get(name),
                "seeds": plan.seeds,
                "seconds": round(sum(map(_seconds, folders)), 1),
                "runs": [folder.relative_to(out).as_posix() for folder in folders],
            }
        )
    general = [out / name for name in ("pretrained", "general") if (out / name).exists()]
    return {
        "plan": plan.source,
        "made_up": made,
        "tasks": tasks,
        "general_seconds": round(sum(map(_seconds, general)), 1),
        "recipes": {"general": _differing(plan.general)} | {name: _differing(r) for name, r in plan.tasks.items()},
        "versions": versions(),
    }


def _over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    mean, least, greatest = map(defined, spread(values))
    return {"mean": mean, "least": least, "greatest": greatest, "values": list(values)}


def _found(run: Path, rule: Rule) -> dict[str, Any]:
    results = Run(run).results(rule)
    if results is None:
        raise InputError(f"{run} was not evaluated by rule {rule}; run the plan again")
    return results


def _seconds(run: Path) -> float:
    opened = Run(run)
    evaluations = (_found(run, rule)["seconds"] for rule in opened.evaluated())
    return sum(opened.timings().values()) + sum(evaluations)


def _differing(recipe: Recipe) -> dict[str, Any]:
    """Pick what of a recipe is not the default."""
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe) if field.name not in ("task", "seed")}
    defaults = {field.name: field.default for field in fields(recipe)}
    return {name: value for name, value in values.items() if value != defaults[name]}


def _head(results: Mapping[str, Any]) -> list[str]:
    times = dict.fromkeys(f"T = {row['t']}" for row in results["tasks"][0]["spikes"])
    published = ["published"] * _is_published(results)
    return ["task", "metric", "rule", "teacher", "rate map", *times, *published, "seeds", "time"]


def _rows(results: Mapping[str, Any], form: str) -> list[list[str]]:
    """Lay out a line for each task and rule; `form` says how a mean and its range are written."""

    def cell(row: Mapping[str, Any], value: Mapping[str, Any]) -> str:
        if value["mean"] is None:
            return "–"
        mean, *ends = (f"{100 * value[key]:.1f}" for key in ("mean", "least", "greatest"))
        return form.format(mean, "–".join(ends)) if len(row["seeds"]) > 1 else mean

    lines = []
    for row in results["tasks"]:
        published = ["–" if row["published"] is None else f"{row['published']:.1f}"] * _is_published(results)
        for rule in dict.fromkeys(spikes["rule"] for spikes in row["spikes"]):
            values = [row["teacher"], row["rate"], *(spikes for spikes in row["spikes"] if spikes["rule"] == rule)]
            cells = [row["name"], metric_name(row["metric"]), rule, *(cell(row, value) for value in values), *published]
            lines.append([*cells, ", ".join(map(str, row["seeds"])), duration(row["seconds"])])
    return lines


def text_table(results: Mapping[str, Any]) -> str:
    """Lay out the results for the terminal.

    Parameters
    ----------
    results : dict
        As from `reproduce`.

    Returns
    -------
    text : str
    """
    rows = [_head(results), *_rows(results, "{} ({})")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, "", NOTE.format(seeds=_of_seeds(results), general=duration(results["general_seconds"]))])


#: What the table means.
NOTE = (
    "Metrics in percent{seeds}. Rate map: the student at the equilibrium of its rates; T: by spikes counted over "
    "T time steps.\nTime: of one task, all its seeds; the stages before the tasks took {general}."
)


def _is_published(results: Mapping[str, Any]) -> bool:
    return any(row["published"] is not None for row in results["tasks"])


def _of_seeds(results: Mapping[str, Any]) -> str:
    return ": mean (min–max) over the seeds" if len(results["tasks"][0]["seeds"]) > 1 else ""


def _figure(results: Mapping[str, Any]) -> Figure:
    """Draw every task's metric against T, three tasks side by side."""

    def hundred(value: float | None) -> float:
        return nan if value is None else 100 * value

    panels = []
    for row in results["tasks"]:
        curves = []
        for rule in dict.fromkeys(spikes["rule"] for spikes in row["spikes"]):
            found = [spikes for spikes in row["spikes"] if spikes["rule"] == rule]
            mean, low, high = ([hundred(spikes[key]) for spikes in found] for key in ("mean", "least", "greatest"))
            shaded = (low, high) if len(row["seeds"]) > 1 else (None, None)
            curves.append(Curve(f"spikes, {rule}", [spikes["t"] for spikes in found], mean, *shaded))
        levels = {"teacher": hundred(row["teacher"]["mean"]), "rate map": hundred(row["rate"]["mean"])}
        if row["published"] is not None:
            levels["published"] = row["published"]
        name = f"{metric_name(row['metric'])} ({metric_sign(row['metric'])})"
        panels.append(Panel(row["name"], name, curves, levels))
    return lines_figure(panels, "time steps T", columns=3)


def plan_page(results: Mapping[str, Any], out: Path) -> str:
    """Compose the page of a plan; it links to the pages of those runs that have one in the folder."""
    tasks = results["tasks"]
    seeds = {
        row["name"]: [
            (seed, f"{run}/report.html" if (out / run / "report.html").exists() else None)
            for run, seed in zip(row["runs"], row["seeds"], strict=True)
        ]
        for row in tasks
    }
    return render(
        "plan.html",
        results=results,
        plan=Path(results["plan"]).name,
        general=results["recipes"]["general"].get("epochs_general") != 0,
        head=_head(results),
        rows=[(line[:-2], seeds[line[0]], line[-1].replace(" ", "\u202f")) for line in _rows(results, "{} ({})")],
        note=NOTE.format(seeds=_of_seeds(results), general=duration(results["general_seconds"])),
        published=_is_published(results),
        drawn=drawings({"tasks": lambda: _figure(results)}),
        energy=[
            [
                f"{row['name']}, T = {spikes['t']}, {spikes['rule']}",
                f"{spikes['firing_rate']:.3f}",
                times(spikes["energy_gain"]),
                times(spikes["full_gain"]),
            ]
            for row in tasks
            for spikes in row["spikes"]
        ],
        recipes=[
            [name, ", ".join(f"{key} {value}" for key, value in recipe.items()) or "as by default"]
            for name, recipe in results["recipes"].items()
        ],
        versions=[[name, value] for name, value in results["versions"].items()],
    )
