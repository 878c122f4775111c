"""A run's folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy

from .._version import __version__
from ..data.examples import Examples, tokenise
from ..data.reading import read_task
from ..data.tasks import TASKS, Task, column_names, splits
from ..data.tokenizer import load_tokenizer
from ..errors import InputError
from ..files import existing, read_json, write_json
from ..model.batch import Batch
from ..model.student import StudentConfig
from .recipe import Recipe

__all__ = [
    "dev_sample",
    "read_split",
    "remember",
    "results_file",
    "run_settings",
    "run_tokenizer",
    "versions",
]


def run_settings(
    recipe: Recipe,
    data: Any,
    teacher: Any,
    corpus: Sequence[str | os.PathLike] = (),
    columns: Sequence[str] = (),
    general: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Describe a run, as `run.json` remembers it and a resumed run must have it.

    Parameters
    ----------
    recipe, data, teacher, corpus, columns, general
        As for `distill`.

    Returns
    -------
    settings : dict
    """
    return {
        "recipe": asdict(recipe),
        "data": None if data is None else str(data),
        "teacher": teacher[0].to_dict() if isinstance(teacher, tuple) else str(teacher),
        "corpus": ", ".join(map(str, corpus)) or None,
        "columns": list(columns) or None,
        "general": None if general is None else str(general),
    }


def remember(run: Path, settings: Mapping[str, Any]) -> None:
    """Write down what a run is, or make sure that it is what was written down before.

    Parameters
    ----------
    run : Path
    settings : mapping
        As from `run_settings`.

    Raises
    ------
    InputError
        The folder holds a run with other settings.
    """
    path = run / "run.json"
    if path.exists():
        before = read_json(path).get("settings", {})
        changed = [
            f"{key} was {_flat(before).get(key)!r} and is {value!r}"
            for key, value in _flat(settings).items()
            if _flat(before).get(key) != value
        ]
        if changed:
            raise InputError(
                f"{run} holds a run with other settings ({'; '.join(changed)}); "
                "name another --out, or the same settings to go on with it"
            )
        return
    write_json(path, {"settings": settings, "versions": versions()})


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k != "recipe"} | settings.get("recipe", {})


def versions() -> dict[str, str]:
    """Versions of all that computes, for the record of a run.

    Returns
    -------
    versions : dict
    """
    from importlib.metadata import PackageNotFoundError, version

    found = {"refsnn": __version__, "python": platform.python_version()}
    found |= {"numpy": np.__version__, "scipy": scipy.__version__, "machine": platform.machine()}
    for package in ("tokenizers", "datasets", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_settings(run: str | os.PathLike) -> dict[str, Any]:
    return read_json(existing(Path(run) / "run.json", "the run's settings"))["settings"]


def read_split(
    run: str | os.PathLike, data: str | os.PathLike, split: Literal["dev", "test"], columns: Sequence[str] = ()
) -> tuple[Task, dict[str, Any]]:
    """Read the dev or test split of a run's task.

    Parameters
    ----------
    run, data : path
    split : {"dev", "test"}
    columns : sequence of str
        Pairs ``name=column``; those that the run was distilled with where there are none.

    Returns
    -------
    task : Task
    parts : dict
        Part of the split -> datasets.Dataset; two for MNLI, one for every other task.
    """
    settings = read_settings(run)
    task = TASKS[settings["recipe"]["task"]]
    names = column_names(task, columns or settings.get("columns") or ())
    return task, {part: read_task(data, task, part, names) for part in splits(task, data, split)}


def run_tokenizer(run: str | os.PathLike, config: StudentConfig) -> Any:
    """Load a run's tokenizer, with the limit of length it was trained with.

    Parameters
    ----------
    run : path
    config : StudentConfig

    Returns
    -------
    tokenizer : tokenizers.Tokenizer
    """
    recipe = read_settings(run)["recipe"]
    return load_tokenizer(run, config.bert.vocab_size, recipe["max_length"] or TASKS[recipe["task"]].max_length)


def dev_sample(
    run: str | os.PathLike, data: str | os.PathLike, config: StudentConfig, samples: int, columns: Sequence[str] = ()
) -> tuple[Examples, Batch]:
    """Read the first sentences of a run's dev split.

    Parameters
    ----------
    run, data : path
    config : StudentConfig
    samples : int
    columns : sequence of str
        As of `read_split`.

    Returns
    -------
    examples : Examples
    batch : Batch
        All of them, padded to the longest.

    Raises
    ------
    InputError
        `samples` is not positive, or the data cannot be read.
    """
    if samples < 1:
        raise InputError(f"{samples} sentences were asked for; take at least one")
    task, parts = read_split(run, data, "dev", columns)
    dataset = next(iter(parts.values()))
    examples = tokenise(dataset.select(range(min(samples, len(dataset)))), task.sentences, run_tokenizer(run, config))
    return examples, examples.batch(np.arange(len(examples)), config.bert.pad_token_id)


def results_file(run: Path, rule: str) -> Path:
    """Name the file that holds a run's results by an integration rule.

    Parameters
    ----------
    run : Path
    rule : str

    Returns
    -------
    path : Path
    """
    return run / f"results-{rule}.json"
