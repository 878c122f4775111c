"""One page about a run: what was done, how good the student is, and pictures of its spikes settling.

The page is drawn from the run's folder alone. The same folder gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..data.metrics import metric_name
from ..data.tasks import TASKS
from ..data.tokenizer import load_tokenizer
from ..errors import InputError
from ..evaluation.observe import Trace, follow
from ..evaluation.published import ENERGY, GLUE, MEAN, RELEASED_LOG, SETTING
from ..files import read_json, write_text
from ..model.shapes import BertConfig, teacher_shapes
from ..model.student import StudentConfig
from ..readings.simulate import Rule
from ..storage.run import Run
from .document import document, html_table, picture
from .figures.accuracy import accuracy_figure
from .figures.energy import energy_figure, spent
from .figures.spikes import convergence_figure, probability_figure, raster_figure
from .figures.training import STAGES, training_figure
from .tables import break_even
from .words import (
    is_regression,
    last_row,
    main_metric,
    metric_sign,
    metric_title,
    metric_value,
    percent,
    population_title,
)

__all__ = ["write_report"]

#: What the columns of the table of results mean.
NOTE = """
<p class="note">Agrees: {agrees}. Firing rate: spikes per neuron and step. Norm#OPS:
synaptic operations over all T steps, relative to one pass of the ordinary network. Energy gain: against the same-size
network of ordinary units, by the paper’s count (4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate); below 1× the
spiking network costs more.</p>
""".strip()


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
# The page


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
    """Lay out the columns of `refsnn.pages.tables.results_table`."""
    none = ["–"] * 4
    rows = [
        [name, *map(percent, results["metrics"][who].values()), *none]
        for name, who in (("teacher (BERT)", "teacher"), ("student, rate map", "rate"))
    ]
    rows += [
        [
            f"student, T = {row['t']}",
            *map(percent, row["metrics"].values()),
            percent(row["agreement"]),
            f"{row['firing_rate']:.3f}",
            f"{row['norm_ops']:.2f}",
            f"{row['energy_gain']:.2f}×",
        ]
        for row in results["spikes"]
    ]
    head = [
        "",
        *(f"{metric_name(metric)}<small>{metric_sign(metric)}</small>" for metric in results["metrics"]["teacher"]),
    ]
    head += [f"agrees<small>{'×100' if is_regression(results) else '%'}</small>"]
    head += ["firing rate<small>per step</small>", "Norm#OPS<small>relative</small>", "energy gain<small>times</small>"]
    return html_table(f"{escape(name)}, {results['examples']} examples", head, rows)


def _summary(results: Mapping[str, Any], recipe: Mapping[str, Any], config: StudentConfig) -> str:
    """One paragraph in plain words, from the numbers."""
    last, encoders = last_row(results), config.bert.num_hidden_layers
    stages = [name for name in ("general", "internal", "prediction") if recipe.get(f"epochs_{name}")]
    gain = last["energy_gain"]
    cost = f"{gain:.2g} times less energy than" if gain >= 1 else f"{1 / gain:.2g} times the energy of"
    verdict = ""
    if "full" in last:
        equal = break_even(last).replace("'", "’")
        verdict = f" With this much firing the two cost the same at {equal}."
    metric, values = results["metric"], main_metric(results)
    teacher, rate, spikes = (metric_value(value, metric) for value in (*values[:2], values[2][-1]))
    if metric == "accuracy":
        is_good = f"names the right class in {teacher} of the cases. The student does so in {rate}"
        spikes = f"in {spikes}"
    else:
        is_good = (
            f"reaches a {metric_title(metric)} with the truth of {teacher} (times 100). The student reaches {rate}"
        )
    agree = percent(last["agreement"])
    same = f"correlate by {agree}" if is_regression(results) else f"name the same class in {agree}\u202f% of the cases"
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
    metric, (teacher, rate, spikes) = results["metric"], main_metric(results)
    numbers = {
        "teacher (BERT)": teacher,
        "student, rate map": rate,
        f"student, spikes, T = {last_row(results)['t']}": spikes[-1],
    }
    boxes = "\n".join(f"<div><dt>{name}</dt><dd>{metric_value(v, metric)}</dd></div>" for name, v in numbers.items())
    return f'<dl class="numbers" aria-label="{metric_title(metric)} on the dev split">\n{boxes}\n</dl>'


def _accuracy_picture(results: Mapping[str, Any]) -> str:
    times = [row["t"] for row in results["spikes"]]
    name = metric_title(results["metric"])
    name = name[0].upper() + name[1:]
    bars = ""
    if results["metric"] == "accuracy":
        bars = f" Bars: 95\u202f% intervals (Wilson) for {_grouped(results['examples'])} examples."
    return picture(
        1,
        "accuracy",
        f"{name} of the spiking student for T from {times[0]} to {times[-1]} time steps, with lines for the teacher "
        "and for the rate map.",
        f"{name} against the number of time steps T. With more steps the spikes should come to agree with the rate "
        f"map (dashed); any distance that remains to the teacher (black) comes from distillation.{bars}",
        lambda: accuracy_figure(results),
    )


def _training_picture(run: Run) -> str:
    log, recipe, regression = run.log(), run.settings["recipe"], not run.task.labels
    if not log:
        return "<p>The run’s folder has no training log (<code>log.jsonl</code>), so there are no curves to show.</p>"
    soft = recipe.get("targets", recipe.get("labels")) == "soft" and not regression
    return picture(
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
    last, steps = config.network.readouts[-1], last_row(results)["t"]
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
    silent = [population_title(name) for name, values in trace.distance.items() if not values.any()]
    if silent:
        caption += f"Exact at every T, and so without a line: {_listed(silent)}. "
    end = {name: f"{trace.distance[name][-1]:.2g}" for name in ("embeddings", last)}
    caption += (
        f"At T = {steps} the distance is {end['embeddings']} in the embeddings and {end[last]} in the last output."
    )
    return picture(
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
    return picture(
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


def _score_picture(trace: Trace, results: Mapping[str, Any], true: float, top: float) -> str:
    steps = last_row(results)["t"]
    return picture(
        5,
        "probabilities",
        f"Score of the example pair over {steps} time steps, with the rate map's as a dashed line.",
        "What the student would answer if it were stopped after t steps: the score from the rates up to then. Dashed: "
        "from the rate map. Dotted: the true score. Triangles: the T evaluated. "
        f"After {steps} steps the score is {trace.probabilities[-1, 0]:.2f}, by the rate map {trace.limit[0]:.2f}; the "
        f"true score is {true:.2f}.",
        lambda: probability_figure(trace, ["score"], None, [row["t"] for row in results["spikes"]], true, top),
    )


def _probability_picture(trace: Trace, results: Mapping[str, Any], classes: Sequence[str], label: int | None) -> str:
    steps = last_row(results)["t"]
    spikes, rates = (escape(classes[int(p.argmax())]) for p in (trace.probabilities[-1], trace.limit))
    return picture(
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
    steps, full = last_row(results)["t"], "full" in last_row(results)
    return picture(
        6,
        "energy",
        f"Left: firing rate of every population at T = {steps}, as bars. Right: energy gain against the number of time "
        "steps, with the break-even line at 1."
        + " Below: shares of the energy by what it is spent on, spiking and ordinary."
        * full,
        f"Left: mean firing rate of every population over the dev split at T = {steps}. Right: energy gain against the "
        "same-size network of ordinary units. Above the dashed line spiking costs less, below it more; every further "
        "step costs, so the gain falls like 1/T once the rates have settled."
        + " Below: what the energy is spent on, with its sum per token."
        * full,
        lambda: energy_figure(results),
    )


def _energy_tables(results: Mapping[str, Any]) -> str:
    """Lay out the full count at the largest T: what energy is spent on, and on how many operations."""
    row = last_row(results)
    if "full" not in row:
        return "<p>These results have no full count of operations; <code>refsnn evaluate</code> makes one.</p>"
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
                _grouped(sum(n.get(kind, 0.0) for terms in count["operations"].values() for n in terms.values()))
                for count in counts
            ),
        ]
        for kind, picojoules in results["energies"].items()
    ]
    who = [f"spiking<small>T = {row['t']}</small>", "ordinary<small>one pass</small>"]
    shares = ["spiking<small>%</small>", "ordinary<small>%</small>"]
    equal = break_even(row).replace("'", "’")
    return (
        "<p>The full count charges every operation, and not only what passes a synapse. Firing as in those "
        f"{row['t']} steps, the spiking network costs as much as the ordinary one at {equal}. Reading and writing of "
        f"memory is {'charged' if results['memory'] else 'counted, but not charged'}.</p>\n"
        '<div class="tables">\n'
        + html_table("Energy per token, µJ", ["", *who, *shares], spending)
        + "\n"
        + html_table("Operations per token", ["", "pJ<small>each</small>", *who], operations)
        + "\n</div>"
    )


def _beside_the_paper(run: Run, results: Mapping[str, Any], config: StudentConfig) -> str | None:
    """Put the published figures beside the run's; None for text that the paper has no figure for."""
    recipe, task = run.settings["recipe"], run.task
    if results["task"] != task.folder or recipe["task"] not in GLUE:
        return None
    (teacher, rate, spikes), last = main_metric(results), last_row(results)["t"]
    ours, head = f"{percent(spikes[-1])}<small> T\u202f=\u202f{last}</small>", ["", "published", "this run"]
    at = next((row for row in results["spikes"] if row["t"] == ENERGY["t"]), None)
    rows = [
        ["teacher", "–", percent(teacher)],
        ["student, rate map", "–", percent(rate)],
        ["student, spikes", f"{GLUE[recipe['task']]:.2f}", ours],
        [f"firing rate, T = {ENERGY['t']}", f"{ENERGY['firing_rate']}", f"{at['firing_rate']:.3f}" if at else "–"],
        [f"energy gain, T = {ENERGY['t']}", f"{ENERGY['gain']}×", f"{at['energy_gain']:.2f}×" if at else "–"],
    ]
    described = _our_setting(run.settings, config)
    setting = [[name, escape(value), escape(str(described[name]))] for name, value in SETTING.items()]
    every = [
        [TASKS[name].folder, f"{value:.2f}", ours if name == recipe["task"] else "–"] for name, value in GLUE.items()
    ]
    every.append(["mean", f"{MEAN:.2f}", "–"])
    note = (
        "Published by Bal &amp; Sengupta (AAAI-24, arXiv 2308.10873): one figure a task, on GLUE’s dev sets; firing "
        "rate and energy gain on SST-2. "
    )
    if len(task.metrics) > 1:
        note += f"Ours is {metric_title(task.metrics[0])}; the paper’s may be another metric. "
    if recipe["task"] == "sst2":
        note += (
            f"Of the {len(RELEASED_LOG)} evaluations in the log that comes with the authors’ program, the published "
            f"one is the best; the lowest is {min(RELEASED_LOG):.2f}. "
        )
    note += "Models and training differ as the settings say, so a distance is not the method’s alone."
    tables = [
        html_table(f"{task.folder}, {metric_title(results['metric'])} ({metric_sign(results['metric'])})", head, rows),
        html_table("Every task of the paper", head, every),
        html_table("Settings", head, setting),
    ]
    return f'<p class="note">{note}</p>\n<div class="tables">\n' + "\n".join(tables) + "\n</div>"


def _our_setting(settings: Mapping[str, Any], config: StudentConfig) -> dict[str, Any]:
    """Describe a run by the names of `refsnn.evaluation.published.SETTING`."""
    recipe, bert = settings["recipe"], config.bert
    teacher, general = settings.get("teacher"), settings.get("general")
    text = settings.get("corpus") or (f"that of {Path(general).name}" if general else "the task’s own")
    steps = "none in training, at equilibrium" if recipe.get("mode") == "equilibrium" else recipe.get("t_conv", "–")
    name = "–" if teacher is None else Path(str(teacher)).name
    own_thresholds = any("vth" in own for own in config.populations.values())
    return {
        "teacher": "trained from scratch" if isinstance(teacher, dict) else name,
        "encoders": bert.num_hidden_layers,
        "width": bert.hidden_size,
        "heads": bert.num_attention_heads,
        "intermediate width": bert.intermediate_size,
        "parameters": _grouped(sum(int(np.prod(shape)) for shape in config.shapes.values())),
        "threshold V_th": f"{config.neuron.vth}{'; some populations have their own' * own_thresholds}",
        "time steps T": steps,
        "text of the general stage": text if recipe.get("epochs_general") or general else "–",
    }


def _models_table(run: Run, config: StudentConfig) -> str:
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
    path = run.teacher_folder / "config.json"
    if not path.exists():
        return html_table("Model", ["", "student"], zip(names, student, strict=True))
    values = read_json(path)
    bert = BertConfig.from_dict(values)
    teacher = [*sizes(bert, teacher_shapes(bert, values.get("num_labels", config.classes))), "–"]
    return html_table("Models", ["", "teacher", "student"], zip(names, teacher, student, strict=True))


def _settings(
    run: Run,
    results: Mapping[str, Any],
    config: StudentConfig,
) -> str:
    settings, log, timings = run.settings, run.log(), run.timings()
    recipe = settings["recipe"]

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
    then, now = run.record.get("versions", {}), results.get("versions", {})
    versions = [[escape(k), value(then.get(k)), value(now.get(k))] for k in dict.fromkeys([*then, *now])]
    teacher = settings.get("teacher")
    memory = results.get("peak_memory_mb")
    origin = [
        ["run", escape(run.folder.resolve().name)],
        ["data", value(settings.get("data"))],
        ["teacher", "trained from scratch" if isinstance(teacher, dict) else value(teacher)],
        ["text of the general stage", value(settings.get("corpus"), "the task’s own")],
        ["peak memory of the evaluation", "–" if memory is None else f"{_grouped(memory)} MB"],
    ]
    tables = [
        html_table("Stages", ["", "epochs", "learning rate", "steps", "time"], stages),
        _models_table(run, config),
        html_table("Recipe", [], options, "words"),
        html_table("Versions", ["", "training", "evaluation"], versions),
        html_table("Sources and resources", [], origin, "words"),
    ]
    return '<div class="tables">\n' + "\n".join(tables) + "\n</div>"


def _page(
    run: Run,
    results: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    config: StudentConfig,
    trace: Trace,
) -> str:
    recipe, example = run.settings["recipe"], results["example"]
    labels, classes = run.task.labels, run.task.classes
    label = labels.index(example["label"]) if example.get("label") in labels else None
    tokens = _tokens(run, config, example["ids"])
    if is_regression(results):
        top = run.task.scale[1] if run.task.scale else 0.0
        answer = _score_picture(trace, results, example["label"], top)
    else:
        answer = _probability_picture(trace, results, classes, label)
    tables = [
        _results_table(f"{found['task']} {part['split']}, integration rule {found['rule']}", part)
        for found in (results, *others)
        for part in (found, *found["others"])
    ]
    agrees = "its correlation with the rate map" if is_regression(results) else "names the same class as the rate map"
    sections = {
        "Results": "\n".join([*tables, NOTE.format(agrees=agrees), _accuracy_picture(results)]),
        "Training": _training_picture(run),
        "Do the spikes settle at the rate map?": _convergence_picture(trace, results, config),
        "One sentence, spike by spike": "<p>A sentence of typical length from the dev split:</p>\n"
        f"<blockquote>{escape(example.get('text', ''))}</blockquote>\n"
        f"{_raster_picture(trace, tokens, last_row(results)['t'])}\n"
        f"{answer}",
        "Activity and energy": f"{_energy_picture(results)}\n{_energy_tables(results)}",
        **({"Beside the paper": beside} if (beside := _beside_the_paper(run, results, config)) else {}),
        "Settings": _settings(run, results, config),
    }
    title = f"A spiking student of BERT on {escape(results['task'])}"
    return document(title, f"{_summary(results, recipe, config)}\n{_headline(results)}", sections)
