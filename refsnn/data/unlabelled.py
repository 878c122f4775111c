"""Unlabelled text in: documents of files and of the hub, one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import existing, require
from .reading import csv_options, reason
from .tasks import HUB

__all__ = [
    "read_corpus",
]


def read_corpus(sources: Sequence[str | os.PathLike]) -> Iterator[str]:
    """Read unlabelled text one document at a time, so that a corpus may be larger than memory.

    Parameters
    ----------
    sources : sequence of path or str
        Text files, whose documents are the paragraphs between blank lines; files ``.csv``, ``.json``, ``.jsonl`` or
        ``.parquet``, whose documents are the rows of the column ``text``; or ``hub:NAME`` or ``hub:NAME:CONFIG``, the
        train split of a data set of the Hugging Face hub, likewise.

    Yields
    ------
    document : str
        On one line, its white space single; never empty.

    Raises
    ------
    InputError
        At once where a source is missing, later where it cannot be read, and at the end if there was no text.
    """
    for source in sources:
        if not str(source).startswith(f"{HUB}:"):
            existing(source, "the corpus")
    return _documents(sources)


def _documents(sources: Sequence[str | os.PathLike]) -> Iterator[str]:
    empty = True
    for source in sources:
        read = _hub_texts if str(source).startswith(f"{HUB}:") else _texts if _is_table(source) else _paragraphs
        for text in read(source):
            if document := " ".join(text.split()):
                empty = False
                yield document
    if empty:
        raise InputError(f"{', '.join(map(str, sources))}: there is no text, so there is nothing to learn from")


def _is_table(source: str | os.PathLike) -> bool:
    return Path(source).suffix in (".csv", ".json", ".jsonl", ".parquet")


def _paragraphs(source: str | os.PathLike) -> Iterator[str]:
    lines: list[str] = []
    try:
        with open(source, encoding="utf-8-sig") as file:
            for line in file:
                if line.strip():
                    lines.append(line)
                else:
                    yield "".join(lines)
                    lines = []
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    yield "".join(lines)


def _texts(source: str | os.PathLike) -> Iterator[str]:
    """Rows of a table's column ``text``, without a copy of the table in memory or elsewhere."""
    kind = Path(source).suffix[1:].removesuffix("l")
    try:
        options = csv_options(source) if kind == "csv" else {}
        rows = require("datasets").load_dataset(kind, data_files=str(source), split="train", streaming=True, **options)
        yield from _column(rows, source)
    except InputError:
        raise
    except Exception as error:  # pandas', pyarrow's, and bare ones
        raise InputError(f"{source} cannot be read as {kind} with a column text ({reason(error)})") from None


def _hub_texts(source: str | os.PathLike) -> Iterator[str]:
    _, name, *config = str(source).split(":")
    try:
        rows = require("datasets").load_dataset(name, *config, split="train")
    except Exception as error:  # of the network, the cache, the format: there is no common kind
        raise InputError(
            f"the corpus {source} can neither be fetched from the Hugging Face hub nor found in its cache "
            f"({reason(error)}); connect to the network once, or name a file"
        ) from None
    yield from _column(rows, source)


def _column(rows: Any, source: str | os.PathLike) -> Iterator[str]:
    for number, row in enumerate(rows, 1):
        if not isinstance(text := row.get("text"), str):
            what = f"text is {text!r}" if "text" in row else f"there are the columns {list(row)}"
            raise InputError(f"{source}, row {number}: {what}, but text in a column of this name was expected")
        yield text
