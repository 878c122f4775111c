"""Labelled text in: one split of a task, from an official file, a file of one's own, or the Hugging Face hub."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import existing, require
from .tasks import HUB, Task

__all__ = [
    "read_task",
]


def read_task(data: str | os.PathLike, task: Task, split: str, columns: Mapping[str, str] | None = None) -> Any:
    """Read one split of a GLUE task: an official TSV file, a file of one's own, or the Hugging Face hub's.

    Parameters
    ----------
    data : path
        The task's folder, or the one above it that holds all tasks, with a file named after the split; a file; or
        `HUB`. TSV files are read as GLUE's, whose quotes are part of the text; CSV, JSON, JSON lines and Parquet as
        `datasets` does.
    task : Task
    split : str
        ``"train"``, or of `splits`.
    columns : mapping, optional
        What the files call the task's columns, where they have neither its names nor the official ones.

    Returns
    -------
    dataset : datasets.Dataset
        The task's text columns; and ``label``, a class index or a score, or of a test split ``index``, a string.

    Raises
    ------
    InputError
        No such file or no network, a missing column, a malformed row or unknown label (with its line), or no rows.
    """
    source, unit, rows = _open(data, task, split)
    test = split.startswith("test")
    header = next(rows, (0, ()))[1]
    places = _places(header, task, columns or {})
    missing = [name for name in (*task.sentences, "label") if name not in places and not (test and name == "label")]
    if missing:
        raise InputError(
            f"{source} has the columns {list(header)}, but {', '.join(missing)} was expected; "
            f"say which is meant with `columns` {missing[0]}=COLUMN"
        )
    found: dict[str, list] = {name: [] for name in (*task.sentences, "index" if test else "label")}
    left_out = 0
    for number, row in rows:
        where = f"{source}, {unit} {number}"
        whole = len(row) == len(header)
        label = row[places["label"]] if whole and not test else None
        if not test and ("" if label is None else label) in task.unlabelled:
            left_out += 1
            continue
        if not whole:
            raise InputError(f"{where}: {len(row)} fields, but the header has {len(header)}")
        for name in task.sentences:
            if not isinstance(text := row[places[name]], str):
                raise InputError(f"{where}: {name} is {text!r}, but text was expected")
            found[name].append(text)
        if test:
            found["index"].append(str(row[places["index"]] if "index" in places else len(found["index"])))
        else:
            found["label"].append(_target(label, task, where))
    if left_out:
        print(f"{source}: left out {left_out} rows that are broken or have no label", file=sys.stderr)
    if not found[task.sentences[0]]:
        raise InputError(f"{source} has no rows, so there is nothing to learn or evaluate")
    return require("datasets").Dataset.from_dict(found)


#: Rows of a table, each with its number; the first is the header.
Rows = Iterator[tuple[int, Sequence[Any]]]


def _open(data: str | os.PathLike, task: Task, split: str) -> tuple[str, str, Rows]:
    """Find a split: its place and what its rows are called, both for messages, and the rows."""
    if str(data) == HUB:
        return f"the hub's {task.name}", "row", _hub_rows(task, split)
    path = _split_file(existing(data, "the data folder"), task, split)
    if path.suffix == ".tsv":
        return str(path), "line", _tsv_rows(path, task)
    return str(path), "row", _file_rows(path, task)


def _split_file(data: Path, task: Task, split: str) -> Path:
    endings = (".tsv", ".csv", ".json", ".jsonl", ".parquet")
    if data.is_file():
        if data.suffix not in endings:
            raise InputError(f"{data} ends in {data.suffix!r}, but one of {', '.join(endings)} was expected")
        return data
    for folder in (data / task.folder, data):
        for ending in endings:
            if (path := folder / f"{split}{ending}").exists():
                return path
    raise InputError(
        f"neither {data} nor {data / task.folder} has {split}.tsv (or {split}.csv, .json, .jsonl, .parquet); "
        "name the folder that has, or a file"
    )


def _places(header: Sequence[str], task: Task, columns: Mapping[str, str]) -> dict[str, int]:
    """Where each of the task's columns is, as far as it is there."""
    places: dict[str, int] = {}
    for name in (*task.sentences, "label", "index"):
        usual = [name, task.aliases.get(name, name), "idx" if name == "index" else name]
        for known in [columns[name]] if name in columns else usual:
            if known in header:
                places.setdefault(name, header.index(known))
    return places


#: Scores beyond this are nobody's: their squares would overflow.
LARGEST = 1e15


def _target(label: Any, task: Task, where: str) -> int | float:
    """Class index or score; a class may be spelled as its index, too."""
    if task.labels:
        if isinstance(label, bool) or (isinstance(label, float) and label.is_integer()):
            label = int(label)
        classes = {name: i for i, name in enumerate(task.labels)}
        if not any(name.isdigit() for name in task.labels):
            classes |= {str(i): i for i in range(len(task.labels))}
        if str(label) not in classes:
            raise InputError(f"{where}: label {label!r} is none of {list(task.labels)}")
        return classes[str(label)]
    try:
        score = float(label)
    except (TypeError, ValueError):
        score = np.nan
    least, greatest = task.scale or (-LARGEST, LARGEST)
    if not least <= score <= greatest:
        wanted = "a number" if task.scale is None else f"a number from {least:g} to {greatest:g}"
        raise InputError(f"{where}: score {label!r} is not {wanted}")
    return score


def _tsv_rows(path: Path, task: Task) -> Rows:
    """Rows of an official file, as they stand: quotes are part of the text, and there may be a byte order mark."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            for row in rows:
                if rows.line_num == 1 and len(row) == len(task.header) and row[1] in task.labels:
                    yield 0, task.header
                if row:
                    yield rows.line_num, row
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num}: {error}; it is not a TSV file") from None


def _dataset_rows(dataset: Any, task: Task) -> Rows:
    """Rows of a `datasets.Dataset`; classes go by their names where it has the task's, perhaps in another order."""
    named = {
        name: feature
        for name, feature in dataset.features.items()
        if task.labels and set(getattr(feature, "names", ())) == set(task.labels)
    }

    def rows() -> Iterator[Sequence[Any]]:
        for batch in dataset.iter(1000):
            for name, feature in named.items():
                batch[name] = [i if i is None or i < 0 else feature.int2str(i) for i in batch[name]]
            yield from zip(*batch.values(), strict=True)

    yield 0, dataset.column_names
    yield from enumerate(rows(), 1)


def _file_rows(path: Path, task: Task) -> Rows:
    """Rows of a CSV, JSON, JSON lines or Parquet file, read by `datasets`."""
    datasets = require("datasets")
    kind = path.suffix[1:]
    try:
        options = csv_options(path) if kind == "csv" else {}
        read = getattr(datasets.Dataset, "from_" + kind.removesuffix("l"))
        with tempfile.TemporaryDirectory() as cache:  # no copy that stays behind, or is older than the file
            dataset = read(str(path), keep_in_memory=True, cache_dir=cache, **options)
    except Exception as error:  # pandas', pyarrow's, and bare ones
        raise InputError(f"{path} cannot be read as {kind} with named columns and rows ({reason(error)})") from None
    return _dataset_rows(dataset, task)


def csv_options(path: str | os.PathLike) -> dict[str, Any]:
    """Have `datasets` read all columns as they stand: a review may be "1984", or "NA"."""
    datasets = require("datasets")
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    strings = datasets.Features({name: datasets.Value("string") for name in header})
    return {"names": header, "header": 0, "features": strings, "keep_default_na": False}


def _hub_rows(task: Task, split: str) -> Rows:
    datasets = require("datasets")
    try:
        dataset = datasets.load_dataset("nyu-mll/glue", task.name, split=split.replace("dev", "validation"))
    except Exception as error:  # of the network, the cache, the format: there is no common kind
        raise InputError(
            f"GLUE's {task.name} can neither be fetched from the Hugging Face hub nor found in its cache "
            f"({reason(error)}); connect to the network once, or name a folder with `data`"
        ) from None
    return _dataset_rows(dataset, task)


def reason(error: Exception) -> str:
    """First line of what a library says of a failure."""
    return (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
