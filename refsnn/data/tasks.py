"""GLUE's tasks, what sets each apart, and your own tasks. `docs/tasks.md` describes their files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = [
    "HUB",
    "TASKS",
    "Task",
    "column_names",
    "splits",
]

#: What stands for the Hugging Face hub instead of a folder or a file.
HUB = "hub"


@dataclass(frozen=True)
class Task:
    """What sets a task apart.

    Attributes
    ----------
    folder : str
        Name of its folder in the official archive, and of its submission; of your own task, its name.
    sentences : tuple of str
        One or two columns of text.
    labels : tuple of str
        The labels as the official files spell them; their places are the class indices, in the order of the Hugging
        Face data set. None at all: the label is a score, and the task a regression.
    names : tuple of str
        What that data set calls the classes whose labels are numbers, in the same order.
    max_length : int
        Default limit in tokens, [CLS] and [SEP] included.
    metrics : tuple of str
        GLUE's metrics for the task, functions of `refsnn.data.metrics`; pictures and headlines show the first.
    aliases : mapping
        What official or Hugging Face's files call a column, where it is neither its name here nor `index` or `idx`.
    header : tuple of str
        Columns of official files that have no header.
    unlabelled : tuple of str
        Labels whose rows are left out of train and dev files; "" also stands for rows of too few or many fields.
    parts : mapping
        Ending of the dev and test splits' names -> ending of the submission's name.
    scale : (float, float) or None
        Lowest and highest score of a regression; any number where None.
    """

    folder: str
    sentences: tuple[str, ...] = ("sentence1", "sentence2")
    labels: tuple[str, ...] = ("0", "1")
    names: tuple[str, ...] = ()
    max_length: int = 128
    metrics: tuple[str, ...] = ("accuracy",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=lambda: {"": ""})
    scale: tuple[float, float] | None = None

    @classmethod
    def own(cls, name: str, labels: Sequence[str], pair: bool = False) -> Task:
        """Describe your own task: texts or pairs of texts with classes, or with scores.

        Parameters
        ----------
        name : str
        labels : sequence of str
            As the files spell them; their places are the class indices. None at all for a regression.
        pair : bool
            Whether there are two texts, `sentence1` and `sentence2`, and not one, `sentence`.

        Returns
        -------
        task : Task

        Raises
        ------
        InputError
            There is one label only, a label twice, or the name is that of a GLUE task.

        Examples
        --------
        >>> task = Task.own("reviews", ["bad", "fair", "good"])
        >>> task.sentences, task.outputs, task.metrics, Task.own("stars", []).metrics
        (('sentence',), 3, ('accuracy',), ('pearson', 'spearman'))
        """
        if name in TASKS:
            raise InputError(f"{name} is one of GLUE's tasks, whose labels are known; give a task of your own another")
        if len(labels) == 1 or len(set(labels)) < len(labels) or "" in labels:
            raise InputError(f"the labels are {', '.join(labels)}, but a task has two different ones or more")
        sentences = ("sentence1", "sentence2") if pair else ("sentence",)
        metrics = ("accuracy",) if labels else ("pearson", "spearman")
        return cls(name, sentences, tuple(labels), tuple(labels), metrics=metrics)

    def to_dict(self) -> dict[str, Any]:
        """Return what `own` needs to make the task again, for JSON.

        Returns
        -------
        values : dict
        """
        return {"name": self.folder, "labels": list(self.labels), "pair": len(self.sentences) == 2}

    @property
    def name(self) -> str:
        """What the command line and the hub call it."""
        return self.folder.lower().replace("-", "")

    @property
    def outputs(self) -> int:
        """Outputs of a classifier: one for each label, or one that is the score."""
        return len(self.labels) or 1

    @property
    def classes(self) -> tuple[str, ...]:
        """What pages call the classes: names, or else labels, with numbers as "class 0"; empty for a regression."""
        return self.names or tuple(f"class {label}" if label.isdigit() else label for label in self.labels)


ENTAILMENT = ("entailment", "not_entailment")

TASKS = {
    task.name: task
    for task in (
        Task(
            "CoLA",
            ("sentence",),
            names=("unacceptable", "acceptable"),
            max_length=64,
            metrics=("matthews",),
            header=("source", "label", "mark", "sentence"),
        ),
        Task("SST-2", ("sentence",), names=("negative", "positive"), max_length=64),
        Task(
            "MRPC",
            names=("not_equivalent", "equivalent"),
            metrics=("accuracy", "f1"),
            aliases={"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
        ),
        Task("STS-B", labels=(), metrics=("pearson", "spearman"), aliases={"label": "score"}, scale=(0.0, 5.0)),
        Task(
            "QQP",
            ("question1", "question2"),
            names=("not_duplicate", "duplicate"),
            metrics=("accuracy", "f1"),
            aliases={"label": "is_duplicate", "index": "id"},
            unlabelled=("",),  # line ends within questions break rows of train.tsv in two
        ),
        Task(
            "MNLI",
            labels=("entailment", "neutral", "contradiction"),
            aliases={"sentence1": "premise", "sentence2": "hypothesis", "label": "gold_label"},
            unlabelled=("-",),  # the annotators did not agree
            parts={"_matched": "-m", "_mismatched": "-mm"},
        ),
        Task("QNLI", ("question", "sentence"), ENTAILMENT),
        Task("RTE", labels=ENTAILMENT),
        Task("WNLI", names=ENTAILMENT[::-1]),
    )
}


def splits(task: Task, data: str | os.PathLike, split: str) -> list[str]:
    """Name the parts of the dev or test split, as `read_task` wants them: one, but two for MNLI.

    Parameters
    ----------
    task : Task
    data : path
        As for `read_task`; a file is one split by itself.
    split : {"dev", "test"}

    Returns
    -------
    parts : list of str

    Examples
    --------
    >>> splits(TASKS["mnli"], "hub", "dev")
    ['dev_matched', 'dev_mismatched']
    """
    if str(data) != HUB and Path(data).is_file():
        return [split]
    return [split + part for part in task.parts]


def column_names(task: Task, pairs: Sequence[str]) -> dict[str, str]:
    """Read pairs ``name=column``: what the user's files call the task's columns.

    Parameters
    ----------
    task : Task
    pairs : sequence of str

    Returns
    -------
    columns : dict
        Name here -> name in the files.

    Raises
    ------
    InputError
        A pair is malformed, or its name is not one of the task.

    Examples
    --------
    >>> column_names(TASKS["sst2"], ["sentence=review", "label=stars > 3"])
    {'sentence': 'review', 'label': 'stars > 3'}
    """
    names = (*task.sentences, "label", "index")
    columns = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        if name not in names or not column:
            raise InputError(
                f"`columns` has {pair!r}, but NAME=COLUMN was expected, where NAME is one of {', '.join(names)}"
            )
        columns[name] = column
    return columns
