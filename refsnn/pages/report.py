"""One page about a run: what was done, how good the student is, and pictures of its spikes settling.

The page is drawn from the run's folder alone. The same folder gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.metrics import metric_name
from ..data.tasks import TASKS, Task
from ..data.tokenizer import load_tokenizer
from ..errors import InputError
from ..evaluation.observe import Trace, follow
from ..evaluation.published import ENERGY, GLUE, MEAN, RELEASED_LOG, SETTING
from ..files import read_json, write_text
from ..model.shapes import BertConfig, teacher_shapes
from ..model.student import StudentConfig
from ..readings.simulate import Rule
from ..storage.run import Run
from .document import Drawing, drawings, render
from .figures.accuracy import accuracy_figure
from .figures.energy import energy_figure, spent
from .figures.spikes import convergence_figure, probability_figure, raster_figure
from .figures.training import STAGES, training_figure
from .tables import break_even
from .words import (
    best_trade,
    duration,
    grouped,
    is_regression,
    last_row,
    main_metric,
    metric_sign,
    metric_title,
    metric_value,
    percent,
    population_title,
    times,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_report"]

#: A table: caption, head, rows. A cell is text, or a pair of text and a small remark.
Cell = str | tuple[str, str]
Table = tuple[str, Sequence[Cell], Sequence[Sequence[Cell]]]


def write_report(run: str | os.PathLike, rule: Rule | None = None) -> Path:
    """Write ``report.html`` into the folder of an evaluated run.

    Parameters
    ----------
    run : path
    rule : {"inst", "running"}, optional
        The integration rule that the pictures are of; the tables show every rule that the run was evaluated by.

    Returns
    -------
    path : Path
        The page; replaced in one go, so that an earlier one stays if anything fails.

    Raises
    ------
    InputError
        The run was not evaluated, or a file of it cannot be read.
    """
    opened = Run(run)
    found = {rule: _results(opened, rule) for rule in opened.evaluated()}
    if not found:
        raise InputError(f"{run} was not evaluated; run `refsnn evaluate {run}` first")
    results = found[next(iter(found)) if rule is None else rule]
    config, params = opened.student()
    example = results["example"]
    trace = follow(config, params, example["ids"], example["kinds"], last_row(results)["t"], results["rule"])
    page = _page(opened, results, [r for r in found.values() if r is not results], config, trace)
    path = opened.folder / "report.html"
    write_text(path, page)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# What the page is made from


def _results(run: Run, rule: Rule) -> dict[str, Any]:
    results = run.results(rule)
    assert results is not None  # `evaluated` lists no other
    return results | {"spikes": sorted(results["spikes"], key=lambda row: row["t"])}


def _tokens(run: Run, config: StudentConfig, ids: Sequence[int]) -> list[str]:
    """Spell the tokens of the example, or number them where the run's tokenizer cannot be read."""
    try:
        tokenizer = load_tokenizer(run, config.bert.vocab_size, max(len(ids), 2))
    except InputError:
        return [str(i) for i in ids]
    return [tokenizer.id_to_token(i) or str(i) for i in ids]


# ---------------------------------------------------------------------------------------------------------------------
# What the template is filled with


def _page(
    run: Run,
    results: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    config: StudentConfig,
    trace: Trace,
) -> str:
    recipe, last, metric = run.settings["recipe"], last_row(results), metric_title(results["metric"])
    trade, log, regression = best_trade(results), run.log(), is_regression(results)
    soft = recipe.get("targets", recipe.get("labels")) == "soft" and bool(run.task.labels)
    tokens, readout = _tokens(run, config, results["example"]["ids"]), config.network.readouts[-1]
    return render(
        "report.html",
        results=results,
        recipe=recipe,
        encoders=config.bert.num_hidden_layers,
        width=config.bert.hidden_size,
        stages=[name for name in ("general", "internal", "prediction") if recipe.get(f"epochs_{name}")],
        regression=regression,
        metric=metric,
        measure=metric[0].upper() + metric[1:],
        last=last,
        shown=trade or last,
        value=_headline(results, trade or last),
        remark=_remark(trade, results),
        equal={"shown": _break_even(trade or last), "last": _break_even(last)},
        tables=[
            _results_table(f"{found['task']} {part['split']}, integration rule {found['rule']}", part)
            for found in (results, *others)
            for part in (found, *found["others"])
        ],
        logged=list(log),
        soft=soft,
        leaks=config.neuron.leak != 1,
        silent=[population_title(name) for name, values in trace.distance.items() if not values.any()],
        ends=[trace.distance[name][-1] for name in ("embeddings", readout)],
        raster=_raster(trace, tokens, last["t"]),
        answers=_answers(trace, results, run.task),
        full=_full_count(results),
        paper=_beside_the_paper(run, results, config),
        described=_settings(run, results, config),
        drawn=_drawn(run, results, trace, tokens, log, soft),
    )


def _drawn(
    run: Run, results: Mapping[str, Any], trace: Trace, tokens: Sequence[str], log: Mapping[str, Any], soft: bool
) -> dict[str, Drawing]:
    example, task, evaluated = results["example"], run.task, [row["t"] for row in results["spikes"]]

    def probability() -> Figure:
        if is_regression(results):
            top = task.scale[1] if task.scale else 0.0
            return probability_figure(trace, ["score"], None, evaluated, example["label"], top)
        return probability_figure(trace, task.classes, _label(results, task), evaluated)

    return drawings(
        {
            "accuracy": lambda: accuracy_figure(results),
            **({"training": lambda: training_figure(log, soft, not task.labels)} if log else {}),
            "convergence": lambda: convergence_figure(trace),
            "raster": lambda: raster_figure(trace, tokens),
            "probabilities": probability,
            "energy": lambda: energy_figure(results),
        }
    )


def _headline(results: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    """Write the main metric of teacher, rate map, and the spikes of a row."""
    teacher, rate, spikes = main_metric(results)
    values = {"teacher": teacher, "rate": rate, "spikes": spikes[results["spikes"].index(row)]}
    return {who: metric_value(value, results["metric"]) for who, value in values.items()}


def _remark(trade: Mapping[str, Any] | None, results: Mapping[str, Any]) -> str:
    """Say what the spikes' answer costs at the T of the headline."""
    row = trade or last_row(results)
    paper = f"by the paper’s count (energy gain {times(row['energy_gain'])})"
    full = f"; by the full count the gain is {times(row['full']['gain'])}" if "full" in row else ""
    return f"the best T that saves energy {paper}{full}" if trade else f"no evaluated T saves energy {paper}{full}"


def _break_even(row: Mapping[str, Any]) -> str:
    return break_even(row).replace("'", "’") if "full" in row else ""


def _results_table(name: str, results: Mapping[str, Any]) -> Table:
    """Lay out the columns of `refsnn.pages.tables.results_table`."""
    metrics, counted = results["metrics"], any("full" in row for row in results["spikes"])
    known = [("teacher (BERT)", metrics["teacher"]), ("student, rate map", metrics["rate"])]
    if majority := results.get("majority"):
        known.insert(0, (f"always {majority['label']}", majority["metrics"]))
    rows: list[list[Cell]] = [[who, *map(percent, found.values()), *["–"] * (4 + counted)] for who, found in known]
    for row in results["spikes"]:
        cells = [*map(percent, row["metrics"].values()), percent(row["agreement"]), f"{row['firing_rate']:.3f}"]
        cells += [f"{row['norm_ops']:.2f}", times(row["energy_gain"])]
        rows.append([f"student, T = {row['t']}", *cells, *[times(row.get("full", {}).get("gain"))] * counted])
    head: list[Cell] = ["", *((metric_name(metric), metric_sign(metric)) for metric in metrics["teacher"])]
    head += [("agrees", "×100" if is_regression(results) else "%"), ("firing rate", "per step")]
    head += [("Norm#OPS", "relative"), ("energy gain", "times"), *[("full gain", "times")] * counted]
    return f"{name}, {results['examples']} examples", head, rows


def _raster(trace: Trace, tokens: Sequence[str], t_conv: int) -> dict[str, Any]:
    steps, count, neurons = next(iter(trace.spikes.values())).shape
    part = [f"the first {count} of {len(tokens)} tokens"] * (count < len(tokens))
    part += [f"the first {steps} of {t_conv} steps"] * (steps < t_conv)
    return {"steps": steps, "neurons": neurons, "part": part}


def _label(results: Mapping[str, Any], task: Task) -> int | None:
    label = results["example"].get("label")
    return task.labels.index(label) if label in task.labels else None


def _answers(trace: Trace, results: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Name what spikes and rate map answer on the example, and what is true."""
    found = {"spikes": trace.probabilities[-1], "rate": trace.limit}
    if is_regression(results):
        return {who: scores[0] for who, scores in found.items()} | {"label": results["example"]["label"]}
    label = _label(results, task)
    answers = {who: task.classes[int(scores.argmax())] for who, scores in found.items()}
    return answers | {"label": None if label is None else task.classes[label]}


def _full_count(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Lay out the full count at the largest T: what energy is spent on, and on how many operations."""
    row = last_row(results)
    if "full" not in row:
        return None
    counts = (row["full"], results["ordinary"])
    energy = [spent(count["picojoules"]) for count in counts]
    totals = [sum(by_label.values()) for by_label in energy]
    spending = [
        [
            label,
            *(f"{by_label.get(label, 0.0) / 1e6:.3f}" for by_label in energy),
            *(percent(by_label.get(label, 0.0) / total) for by_label, total in zip(energy, totals, strict=True)),
        ]
        for label in dict.fromkeys([*energy[0], *energy[1]])
    ]
    spending.append(["sum", *(f"{total / 1e6:.3f}" for total in totals), *map(percent, (1, 1))])
    operations = [
        [
            kind.replace("_", " "),
            f"{picojoules:g}",
            *(
                grouped(sum(n.get(kind, 0.0) for terms in count["operations"].values() for n in terms.values()))
                for count in counts
            ),
        ]
        for kind, picojoules in results["energies"].items()
    ]
    return {"spending": spending, "operations": operations}


def _beside_the_paper(run: Run, results: Mapping[str, Any], config: StudentConfig) -> dict[str, Any] | None:
    """Put the published figures beside the run's; None for text that the paper has no figure for."""
    recipe, task = run.settings["recipe"], run.task
    if results["task"] != task.folder or recipe["task"] not in GLUE:
        return None
    (teacher, rate, spikes), last = main_metric(results), last_row(results)["t"]
    ours = (percent(spikes[-1]), f"T\u202f=\u202f{last}")
    at = next((row for row in results["spikes"] if row["t"] == ENERGY["t"]), None)
    rows = [
        ["teacher", "–", percent(teacher)],
        ["student, rate map", "–", percent(rate)],
        ["student, spikes", f"{GLUE[recipe['task']]:.2f}", ours],
        [f"firing rate, T = {ENERGY['t']}", f"{ENERGY['firing_rate']}", f"{at['firing_rate']:.3f}" if at else "–"],
        [f"energy gain, T = {ENERGY['t']}", f"{ENERGY['gain']}×", times(at["energy_gain"]) if at else "–"],
    ]
    described = _our_setting(run.settings, config)
    every = [
        [TASKS[name].folder, f"{value:.2f}", ours if name == recipe["task"] else "–"] for name, value in GLUE.items()
    ]
    return {
        "name": f"{task.folder}, {metric_title(results['metric'])} ({metric_sign(results['metric'])})",
        "rows": rows,
        "every": [*every, ["mean", f"{MEAN:.2f}", "–"]],
        "setting": [[name, value, str(described[name])] for name, value in SETTING.items()],
        "other_metrics": len(task.metrics) > 1,
        "log": RELEASED_LOG if recipe["task"] == "sst2" else None,
    }


def _our_setting(settings: Mapping[str, Any], config: StudentConfig) -> dict[str, Any]:
    """Describe a run by the names of `refsnn.evaluation.published.SETTING`."""
    recipe, bert = settings["recipe"], config.bert
    teacher, general = settings.get("teacher"), settings.get("general")
    text = settings.get("corpus") or (f"that of {Path(general).name}" if general else "the task’s own")
    steps = "none in training, at equilibrium" if recipe.get("mode") == "equilibrium" else recipe.get("t_conv", "–")
    name = "–" if teacher is None else Path(str(teacher)).name
    own_thresholds = config.per_feature or any("vth" in own for own in config.populations.values())
    polarities = dict.fromkeys(p.neuron.polarity for p in config.network.populations if p.neuron is not None)
    return {
        "teacher": "trained from scratch" if isinstance(teacher, dict) else name,
        "encoders": bert.num_hidden_layers,
        "width": bert.hidden_size,
        "heads": bert.num_attention_heads,
        "intermediate width": bert.intermediate_size,
        "parameters": grouped(sum(int(np.prod(shape)) for shape in config.shapes.values())),
        "threshold V_th": f"{config.neuron.vth}{'; some populations have their own' * own_thresholds}",
        **({} if [*polarities] == ["unsigned"] else {"spikes": ", ".join(polarities)}),
        "time steps T": steps,
        "text of the general stage": text if recipe.get("epochs_general") or general else "–",
    }


def _models_table(run: Run, config: StudentConfig) -> Table:
    def sizes(bert: BertConfig, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        numbers = [bert.num_hidden_layers, bert.hidden_size, bert.num_attention_heads, bert.intermediate_size]
        parameters = sum(int(np.prod(shape)) for shape in shapes.values())
        return [grouped(number) for number in (*numbers, bert.vocab_size, parameters)]

    names = ["encoders", "width", "heads", "intermediate width", "vocabulary", "parameters"]
    names.append("spiking neurons per token")
    neurons = sum(population.width for population in config.network.populations)
    student = [*sizes(config.bert, config.shapes), grouped(neurons)]
    path = run.teacher_folder / "config.json"
    if not path.exists():
        return "Model", ["", "student"], list(zip(names, student, strict=True))
    values = read_json(path)
    bert = BertConfig.from_dict(values)
    teacher = [*sizes(bert, teacher_shapes(bert, values.get("num_labels", config.classes))), "–"]
    return "Models", ["", "teacher", "student"], list(zip(names, teacher, student, strict=True))


def _settings(run: Run, results: Mapping[str, Any], config: StudentConfig) -> list[tuple[Any, ...]]:
    """Lay out how the run was made: tables and their kind."""
    settings, log, timings = run.settings, run.log(), run.timings()
    recipe, teacher, memory = settings["recipe"], settings.get("teacher"), results.get("peak_memory_mb")

    def value(x: Any, default: str = "–") -> str:
        return default if x is None else str(x)

    stages = [
        [
            name,
            value(recipe.get(f"epochs_{name}")),
            value(recipe.get(f"lr_{name}") if recipe.get(f"epochs_{name}") else None),
            grouped(log[name][-1]["step"]) if name in log else "–",
            duration(timings[name]) if name in timings else "–",
        ]
        for name in STAGES
    ]
    stages.append(["evaluation", "–", "–", "–", duration(results["seconds"]) if "seconds" in results else "–"])
    per_stage = {f"{what}_{name}" for what in ("epochs", "lr") for name in STAGES}
    options = [[name, value(found, "default")] for name, found in recipe.items() if name not in per_stage]
    then, now = run.record.get("versions", {}), results.get("versions", {})
    versions = [[name, value(then.get(name)), value(now.get(name))] for name in dict.fromkeys([*then, *now])]
    origin = [
        ["run", run.folder.resolve().name],
        ["data", value(settings.get("data"))],
        ["teacher", "trained from scratch" if isinstance(teacher, dict) else value(teacher)],
        ["text of the general stage", value(settings.get("corpus"), "the task’s own")],
        ["peak memory of the evaluation", "–" if memory is None else f"{grouped(memory)} MB"],
    ]
    return [
        ("Stages", ["", "epochs", "learning rate", "steps", "time"], stages, "figures"),
        (*_models_table(run, config), "figures"),
        ("Recipe", [], options, "words keys"),
        ("Versions", ["", "training", "evaluation"], versions, "figures"),
        ("Sources and resources", [], origin, "words"),
    ]
