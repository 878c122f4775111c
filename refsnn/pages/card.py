"""A student to publish: a folder that `refsnn.load` and the Hugging Face hub read, with a model card.

The card says what the student was measured to do, from the run's own results, and certifies some of its spikes. Nothing
in it is taken on trust, and no path of this machine is in it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._version import __version__
from ..data.tasks import Task
from ..errors import InputError, whole
from ..evaluation.record import record_run
from ..files import new_folder, write_text
from ..models import Student, load
from ..readings.certify import Verdict
from ..readings.simulate import Rule, timesteps
from ..storage.digests import file_digest
from ..storage.records import certify_record
from ..storage.run import Run
from .words import metric_title, percent, plural, times

__all__ = ["pack_run"]


def pack_run(
    run: str | os.PathLike,
    out: str | os.PathLike,
    *,
    licence: str,
    data: str | os.PathLike | None = None,
    columns: Sequence[str] = (),
    samples: int = 4,
    t_conv: int = 32,
    rule: Rule = "running",
) -> Path:
    """Write a run's student as a folder to publish: configuration, weights, tokenizer and a model card, ``README.md``.

    Parameters
    ----------
    run : path
        A finished run that was evaluated.
    out : path
        A folder that is empty or not there yet.
    licence : str
        Licence of the weights, as the hub spells it, such as ``"apache-2.0"``. Whether the licences of teacher and data
        allow for it is for you to know.
    data : path, optional
        Where the dev split is; where the run's data were by default.
    columns : sequence of str
        Pairs ``name=column``; by default those that the run was distilled with.
    samples : int
        Dev sentences whose spikes are certified.
    t_conv : int
        For how many time steps.
    rule : {"inst", "running"}
        By which integration rule.

    Returns
    -------
    folder : Path

    Raises
    ------
    InputError
        The run is not finished or was not evaluated, a decision of its spikes is wrong, or the folder is not empty.
    """
    opened = Run(run)
    evaluated: dict[str, Any] = {name: found for name in opened.evaluated() if (found := opened.results(name))}
    if not evaluated:
        raise InputError(
            f"{run} was not evaluated, so that a card has nothing to say; run `refsnn evaluate` on it first"
        )
    samples, t_conv = whole("samples", samples), timesteps("t_conv", t_conv)
    student = load(run)
    assert isinstance(student, Student)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spikes.safetensors"
        record_run(run, opened.data(data), path, samples, t_conv, rule, columns)
        _, verdicts = certify_record(path)
    if wrong := sum(verdict.wrong for verdict in verdicts.values()):
        raise InputError(f"{wrong} spike decisions of {run} are wrong, which is a mistake of refsnn; please report it")
    place = new_folder(out)
    if any(place.iterdir()):
        raise InputError(f"{place} is not empty; name a new folder, so that nothing else is published with the student")
    student.save(place)
    about = {"samples": samples, "t_conv": t_conv, "rule": rule}
    card = model_card(opened, student, evaluated, _certificate(verdicts, about), licence)
    digest = file_digest(place / "model.safetensors")
    write_text(place / "README.md", f"{card}\nSHA-256 of `model.safetensors`: `{digest}`\n")
    return place


def model_card(
    run: Run, student: Student, evaluated: Mapping[str, Mapping[str, Any]], certificate: str, licence: str
) -> str:
    """Write the card: front matter for the hub, and Markdown for people."""
    task, recipe, first = run.task, run.recipe, next(iter(evaluated.values()))
    bert, neuron, teacher = student.config.bert, student.config.neuron, _teacher(run)
    trained = [
        f"{stage} {epochs:g}"
        for stage in ("teacher", "general", "internal", "prediction")
        if (epochs := getattr(recipe, f"epochs_{stage}"))
    ]
    example = '("a man sleeps", "he rests")' if student.pairs else '"a gripping, funny film"'
    return f"""\
{_front_matter(task, first, evaluated, teacher, licence)}
# A spiking student of BERT on {first["task"]}

{plural(bert.num_hidden_layers, "spiking encoder")} of width {bert.hidden_size}, made with
[refsnn](https://github.com/refsnn/refsnn) {__version__} from the BERT {teacher or "of the run"}, after SpikingBERT
(Bal & Sengupta, AAAI-24, arXiv 2308.10873).

```python
import refsnn

student = refsnn.load("THE ID OR FOLDER OF THIS MODEL")
student.predict([{example}])                                 # at the equilibrium of the rates
student.predict([{example}], t_conv=16, rule="running")      # by spikes, counted over 16 time steps
```

## Data and training

| | |
|---|---|
| task | {first["task"]}{"" if task.labels else ", a regression"} |
| classes | {", ".join(student.classes) or "–"} |
| teacher | {teacher or "a BERT of one's own"} |
| the student starts | {_START[recipe.init]} |
| epochs | {", ".join(trained) or "none"} |
| neurons | threshold {neuron.vth:g}, leak {neuron.leak:g}, first charge {neuron.u0:g}, {neuron.polarity} |
| seed | {recipe.seed} |
| longest text | {plural(recipe.limit, "token")} |
| licence of the weights | {licence} |

The data have licences of their own; GLUE's tasks are at <https://gluebenchmark.com/tasks>.

## Measured

{metric_title(first["metric"]).capitalize()} on the {first["examples"]} examples of the {first["split"]} split: teacher
{percent(first["metrics"]["teacher"][first["metric"]])}, student at the equilibrium
{percent(first["metrics"]["rate"][first["metric"]])}; by spikes, after T time steps:

{_measured(evaluated)}

Agrees: share of the examples where spikes and equilibrium say the same; of a regression their correlation. Firing
rate: spikes per neuron and step. Energy gain: the ordinary network's energy over the spiking one's, by the paper's
count and by every operation; below 1× the spiking network costs more.

## Certificate

{certificate}

## Limits

One seed, one task, English text as in the data. A difference of a point or so may be chance. The energies are counts of
operations, no measurement of a chip.
"""


#: How a student's start is described.
_START = {
    "random": "at random",
    "teacher": "with the teacher's weights",
    "converted": "with the teacher's weights, converted so that its rates are images of the teacher's activities",
}


def _teacher(run: Run) -> str:
    """Name the teacher: a hub id as it is, a folder by its last part."""
    given = run.settings.get("teacher")
    if not isinstance(given, str):
        return ""
    return Path(given).name if os.path.isabs(given) or given.startswith(".") or Path(given).exists() else given


def _front_matter(
    task: Task, first: Mapping[str, Any], evaluated: Mapping[str, Mapping[str, Any]], teacher: str, licence: str
) -> str:
    """Write what the hub reads. JSON is YAML, and has no surprises."""
    metric = first["metric"]
    results = [
        {
            "task": {"type": "text-classification"},
            "dataset": {"type": "glue", "name": first["task"], "split": first["split"]},
            "metrics": [
                {"type": metric, "value": round(row["metrics"][metric], 4), "name": f"{rule}, T = {row['t']}"}
                for rule, found in evaluated.items()
                for row in found["spikes"]
                if row["metrics"][metric] is not None
            ],
        }
    ]
    values: dict[str, Any] = {
        "license": licence,
        "library_name": "refsnn",
        "pipeline_tag": "text-classification",
        "tags": ["spiking-neural-network", "spikingbert", task.name],
        "model-index": [{"name": f"spiking-bert-{task.name}", "results": results}],
    }
    if "/" in teacher:
        values["base_model"] = teacher
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in values.items()), "---", ""])


def _measured(evaluated: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out a row for each rule and T."""
    head = ["rule", "T", "metric", "agrees", "firing rate", "energy gain", "full gain"]
    rows: list[Sequence[str]] = [head, ["---"] * len(head)]
    for rule, found in evaluated.items():
        rows += [
            [
                rule,
                str(row["t"]),
                percent(row["metrics"][found["metric"]]),
                percent(row["agreement"]),
                f"{row['firing_rate']:.3f}",
                times(row["energy_gain"]),
                times((row.get("full") or {}).get("gain")),
            ]
            for row in found["spikes"]
        ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _certificate(verdicts: Mapping[str, Verdict], about: Mapping[str, Any]) -> str:
    """Say what the certificate of some sentences' spikes found."""
    total = {
        name: sum(getattr(verdict, name) for verdict in verdicts.values())
        for name in ("decisions", "wrong", "by_rounding", "undecidable")
    }
    sentences, steps = plural(about["samples"], "dev sentence"), plural(about["t_conv"], "step")
    return (
        f"Every spike decision of {sentences} over {steps} (rule {about['rule']}, float32) was checked against the "
        f"equations: of {total['decisions']:,} decisions {total['wrong']:,} are wrong, {total['by_rounding']:,} differ "
        f"within rounding, and {total['undecidable']:,} lie so near the threshold that rounding alone could decide "
        "either way."
    )
