"""Rows of files as they stand: TSV, CSV, JSON, JSON lines and Parquet, each failure one sentence.

Fields are counted and values are left alone: no library guesses an index, a date or a missing value, and no name of a
file is taken for a pattern.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError
from ..files import not_a_pointer, require

__all__ = [
    "ENDINGS",
    "Rows",
    "check_whole",
    "dataset_rows",
    "json_objects",
    "kind_of",
    "parquet_column",
    "reason",
    "table_rows",
]

#: Endings of the files that hold tables; where a folder has several, the first is read.
ENDINGS = (".tsv", ".csv", ".json", ".jsonl", ".parquet")

#: Rows of a table, each with the place where it stands, for messages; the first is the header.
Rows = Iterator[tuple[str, Sequence[Any]]]


def kind_of(path: Path) -> str:
    """Name the kind of a file by its ending.

    Parameters
    ----------
    path : Path

    Returns
    -------
    kind : str
        In small letters and without the dot.
    """
    return path.suffix[1:].lower()


def reason(error: BaseException) -> str:
    """First line of what a library says of a failure.

    Parameters
    ----------
    error : exception

    Returns
    -------
    reason : str
    """
    return (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]


def table_rows(path: Path) -> Rows:
    """Read a table, whatever its kind.

    Parameters
    ----------
    path : Path
        Ends in one of `ENDINGS`.

    Yields
    ------
    where : str
        The place of the row, for messages.
    row : sequence
        First the names of the columns, then the rows. Fields are text in TSV and CSV, and of their own type elsewhere.

    Raises
    ------
    InputError
        The file is empty, damaged, or of another kind than its ending says.
    """
    not_a_pointer(path)
    match kind_of(path):
        case "tsv":
            yield from _delimited_rows(path, "line", delimiter="\t", quoting=csv.QUOTE_NONE)
        case "csv":
            yield from _delimited_rows(path, "row", strict=True)
        case "parquet":
            yield from _parquet_rows(path)
        case _:
            objects = list(json_objects(path))
            header = list(dict.fromkeys(name for _, row in objects for name in row))
            yield str(path), header
            yield from ((where, [row.get(name) for name in header]) for where, row in objects)


def check_whole(where: str, row: Sequence[Any], header: Sequence[str]) -> None:
    """Refuse a row with more or fewer fields than there are columns.

    Parameters
    ----------
    where : str
    row, header : sequence

    Raises
    ------
    InputError
        Their lengths differ.
    """
    if len(row) != len(header):
        many = "1 field" if len(row) == 1 else f"{len(row)} fields"
        raise InputError(f"{where} has {many}, but the header has {len(header)}")


@contextmanager
def _text(path: Path, kind: str) -> Iterator[TextIO]:
    """Open a text file, perhaps with a byte order mark, and say in one sentence what is wrong with it."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} cannot be read as {kind}: it is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None


def _delimited_rows(path: Path, unit: str, **dialect: Any) -> Rows:
    """Rows of a TSV or CSV file. TSV's are counted by lines, for there a row is one; blank lines are skipped."""
    header: list[str] = []
    number, blank = 0, False
    with _text(path, kind_of(path)) as file, _long_fields():
        rows = csv.reader(file, **dialect)
        try:
            for row in rows:
                if not row:
                    blank = bool(header)
                    continue
                where = f"{path}, {unit} {rows.line_num if unit == 'line' else number}"
                if blank and len(header) == 1:
                    raise InputError(
                        f"{where}: a blank line stands before it, which may be an empty text or nothing; "
                        'write an empty text as "", or leave the line out'
                    )
                header = header or row
                number += 1
                yield where, row
        except csv.Error as error:
            at = f"line {rows.line_num}"
            raise InputError(f"{path}, {at}: {error}; it is not a {kind_of(path).upper()} file") from None


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be as long as they are: the limit of `csv`, 131,072 characters, is one of the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def json_objects(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read the rows of a JSON file as objects with named fields; of JSON lines one at a time.

    Parameters
    ----------
    path : Path
        JSON lines; or, where it does not end in ``.jsonl``, also a list of rows, or an object of columns: lists of one
        length, or objects with the same keys, as pandas writes them.

    Yields
    ------
    where : str
    row : dict

    Raises
    ------
    InputError
        It is no such file.
    """
    with _text(path, kind_of(path)) as file:
        if kind_of(path) == "jsonl":
            yield from _lines(path, file)
            return
        text = file.read()
    if not text.strip():
        raise _unreadable(path, "it is empty")
    try:
        value = _parsed(path, text)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise _unreadable(path, error) from None
        yield from _lines(path, text.splitlines())
        return
    yield from _objects(path, _by_rows(path, value) if isinstance(value, dict) else value)


def _lines(path: Path, lines: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    def values() -> Iterator[Any]:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _parsed(path, line)
                except json.JSONDecodeError as error:
                    raise _unreadable(path, f"line {number}: {error.msg}") from None

    yield from _objects(path, values())


def _objects(path: Path, rows: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Say where each row stands, and make sure that it is an object."""
    if not isinstance(rows, list | Iterator):
        raise _unreadable(path, f"it holds {_called(rows)}")
    number = 0
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise _unreadable(path, f"row {number} is {_called(row)}, but an object with named fields was expected")
        yield f"{path}, row {number}", row
    if not number:
        raise _unreadable(path, "it is empty")


def _by_rows(path: Path, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Turn an object of columns into rows; an object of plain values is a single row."""
    if columns and all(isinstance(column, dict) for column in columns.values()):
        first = list(next(iter(columns.values())))
        if any(list(column) != first for column in columns.values()):
            raise _unreadable(path, f"its columns {', '.join(columns)} have not the same rows")
        return [{name: column[key] for name, column in columns.items()} for key in first]
    if not any(isinstance(column, list | dict) for column in columns.values()):
        return [columns] if columns else []
    lengths = {name: len(c) if isinstance(c, list) else "no list" for name, c in columns.items()}
    if len(set(lengths.values())) > 1 or "no list" in lengths.values():
        found = ", ".join(f"{name} ({length})" for name, length in lengths.items())
        raise _unreadable(path, f"it holds one object with {found}, but a list of rows, or lists of one length")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _parsed(path: Path, text: str) -> Any:
    """Parse JSON; what the parser gives up on, and a name that stands twice in an object, is refused."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise _unreadable(path, "it is nested too deeply") from None
    except ValueError as error:  # a number with thousands of digits, or a name twice
        raise _unreadable(path, error) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"an object has the field {twice!r} twice")
    return found


def _called(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def _unreadable(path: Path, why: object) -> InputError:
    said = reason(why) if isinstance(why, BaseException) else why
    return InputError(f"{path} cannot be read as {kind_of(path)} with named columns and rows ({said})")


def _parquet_rows(path: Path) -> Rows:
    datasets, parquet = require("datasets"), require("pyarrow.parquet")
    try:
        with open(path, "rb") as file:  # opened here: its name is never taken for a pattern, an address or a folder
            table = parquet.read_table(file)
        dataset = datasets.Dataset(datasets.table.InMemoryTable(table))
        yield from dataset_rows(str(path), dataset)
    except Exception as error:  # pyarrow's, and bare ones
        raise _unreadable(path, error) from None


def parquet_column(path: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read one column of a Parquet file piece by piece.

    Parameters
    ----------
    path : Path
    name : str

    Yields
    ------
    where : str
    row : dict
        With that column; where there is none, the file's first row with all that it has.
    """
    not_a_pointer(path)
    parquet = require("pyarrow.parquet")
    try:
        with open(path, "rb") as file:
            table = parquet.ParquetFile(file)
            names = [name] if name in table.schema_arrow.names else None
            pieces = table.iter_batches(1000, columns=names)
            for number, row in enumerate((row for piece in pieces for row in piece.to_pylist()), 1):
                yield f"{path}, row {number}", row
    except Exception as error:  # pyarrow's, and bare ones
        raise _unreadable(path, error) from None


def dataset_rows(source: str, dataset: Any) -> Rows:
    """Rows of a `datasets.Dataset`, classes by their names.

    Parameters
    ----------
    source : str
    dataset : datasets.Dataset

    Yields
    ------
    where : str
    row : sequence
    """
    named = {name: kind for name, kind in dataset.features.items() if getattr(kind, "names", None)}

    def rows() -> Iterator[Sequence[Any]]:
        for batch in dataset.iter(1000):
            for name, kind in named.items():
                batch[name] = [i if i is None or i < 0 else kind.int2str(i) for i in batch[name]]
            yield from zip(*batch.values(), strict=True)

    yield source, dataset.column_names
    yield from ((f"{source}, row {number}", row) for number, row in enumerate(rows(), 1))
