"""Evaluation of a finished run: the task's metrics by rate map and by spikes, firing rates, energy."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..data.examples import Examples, evenly, tokenise
from ..data.metrics import accuracy, agreement, decide, defined, majority, task_metrics
from ..data.reading import read_task
from ..data.tasks import TASKS, Task, column_names, splits
from ..data.tokenizer import load_tokenizer
from ..distillation.predict import predict_spikes, predict_teacher, solve_rates
from ..distillation.teacher import ready_head
from ..errors import InputError, one_of
from ..files import existing, read_json, write_json
from ..model.parameters import Params
from ..model.shapes import BertConfig
from ..model.student import StudentConfig
from ..ops import Array
from ..process import peak_memory
from ..readings.energy import Counts, Energies, by_kind, count, full_count
from ..readings.simulate import Rule, reading_times
from ..storage.checkpoints import class_names, load_teacher
from ..storage.run import Run, Stored, versions

__all__ = [
    "evaluate_run",
    "evaluate_teacher",
]


def evaluate_run(
    run: str | os.PathLike,
    data: str | os.PathLike | None,
    t_conv: Sequence[int],
    rule: Rule = "inst",
    name: str | None = None,
    columns: Sequence[str] = (),
    energies: Energies = Energies(),  # noqa: B008
    memory: bool = False,
    samples: int | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Evaluate a run's student on the dev split and write ``results-RULE.json`` into its folder.

    MNLI has two dev splits, matched and mismatched; the results of the second are in a list ``"others"``.

    Parameters
    ----------
    run : path
    data : path or None
        Where the dev split is; where the run's data were if None.
    t_conv : sequence of int
        Timesteps after which the spikes are read.
    rule : {"inst", "running"}
    name : str, optional
        What to call the data in tables and reports; the GLUE task's name by default.
    columns : sequence of str
        Pairs ``name=column``; by default those that the run was distilled with.
    energies : Energies
        What operations cost in the full count.
    memory : bool
        Whether memory traffic is charged too.
    samples : int, optional
        So many examples, evenly spaced over the split; all by default.
    executor : concurrent.futures.Executor, optional
        What computes the batches, as `refsnn.workers.executor` opens it; by default this process.

    Returns
    -------
    results : dict
        As written: the task's metrics of teacher, rate map and spikes, None where undefined; for each T the mean
        firing rate of every population, Norm#OPS, the energy gain and the break-even T of the paper's count, the same
        of the full count (``"full"``) with its operations and their energy per token, and how often spikes and rate
        map agree, or, of a regression, their correlation. ``"ordinary"`` has the full count of the same network with
        analogue units, ``"equilibrium"`` how well the rate map was solved (`refsnn.distillation.predict.solve_rates`).

    Raises
    ------
    InputError
        The run is not finished, the data cannot be read, or another process writes the same results.
    """
    t_conv = reading_times(t_conv)
    started = time.monotonic()
    opened = Run(run)
    config, params = opened.student()
    teacher_config, teacher_params = opened.teacher()
    if executor is not None:
        params, teacher_params = Stored(opened, "student"), Stored(opened, "teacher")
    task, parts = opened.task, opened.examples("dev", data, columns, samples)
    charged = energies if memory else energies.without_memory()
    one_of("rule", rule, get_args(Rule))
    with opened.held(f"results-{rule}"):
        first, *others = (
            {"split": part}
            | _measure(task, config, params, teacher_config, teacher_params, examples, t_conv, rule, charged, executor)
            for part, (_, examples) in parts.items()
        )
        results = {
            "task": name or task.folder,
            "rule": rule,
            "metric": task.metrics[0],
            **first,
            "others": others,
            "energies": asdict(energies),
            "memory": memory,
            "example": _example(task, *parts[first["split"]]),
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_mb": None if (peak := peak_memory()) is None else round(peak / 1024**2),
            "versions": versions(),
        }
        write_json(opened.results_file(rule), results)
    return results


def _example(task: Task, dataset: Any, examples: Examples) -> dict[str, Any]:
    """Pick a sentence of typical length, for the pictures."""
    shown = int(abs(examples.lengths - float(examples.lengths.mean())).argmin())
    label = examples.labels[shown]
    return {
        "text": " / ".join(dataset[shown][name] for name in task.sentences),
        "label": task.labels[label] if task.labels else float(label),
        "ids": examples.tokens[examples.starts[shown] : examples.starts[shown + 1]].tolist(),
        "kinds": examples.kinds[examples.starts[shown] : examples.starts[shown + 1]].tolist(),
    }


def evaluate_teacher(
    folder: str | os.PathLike,
    data: str | os.PathLike | None,
    task: str | None = None,
    columns: Sequence[str] = (),
    samples: int | None = None,
) -> list[tuple[str, Task, Array, Array]]:
    """Put the dev split to a fine-tuned BERT alone, such as the teacher of a run.

    Parameters
    ----------
    folder : path
        See `refsnn.storage.checkpoints.load_teacher`.
    data : path
        Where the dev split is.
    task : str, optional
        A key of `refsnn.data.tasks.TASKS`; by default a task of one's own, with the classes that ``id2label`` names.
    columns : sequence of str
        Pairs ``name=column``.
    samples : int, optional
        So many examples, evenly spaced over the split; all by default.

    Returns
    -------
    parts : list
        Of each part of the split, its name, the task, the class scores in the task's order, and the labels. Nothing is
        written.

    Raises
    ------
    InputError
        There is no such classifier, its classes are not the task's, or the data cannot be read.
    """
    folder = existing(folder, "the fine-tuned BERT")
    config, params = load_teacher(folder)
    if data is None:
        raise InputError(f"{folder} is a BERT, which remembers no data; say where they are with `data`")
    if task is not None and task not in TASKS:
        raise InputError(f"the task is {task!r}, but refsnn knows {', '.join(TASKS)}")
    chosen = TASKS[task] if task is not None else _own_task(folder, len(params["classifier.bias"]))
    params = params | ready_head(folder, params, chosen)
    tokenizer = load_tokenizer(folder, config.vocab_size, min(chosen.max_length, config.max_position_embeddings))
    parts = []
    for part in splits(chosen, data, "dev"):
        dataset = read_task(data, chosen, part, column_names(chosen, columns))
        examples = tokenise(evenly(dataset, samples), chosen.sentences, tokenizer)
        parts.append((part, chosen, predict_teacher(config, params, examples), examples.labels))
    return parts


def _own_task(folder: Path, classes: int) -> Task:
    """Describe the task of a classifier by the names of its classes."""
    names = class_names(folder / "config.json", classes) or tuple(map(str, range(classes)))
    pair = bool(read_json(folder / "config.json").get("pairs"))
    return Task.own("own", names if classes > 1 else (), pair)


def _measure(
    task: Task,
    config: StudentConfig,
    params: Params,
    teacher_config: BertConfig,
    teacher_params: Params,
    examples: Examples,
    t_conv: Sequence[int],
    rule: Rule,
    charged: Energies,
    executor: Executor | None,
) -> dict[str, Any]:
    """Metrics, firing rates and energy on one set of examples."""
    teacher = predict_teacher(teacher_config, teacher_params, examples, executor=executor)
    rates, solved = solve_rates(config, params, examples, executor=executor)
    network = config.network
    neurons = sum(population.width for population in network.populations)
    tokens = float(examples.lengths.mean())

    def right(logits: Array) -> float | None:
        return accuracy(decide(logits), examples.labels) if task.labels else None

    def answered(logits: Array) -> int | None:
        return len(np.unique(decide(logits))) if task.labels else None

    spikes = []
    for t, result in predict_spikes(config, params, examples, t_conv, rule, executor=executor).items():
        energy = count(network, result.firing_rates, t, tokens, rule)
        full = full_count(network, result.firing_rates, tokens, config.classes, rule)
        firing = sum(result.firing_rates[p.name] * p.width for p in network.populations) / neurons
        spikes.append(
            {
                "t": t,
                "accuracy": right(result.logits),
                "metrics": task_metrics(task, result.logits, examples.labels),
                "agreement": agreement(result.logits, rates),
                "classes_answered": answered(result.logits),
                "firing_rate": firing,
                "firing_rates": result.firing_rates,
                "norm_ops": energy.norm_ops,
                "energy_gain": defined(energy.gain),
                "break_even": defined(energy.break_even(t)),
                "full": {
                    "gain": defined(full.gain(t, charged)),
                    "break_even": defined(full.break_even(charged)),
                    **_priced(full.spiking(t), charged),
                },
            }
        )
    return {
        "examples": len(examples),
        "mean_tokens": tokens,
        "teacher_accuracy": right(teacher),
        "rate_accuracy": right(rates),
        "metrics": {
            "teacher": task_metrics(task, teacher, examples.labels),
            "rate": task_metrics(task, rates, examples.labels),
        },
        "majority": majority(task, examples.labels),
        "classes_answered": {"teacher": answered(teacher), "rate": answered(rates)},
        "equilibrium": solved,
        "spikes": spikes,
        "ordinary": _priced(full.ordinary, charged),  # the same at every T
    }


def _priced(counts: Counts, energies: Energies) -> dict[str, Any]:
    """Operations per token by kind of population, term and kind of operation, and the energy of each term."""
    operations = by_kind(counts)
    energy = {
        kind: {term: energies.of(numbers) for term, numbers in terms.items()} for kind, terms in operations.items()
    }
    return {"picojoules": energy, "operations": operations}
