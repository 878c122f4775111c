"""Reading and writing files: atomic writes, JSON, safetensors, each failure one clear sentence.

Nothing is ever unpickled: tensors travel as safetensors, everything else as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError

__all__ = [
    "atomic",
    "existing",
    "json_lines",
    "load_tensors",
    "new_folder",
    "read_json",
    "require",
    "save_tensors",
    "tensor",
    "write_json",
    "write_text",
]

#: The one metadata key of our safetensors files. The format's writer does not keep the order of several.
METADATA = "refsnn"


def require(module: str):
    """Import an optional package, or say in one sentence how to install it.

    Parameters
    ----------
    module : str

    Returns
    -------
    module

    Raises
    ------
    InputError
        The package is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise InputError(
            f"this needs the package {package}, which is not installed; install it with: pip install 'refsnn[all]'"
        ) from None


def existing(path: str | os.PathLike, what: str) -> Path:
    """Return the path of a file or folder that must exist.

    Parameters
    ----------
    path : path
    what : str
        What the user meant it to be, for the message.

    Returns
    -------
    path : Path

    Raises
    ------
    InputError
        It does not.
    """
    if not (path := Path(path)).exists():
        raise InputError(f"{what} {path} does not exist; name an existing one")
    return path


def new_folder(path: str | os.PathLike) -> Path:
    """Create a folder for results, parents included; one that is there already is fine.

    Parameters
    ----------
    path : path

    Returns
    -------
    path : Path

    Raises
    ------
    InputError
        The folder cannot be made, or not be written into.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with atomic(path / ".writable") as probe:
            probe.touch()
        (path / ".writable").unlink()
    except OSError as error:
        raise InputError(f"cannot write into {path} ({error.strerror}); name a folder that can be written") from None
    return path


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file completely or not at all: yields a temporary path beside it and renames at the end.

    Parameters
    ----------
    path : path

    Yields
    ------
    temporary : Path
        Write here; it is gone if the block raises. A process killed in between leaves the old file as it was, and its
        temporary file to the next one that writes this path.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Parameters
    ----------
    path : path
    text : str
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given.

    Parameters
    ----------
    path : path
    value : JSON-serialisable
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Parameters
    ----------
    path : path

    Returns
    -------
    value : dict

    Raises
    ------
    InputError
        There is no such file, it is not JSON, or it holds something else than an object.
    """
    path = existing(path, "the file")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); it may be truncated") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, but an object with named fields was expected")
    return value


def json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a log of one JSON object a line; half a line, as a kill leaves it, is skipped.

    Parameters
    ----------
    path : path

    Returns
    -------
    entries : list of dict
        Empty where there is no such file.
    """
    if not (path := Path(path)).exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def save_tensors(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write arrays and their description as one safetensors file, atomically.

    Parameters
    ----------
    path : path
    tensors : mapping
    metadata : mapping
        JSON-serialisable; stored under one key, so that the same content gives the same bytes.
    """
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    data = require("safetensors.numpy").save(arrays, {METADATA: json.dumps(metadata)})
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def load_tensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a safetensors file; half precision floats become float32.

    Parameters
    ----------
    path : path

    Returns
    -------
    tensors : dict
    metadata : dict
        What `save_tensors` was given, or empty.

    Raises
    ------
    InputError
        The file is missing, truncated, has a hostile header, or holds a type NumPy lacks.
    """
    safetensors = require("safetensors")
    path = existing(path, "the checkpoint")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: tensor(file, path, name) for name in sorted(file.keys())}
            metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except (safetensors.SafetensorError, json.JSONDecodeError, TypeError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as safetensors ({error}); it may be truncated, or not a safetensors file"
        ) from None
    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in tensors.items()}, metadata


def tensor(file: Any, path: str | os.PathLike, name: str) -> np.ndarray:
    """Read one tensor of an open safetensors file; bfloat16, which NumPy lacks, becomes float32.

    Parameters
    ----------
    file
        From ``safetensors.safe_open``, which has checked the file's header.
    path : path
        The same file's.
    name : str

    Returns
    -------
    tensor : array
    """
    if file.get_slice(name).get_dtype() != "BF16":
        return file.get_tensor(name)
    with open(path, "rb") as raw:
        size = int.from_bytes(raw.read(8), "little")
        entry = json.loads(raw.read(size))[name]
        start, end = entry["data_offsets"]
        raw.seek(8 + size + start)
        upper = np.frombuffer(raw.read(end - start), "<u2")  # a bfloat16 is the upper half of a float32
    return (upper.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
