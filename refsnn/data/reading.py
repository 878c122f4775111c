"""Labelled text in: one split of a task, from an official file, your own file, or the Hugging Face hub."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, shown
from ..files import existing, require
from .tables import ENDINGS, Rows, check_whole, dataset_rows, kind_of, reason, table_rows
from .tasks import HUB, Task

__all__ = [
    "read_task",
]


def read_task(data: str | os.PathLike, task: Task, split: str, columns: Mapping[str, str] | None = None) -> Any:
    """Read one split of a GLUE task: an official TSV file, your own file, or the Hugging Face hub's.

    Parameters
    ----------
    data : path
        The task's folder, or the one above it that holds all tasks, with a file named after the split, as GLUE's
        archive or as the hub calls it; a file; or `HUB`. TSV files are read as GLUE's, whose quotes are part of the
        text.
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
    source, rows = _open(data, task, split)
    test = split.startswith("test")
    header = next(rows, ("", ()))[1]
    places = _places(source, header, task, columns or {}, test)
    found: dict[str, list] = {name: [] for name in (*task.sentences, "index" if test else "label")}
    left_out = 0
    for where, row in rows:
        whole = len(row) == len(header)
        label = row[places["label"]] if whole and not test else None
        if not test and ("" if label is None else label) in task.unlabelled:
            left_out += 1
            continue
        check_whole(where, row, header)
        for name in task.sentences:
            found[name].append(checked_text(where, name, row[places[name]]))
        if test:
            found["index"].append(_index(where, row[places["index"]] if "index" in places else len(found["index"])))
        else:
            found["label"].append(_target(label, task, where))
    if left_out:
        print(f"{source}: left out {left_out} rows that are broken or have no label", file=sys.stderr)
    if not found[task.sentences[0]]:
        raise InputError(f"{source} has no rows, so there is nothing to learn or evaluate")
    return require("datasets").Dataset.from_dict(found)


def checked_text(where: str, name: str, text: Any) -> str:
    """Return a text that was read, or say that it is no text."""
    if not isinstance(text, str):
        raise InputError(f"{where}: {name} is {shown(text)}, but text was expected")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell it, and no file can hold it
        raise InputError(f"{where}: {name} holds half of a surrogate pair, which is no text") from None
    return text


def _index(where: str, index: Any) -> str:
    if index is None:
        raise InputError(f"{where}: index is missing, which other rows have")
    return str(index)


def _open(data: str | os.PathLike, task: Task, split: str) -> tuple[str, Rows]:
    """Find a split: its place, for messages, and its rows."""
    if str(data) == HUB:
        return (source := f"the hub's {task.name}"), _hub_rows(source, task, split)
    paths = _split_files(existing(data, "the data folder"), task, split)
    rows = _together([_named_rows(path, task) for path in paths])
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} others", rows


def _split_files(data: Path, task: Task, split: str) -> list[Path]:
    """Find the file that holds a split; the hub cuts large ones in pieces, of which all must be there."""
    if data.is_file():
        if data.suffix.lower() not in ENDINGS:
            raise InputError(f"{data} ends in {data.suffix!r}, but one of {', '.join(ENDINGS)} was expected")
        return [data]
    names = dict.fromkeys((split, split.replace("dev", "validation")))
    for folder in (data / task.folder, data / task.name, data):
        for name in names:
            for ending in ENDINGS:
                if (path := folder / f"{name}{ending}").exists():
                    return [path]
            if pieces := _pieces(folder, name):
                return pieces
    raise InputError(
        f"neither {data} nor {data / task.folder} has {split}.tsv (or {split}.csv, .json, .jsonl, .parquet"
        f"{''.join(f', or {name}-00000-of-00001.parquet' for name in names)}); name the folder that has, or a file"
    )


def _pieces(folder: Path, name: str) -> list[Path]:
    """Files ``NAME-00000-of-00002.parquet`` and so on, as the hub calls them."""
    listed = sorted(os.listdir(folder)) if folder.is_dir() else []
    found = [file for file in listed if re.fullmatch(rf"{re.escape(name)}-\d{{5}}-of-\d{{5}}\.parquet", file)]
    if not found:
        return []
    count = int(found[0][-13:-8])
    wanted = [f"{name}-{i:05d}-of-{count:05d}.parquet" for i in range(count)]
    if found != wanted:
        missing = next((file for file in wanted if file not in found), found[-1])
        raise InputError(f"{folder} has {len(found)} of the {count} pieces of {name}; {missing} does not fit")
    return [folder / file for file in found]


def _together(tables: Sequence[Rows]) -> Rows:
    """Put tables one after the other; their columns must be the same."""
    header = None
    for rows in tables:
        where, names = next(rows, ("", ()))
        if header is None:
            yield where, names
        elif list(names) != list(header):
            raise InputError(f"{where} has the columns {list(names)}, but the piece before it has {list(header)}")
        header = names
        yield from rows


def _named_rows(path: Path, task: Task) -> Rows:
    """Rows of a file; CoLA's official ones have no header, but labels where it would be."""
    rows = table_rows(path)
    first = next(rows, None)
    if first is None:
        return
    row = first[1]
    if kind_of(path) == "tsv" and len(row) == len(task.header) and row[1] in task.labels:
        yield str(path), task.header
    yield from itertools.chain([first], rows)


def _places(source: str, header: Sequence[str], task: Task, columns: Mapping[str, str], test: bool) -> dict[str, int]:
    """Where each of the task's columns is; all must be there, but for the label of a test split and the index."""
    places: dict[str, int] = {}
    wanted = (*task.sentences, "index" if test else "label")
    for name in wanted:
        usual = [name, task.aliases.get(name, name), "idx" if name == "index" else name]
        for known in [columns[name]] if name in columns else usual:
            if known in header:
                places.setdefault(name, header.index(known))
        if name in places and header.count(header[places[name]]) > 1:
            raise InputError(f"{source} has two columns called {header[places[name]]!r}; which one counts is unclear")
    missing = [name for name in wanted if name not in places and (name != "index" or name in columns)]
    if missing:
        asked = [f"{name}={columns[name]}" for name in missing if name in columns]
        told = f" (`columns` said {' '.join(asked)}, now or when the run was made)" if asked else ""
        raise InputError(
            f"{source} has the columns {_listed(header)}, but {', '.join(missing)} was expected{told}; "
            f"say which is meant with `columns` {missing[0]}=COLUMN"
        )
    return places


def _listed(header: Sequence[str]) -> str:
    names = ", ".join(map(shown, header[:20]))
    return f"[{names}]" if len(header) <= 20 else f"[{names}, … {len(header)} in all]"


#: Scores beyond this are nobody's: their squares would overflow.
LARGEST = 1e15


def _target(label: Any, task: Task, where: str) -> int | float:
    """Class index or score; a class may be spelled as the hub calls it, or as its index, too."""
    if task.labels:
        if isinstance(label, bool) or (isinstance(label, float) and label.is_integer()):
            label = int(label)
        classes = {name: i for i, name in enumerate(task.names)} | {name: i for i, name in enumerate(task.labels)}
        if not any(name.isdigit() for name in task.labels):
            classes |= {str(i): i for i in range(len(task.labels))}
        spelled = label if isinstance(label, str) else shown(label)
        if spelled not in classes:
            called = f", nor of {list(task.names)}" if task.names and task.names != task.labels else ""
            raise InputError(f"{where}: label {shown(label)} is none of {list(task.labels)}{called}")
        return classes[spelled]
    try:
        score = float(label)
    except (TypeError, ValueError, OverflowError):
        score = np.nan
    least, greatest = task.scale or (-LARGEST, LARGEST)
    if not least <= score <= greatest:
        wanted = "a number" if task.scale is None else f"a number from {least:g} to {greatest:g}"
        raise InputError(f"{where}: score {shown(label)} is not {wanted}")
    return score


def _hub_rows(source: str, task: Task, split: str) -> Rows:
    datasets = require("datasets")
    try:
        dataset = datasets.load_dataset("nyu-mll/glue", task.name, split=split.replace("dev", "validation"))
    except Exception as error:  # of the network, the cache, the format: there is no common kind
        raise InputError(
            f"GLUE's {task.name} can neither be fetched from the Hugging Face hub nor found in its cache "
            f"({reason(error)}); connect to the network once, or name a folder with `data`"
        ) from None
    return dataset_rows(source, dataset)
