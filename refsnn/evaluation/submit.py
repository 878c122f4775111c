"""Submission files: a student's predictions on GLUE's test sets, whose labels are not public."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.metrics import decide
from ..data.tasks import Task
from ..distillation.predict import predict_rates, predict_spikes
from ..errors import InputError
from ..files import new_folder, write_text
from ..ops import Array
from ..readings.simulate import Rule, timesteps
from ..storage.run import Run

__all__ = ["submission", "submit"]


def submission(task: Task, index: Sequence[str], logits: Array) -> str:
    """Write predictions as GLUE wants them: labels as the official files spell them, or scores.

    Parameters
    ----------
    task : Task
    index : sequence of str
        Numbers of the examples.
    logits : (n, classes) array

    Returns
    -------
    text : str
        Contents of a TSV file.

    Examples
    --------
    >>> from refsnn.data.tasks import TASKS
    >>> submission(TASKS["rte"], ["0", "1"], np.array([[1.0, 2.0], [3.0, 0.0]])).split()
    ['index', 'prediction', '0', 'not_entailment', '1', 'entailment']
    >>> submission(TASKS["stsb"], ["7"], np.array([[5.2]])).split()
    ['index', 'prediction', '7', '5.0000']
    """
    found = decide(logits)
    if task.labels:
        predictions = [task.labels[i] for i in found]
    else:
        predictions = [f"{score:.4f}" for score in (found if task.scale is None else np.clip(found, *task.scale))]
    rows = [f"{i}\t{prediction}\n" for i, prediction in zip(index, predictions, strict=True)]
    return "index\tprediction\n" + "".join(rows)


def submit(
    run: str | os.PathLike,
    data: str | os.PathLike,
    out: str | os.PathLike,
    t_conv: int | None = None,
    rule: Rule = "inst",
    columns: Sequence[str] = (),
) -> list[Path]:
    """Predict the test split of a run's task and write GLUE's submission files.

    Parameters
    ----------
    run, data : path
    out : path
        A ``.tsv`` file; or a folder, in which the files have the names that GLUE expects.
    t_conv : int, optional
        Timesteps after which the spikes are read; by default the rate map decides.
    rule : {"inst", "running"}
    columns : sequence of str
        Pairs ``name=column``; by default those that the run was distilled with.

    Returns
    -------
    paths : list of Path
        What was written: one file, or two for MNLI.

    Raises
    ------
    InputError
        The run is not finished, the data cannot be read, or one file was named for two test sets.
    """
    t_conv = None if t_conv is None else timesteps("t_conv", t_conv)
    opened = Run(run)
    config, params = opened.student()
    task, parts = opened.task, opened.examples("test", data, columns)
    folder = Path(out).is_dir() or Path(out).suffix != ".tsv"
    if not folder and len(parts) > 1:
        raise InputError(f"{out} is one file, but {task.folder} has {len(parts)} test sets; name a folder with `out`")
    if folder and not set(parts) <= {"test" + part for part in task.parts}:
        names = " or ".join(f"{task.folder}{ending}.tsv" for ending in task.parts.values())
        raise InputError(
            f"{opened.data(data)} is one of the test sets of {task.folder}; name the file to write, {names}, with `out`"
        )
    new_folder(out if folder else Path(out).parent)
    written = []
    for part, (dataset, examples) in parts.items():
        if t_conv is None:
            logits = predict_rates(config, params, examples)
        else:
            logits = predict_spikes(config, params, examples, [t_conv], rule, activity=False)[t_conv].logits
        path = Path(out)
        if folder:
            path /= f"{task.folder}{task.parts[part.removeprefix('test')]}.tsv"
        write_text(path, submission(task, dataset["index"], logits))
        written.append(path)
    return written
