"""Evaluation of a finished run: accuracy by rate map and by spikes, firing rates, energy."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .distill import dev_sample, dev_split, load_student, load_teacher, run_tokenizer, versions
from .energy import count
from .errors import InputError
from .files import write_json
from .network import network_shapes
from .predict import accuracy, predict_rates, predict_spikes, predict_teacher
from .records import network_config, record, write_record
from .simulate import Rule
from .text import tokenise

__all__ = ["evaluate_run", "record_run", "table"]


def evaluate_run(
    run: str | os.PathLike,
    data: str | os.PathLike,
    t_conv: Sequence[int],
    rule: Rule = "inst",
    name: str | None = None,
) -> dict[str, Any]:
    """Evaluate a run's student on the dev split and write ``results.json`` into its folder.

    Parameters
    ----------
    run : path
    data : path
    t_conv : sequence of int
        Timesteps after which the spikes are read.
    rule : {"inst", "running"}
    name : str, optional
        What to call the data in tables and reports; the GLUE task's name by default.

    Returns
    -------
    results : dict
        As written: accuracies of teacher, rate map and spikes; for each T the mean firing rate of every population,
        Norm#OPS and the energy gain of the paper's count, and how often spikes and rate map agree.

    Raises
    ------
    InputError
        The run is not finished or the data cannot be read.
    """
    if not t_conv or min(t_conv) < 1:
        raise InputError(f"--t-conv is {list(t_conv)}, but a simulation takes at least one step")
    started = time.monotonic()
    run = Path(run)
    config, params = load_student(run)
    teacher_config, teacher_params = load_teacher(run)
    task, dataset = dev_split(run, data)
    examples = tokenise(dataset, task.sentences, run_tokenizer(run, config))

    teacher = predict_teacher(teacher_config, teacher_params, examples)
    rates = predict_rates(config, params, examples)
    network = config.network
    neurons = sum(population.width for population in network.populations)
    tokens = float(examples.lengths.mean())
    spikes = []
    for t, result in predict_spikes(config, params, examples, t_conv, rule).items():
        energy = count(network, result.firing_rates, t, tokens, rule)
        firing = sum(result.firing_rates[p.name] * p.width for p in network.populations) / neurons
        spikes.append(
            {
                "t": t,
                "accuracy": accuracy(result.logits, examples.labels),
                "agreement": accuracy(result.logits, rates.argmax(axis=-1)),
                "firing_rate": firing,
                "firing_rates": result.firing_rates,
                "norm_ops": energy.norm_ops,
                "energy_gain": energy.gain,
            }
        )
    shown = int(abs(examples.lengths - tokens).argmin())  # a sentence of typical length, for the pictures
    results = {
        "task": name or task.folder,
        "examples": len(examples),
        "mean_tokens": tokens,
        "rule": rule,
        "teacher_accuracy": accuracy(teacher, examples.labels),
        "rate_accuracy": accuracy(rates, examples.labels),
        "spikes": spikes,
        "example": {
            "text": " / ".join(dataset[shown][name] for name in task.sentences),
            "label": task.labels[int(examples.labels[shown])],
            "ids": examples.tokens[examples.starts[shown] : examples.starts[shown + 1]].tolist(),
            "kinds": examples.kinds[examples.starts[shown] : examples.starts[shown + 1]].tolist(),
        },
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": round(_peak_memory_mb()),
        "versions": versions(),
    }
    write_json(run / "results.json", results)
    return results


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def table(results: dict[str, Any]) -> str:
    """Format results for the terminal.

    Parameters
    ----------
    results : dict
        As from `evaluate_run`.

    Returns
    -------
    text : str
    """
    lines = [
        f"{results['task']} dev, {results['examples']} examples, integration rule {results['rule']}",
        "",
        f"{'':24}{'accuracy':>10}{'agrees':>9}{'firing':>9}{'Norm#OPS':>10}{'energy':>9}",
        f"{'':24}{'%':>10}{'%':>9}{'rate':>9}{'':>10}{'gain':>9}",
        f"{'teacher (BERT)':24}{100 * results['teacher_accuracy']:10.1f}",
        f"{'student, rate map':24}{100 * results['rate_accuracy']:10.1f}",
    ]
    for row in results["spikes"]:
        name = f"student, T = {row['t']}"
        lines.append(
            f"{name:24}{100 * row['accuracy']:10.1f}{100 * row['agreement']:9.1f}{row['firing_rate']:9.3f}"
            f"{row['norm_ops']:10.2f}{row['energy_gain']:8.2f}x"
        )
    lines += [
        "",
        "agrees: same class as the rate map. firing rate: spikes per neuron and step. energy gain: against the",
        "same-size network of ordinary units, by the paper's count (4.6 pJ a multiply-accumulate, 0.9 pJ an",
        "accumulate); below 1x the spiking network costs more.",
        f"{results['seconds']} s, peak memory {results['peak_memory_mb']} MB",
    ]
    return "\n".join(lines)


def record_run(
    run: str | os.PathLike, data: str | os.PathLike, out: str | os.PathLike, samples: int, t_conv: int, rule: Rule
) -> None:
    """Simulate the student of a run on a few dev sentences and write every spike.

    Parameters
    ----------
    run, data, out : path
    samples, t_conv : int
    rule : {"inst", "running"}
    """
    config, params = load_student(run)
    params = {name: params[name] for name in network_shapes(config.bert, config.feedback)}
    _, batch = dev_sample(run, data, config, samples)
    spikes = record(config.network, params, batch, t_conv, rule)
    described = network_config(config.bert, config.neuron, config.feedback)
    write_record(out, described, batch, spikes, rule, "float32", params)
