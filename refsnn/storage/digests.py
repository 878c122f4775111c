"""Fingerprints of what decides numbers: a run remembers them beside the paths, whose contents may change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ops import Array

__all__ = ["array_digest", "file_digest", "table_digest"]


def array_digest(arrays: Iterable[Array], description: Any = None) -> str:
    """Fingerprint arrays, with their types and shapes.

    Parameters
    ----------
    arrays : iterable of array
    description : JSON-serialisable, optional
        What else counts.

    Returns
    -------
    digest : str
        SHA-256 in hexadecimal.

    Examples
    --------
    >>> array_digest([np.arange(2)]) == array_digest([np.arange(2).reshape(2, 1)])
    False
    """
    found = hashlib.sha256(json.dumps(description).encode())
    for array in arrays:
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def table_digest(columns: Mapping[str, Sequence[Any]]) -> str:
    """Fingerprint a table of text and numbers.

    Parameters
    ----------
    columns : mapping
        Name -> values.

    Returns
    -------
    digest : str

    Examples
    --------
    >>> table_digest({"text": ["a", "b"]}) == table_digest({"text": ["a", "c"]})
    False
    """
    found = hashlib.sha256()
    for name in sorted(columns):
        found.update(json.dumps([name, list(columns[name])]).encode())
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Fingerprint a file's bytes.

    Parameters
    ----------
    path : Path

    Returns
    -------
    digest : str
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
