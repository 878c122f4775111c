"""Reading and writing files: atomic writes, JSON, safetensors, each failure one clear sentence.

Nothing is ever unpickled: tensors travel as safetensors, everything else as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .schema import parsed

__all__ = [
    "atomic",
    "existing",
    "folder_at_once",
    "json_lines",
    "load_tensors",
    "named",
    "new_folder",
    "not_a_pointer",
    "read_json",
    "read_text",
    "require",
    "save_tensors",
    "tensor",
    "write_json",
    "write_text",
]

#: The one metadata key of our safetensors files. The format's writer does not keep the order of several.
METADATA = "refsnn"

#: How a Git LFS pointer begins.
POINTER = b"version https://git-lfs"

#: Types of safetensors files that NumPy has; bfloat16 is read, too, by `tensor`.
NUMPY_TYPES = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")


def require(module: str, extra: str = "all"):
    """Import an optional package, or say in one sentence how to install it.

    Parameters
    ----------
    module : str
    extra : str
        What installs it, of refsnn's own extras.

    Returns
    -------
    module

    Raises
    ------
    InputError
        The package is not installed, or importing it fails.
    """
    import importlib

    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a package may do anything when it is imported
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            said = f"is not installed; install it with: pip install 'refsnn[{extra}]'"
        else:
            said = f"is installed but cannot be imported ({type(error).__name__}: {_first(error)}); install it anew"
        raise InputError(f"this needs the package {package}, which {said}") from None


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
    if not os.fspath(path):
        raise InputError(f'the name of {what} is empty (""); name an existing one')
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
        It has no name, cannot be made, or cannot be written into.
    """
    path = named(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _check_open(path)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {path} ({error.strerror}); name a folder that can be written") from None
    return path


def named(path: str | os.PathLike) -> Path:
    """Refuse the empty name, which `Path` takes for the current folder.

    Parameters
    ----------
    path : path

    Returns
    -------
    path : Path

    Raises
    ------
    InputError
        The name is empty.
    """
    if not os.fspath(path):
        raise InputError('the name of a file or folder is empty (""); name one')
    return Path(path)


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file completely or not at all: yields a temporary path beside it and renames at the end.

    A symbolic link is followed, so that its target becomes new and the link stays; a file that is replaced keeps its
    permissions.

    Parameters
    ----------
    path : path

    Yields
    ------
    temporary : Path
        Write here; it is gone if the block raises. A process killed in between leaves the old file as it was, and its
        temporary file to the next one that writes this path.

    Raises
    ------
    InputError
        There is something that must not be replaced (a folder, a device, a pipe, a read-only file), or the file cannot
        be written, because the disk is full, say.
    """
    target = Path(os.path.realpath(named(path)))
    temporary = target.with_name(f".{target.name}.part")
    mode = _replaceable(path, target)
    try:
        _check_open(target.parent)
        temporary.unlink(missing_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        os.replace(temporary, target)
    except OSError as error:
        if error.filename not in (None, str(temporary), str(target.parent)):  # of another file, which the block reads
            raise
        raise InputError(f"cannot write {path} ({error.strerror or error}); what was there before is kept") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_at_once(path: str | os.PathLike) -> Iterator[Path]:
    """Make a folder that appears with all its files or not at all: yields one beside it and renames at the end.

    Parameters
    ----------
    path : path
        A folder that does not exist, or is empty.

    Yields
    ------
    folder : Path
        Write here; it is gone if the block raises. What a killed process leaves is in nobody's way: the next one that
        writes this folder takes it away.

    Raises
    ------
    InputError
        There is something at `path` already, or the folder cannot be made or written.
    """
    target = Path(os.path.realpath(named(path)))
    if target.is_dir() and (held := sorted(os.listdir(target))):
        raise InputError(f"{path} already holds {held[0]}; name a new folder, nothing is overwritten")
    if target.exists() and not target.is_dir():
        raise InputError(f"cannot write into {path} (Not a directory); name a folder that can be written")
    new_folder(target.parent)
    unfinished = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        yield unfinished
        os.rename(unfinished, target)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error}); nothing was written") from None
    except InputError as error:
        raise InputError(str(error).replace(str(unfinished), str(path))) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_open(folder: Path) -> None:
    """Respect a folder that nobody may write into, though root could."""
    if not folder.stat().st_mode & 0o222:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _replaceable(path: str | os.PathLike, target: Path) -> int | None:
    """Permissions of the file that is replaced, None where there is none yet; anything but a file is refused."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); name another file") from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise InputError(f"cannot write {path}: it is {what}, but an ordinary file was expected; name another")
    if not (mode & 0o222 and os.access(target, os.W_OK)):
        raise InputError(f"cannot write {path}: it is read-only; name another file, or make it writable")
    return stat.S_IMODE(mode)


def read_text(path: str | os.PathLike, what: str = "the file") -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Parameters
    ----------
    path : path
    what : str
        What the user meant it to be, for the message.

    Returns
    -------
    text : str
        Whatever ended its lines, they end in a line feed.

    Raises
    ------
    InputError
        There is no such file, or it is no text that can be read.
    """
    path = existing(path, what)
    not_a_pointer(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None


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
    value = parsed(path, read_text(path))
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, but an object with named fields was expected")
    return value


def not_a_pointer(path: str | os.PathLike) -> None:
    """Refuse what Git LFS leaves in place of a large file that was not fetched: a few lines of text.

    Parameters
    ----------
    path : path

    Raises
    ------
    InputError
        It is such a pointer.
    """
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise InputError(f"{path} is a Git LFS pointer and not the file itself, which `git lfs pull` fetches")


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
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            entry = parsed(path, line)
        except InputError:
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
    not_a_pointer(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: tensor(file, path, name) for name in sorted(file.keys())}
            metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no JSON object")
    except InputError:
        raise
    except (safetensors.SafetensorError, ValueError, RecursionError, TypeError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as safetensors ({_first(error)}); it may be truncated, or not a safetensors file"
        ) from None
    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in tensors.items()}, metadata


def _first(error: BaseException) -> str:
    """First line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


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

    Raises
    ------
    InputError
        It is of a type that NumPy lacks, such as float8.
    """
    kind = file.get_slice(name).get_dtype()
    if kind in NUMPY_TYPES:
        return file.get_tensor(name)
    if kind != "BF16":
        raise InputError(
            f"{path}: {name} is of type {kind}, but floating-point types from 16 bits on and integers can be read; "
            "convert it to float32 first"
        )
    with open(path, "rb") as raw:
        size = int.from_bytes(raw.read(8), "little")
        entry = json.loads(raw.read(size))[name]
        start, end = entry["data_offsets"]
        raw.seek(8 + size + start)
        upper = np.frombuffer(raw.read(end - start), "<u2")  # a bfloat16 is the upper half of a float32
    return (upper.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
