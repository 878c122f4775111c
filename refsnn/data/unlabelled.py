"""Unlabelled text in: documents of files and of the hub, one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import existing, not_a_pointer, require
from .reading import checked_text
from .tables import ENDINGS, check_whole, json_objects, kind_of, parquet_column, reason, table_rows
from .tasks import HUB

__all__ = [
    "read_corpus",
]


def read_corpus(sources: Sequence[str | os.PathLike]) -> Iterator[str]:
    """Read unlabelled text one document at a time, so that a corpus may be larger than memory.

    Parameters
    ----------
    sources : sequence of path or str
        Text files, whose documents are the paragraphs between blank lines; files ``.tsv``, ``.csv``, ``.json``,
        ``.jsonl`` or ``.parquet``, whose documents are the rows of the column ``text``; or ``hub:NAME`` or
        ``hub:NAME:CONFIG``, the train split of a data set of the Hugging Face hub, likewise.

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
    return Path(source).suffix.lower() in ENDINGS


def _paragraphs(source: str | os.PathLike) -> Iterator[str]:
    lines: list[str] = []
    not_a_pointer(source)
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
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror})") from None
    yield "".join(lines)


def _texts(source: str | os.PathLike) -> Iterator[str]:
    """Rows of a table's column ``text``, without a copy of the table in memory or elsewhere."""
    path = Path(source)
    if (kind := kind_of(path)) == "parquet":
        yield from _column(parquet_column(path, "text"))
    elif kind in ("json", "jsonl"):
        not_a_pointer(path)
        yield from _column(json_objects(path))
    else:
        rows = table_rows(path)
        _, header = next(rows, ("", ()))
        if header.count("text") != 1:
            raise InputError(f"{path} has the columns {list(header)}, but one column text was expected")
        place = header.index("text")
        for where, row in rows:
            check_whole(where, row, header)
            yield checked_text(where, "text", row[place])


def _hub_texts(source: str | os.PathLike) -> Iterator[str]:
    _, name, *config = str(source).split(":")
    try:
        rows = require("datasets").load_dataset(name, *config, split="train")
    except Exception as error:  # of the network, the cache, the format: there is no common kind
        raise InputError(
            f"the corpus {source} can neither be fetched from the Hugging Face hub nor found in its cache "
            f"({reason(error)}); connect to the network once, or name a file"
        ) from None
    yield from _column((f"{source}, row {number}", row) for number, row in enumerate(rows, 1))


def _column(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    for where, row in rows:
        if "text" not in row:
            raise InputError(f"{where}: there are the columns {list(row)}, but text in a column text was expected")
        yield checked_text(where, "text", row["text"])
