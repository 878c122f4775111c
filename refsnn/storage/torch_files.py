"""PyTorch's checkpoint files (`pytorch_model.bin`, `.pt`, `.pth`) read and written without PyTorch.

Such a file is a pickle that describes the object, beside the raw bytes of every storage. A pickle is a program for a
stack machine, and among its instructions are "import this name" and "call it": to unpickle a stranger's file is to run
a stranger's program. Nothing is unpickled here. `pickletools` splits the program into instructions, which executes
none of them, and `_interpret` carries out the thirty or so that `torch.save` writes for a state dict, on values that
are plain data:

* a name is never imported, only compared with the table of names that such files contain; any other is refused;
* a "call" is one of four, each done here: an ordered dict is a dict, a size is a tuple, a tensor is a note of its
  storage, offset, shape and strides, and a parameter is its tensor;
* attributes set on a mapping (PyTorch's ``_metadata``) are dropped, instances of classes are never made;
* a length in the file makes nothing larger than the file: strings are slices of it, storages have the size they state,
  and arrays are views of storages, inside them.

A `pickle.Unpickler` with a narrow `find_class` would be shorter, but it still performs every instruction: it calls and
sets attributes on whatever was let in, and what may be let in has to be judged anew with each version of a library that
is imported for it. What is below can be judged by reading it.
"""

from __future__ import annotations

import io
import os
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic, existing
from ..ops import Array

__all__ = ["read_torch", "write_torch"]

#: Classes of storages under their names in the file, and how NumPy reads their items; bfloat16 takes a step more.
STORAGES = {
    "torch DoubleStorage": "f8",
    "torch FloatStorage": "f4",
    "torch HalfStorage": "f2",
    "torch BFloat16Storage": "u2",
    "torch LongStorage": "i8",
    "torch IntStorage": "i4",
    "torch ShortStorage": "i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "u1",
}

#: All names that are understood. None is ever imported; `_call` says what the functions among them do.
NAMES = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_parameter",
    "torch Size",
    *STORAGES,
}

#: Where training programs put the state dict, if the file holds more than that.
NESTED = ("state_dict", "model_state_dict", "model")

#: Largest pickle that is looked at, in bytes. A tensor takes about 150.
MAX_PICKLE = 4 << 20

#: Longest name of a tensor or storage; most axes of a tensor.
MAX_KEY, MAX_AXES = 1000, 32

#: What a compressed archive may unpack to: so many times its own size, or so many bytes. Weights hardly compress.
MAX_RATIO, MAX_UNPACKED = 8, 64 << 20

#: Tensors may show stored numbers more than once (tied and expanded weights), but only so many times on average.
MAX_REPEATS, MAX_REPEATED = 16, 1 << 20

#: The first bytes of the two formats: an archive, since PyTorch 1.6, and before that pickles and storages end to end.
ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

#: What parsers of the standard library and NumPy raise on damaged input.
MALFORMED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, NotImplementedError,
    LookupError, ValueError, TypeError, OverflowError, MemoryError,
)  # fmt: skip


class _RefusedError(Exception):
    """Why a file is not read; becomes part of an InputError's sentence."""


@dataclass(frozen=True)
class _Name:
    """A global of a pickle: one of `NAMES`, and nothing but that."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """Where the numbers of a tensor are: the file's key of a run of `count` items."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A tensor as the pickle states it, unchecked; offset and strides count items."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def read_torch(path: str | os.PathLike) -> dict[str, Array]:
    """Read the tensors of a state dict that `torch.save` wrote, executing nothing.

    Parameters
    ----------
    path : path
        A state dict, or a dict that holds one as ``state_dict``, ``model_state_dict`` or ``model``; in the zip format
        of PyTorch 1.6 and later or the one before.

    Returns
    -------
    tensors : dict
        In the file's order; half precision floats become float32. The arrays are read-only, and those that shared
        memory in PyTorch share it here.

    Raises
    ------
    InputError
        The file is missing or damaged, holds something else than such a dict, or would run code if it were unpickled.
    """
    path = existing(path, "the checkpoint")
    try:
        with open(path, "rb") as file:
            start = file.read(64)
        if start.startswith(ZIP):
            return _read_zip(path)
        if start.startswith(LEGACY):
            return _read_legacy(path.read_bytes())
        if start.startswith(b"version https://git-lfs"):
            raise _RefusedError("it is a Git LFS pointer and not the file itself, which `git lfs pull` fetches")
        raise _RefusedError("it does not begin as a file of torch.save does")
    except _RefusedError as reason:
        raise InputError(
            f"{path} was not read: {reason}; "
            "what can be read is a state dict as torch.save(model.state_dict(), …) writes it"
        ) from None
    except MALFORMED as error:
        raise InputError(
            f"{path} cannot be read as a PyTorch file ({type(error).__name__}: {error}); it may be truncated or damaged"
        ) from None


def _read_zip(path: Path) -> dict[str, Array]:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise _RefusedError("its archive has two entries of one name")
        if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries.values()):
            raise _RefusedError("its archive is compressed in a way that PyTorch does not use")
        if sum(entry.compress_size for entry in entries.values()) > size:
            raise _RefusedError("the entries of its archive overlap or exceed the file")
        if sum(entry.file_size for entry in entries.values()) > max(MAX_RATIO * size, MAX_UNPACKED):
            raise _RefusedError("its archive unpacks to far more than weights would")
        pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise _RefusedError(f"its archive has {len(pickles)} entries data.pkl, where one was expected")
        folder = pickles[0].removesuffix("data.pkl")
        if entries[pickles[0]].file_size > MAX_PICKLE:
            raise _RefusedError("its pickle is far larger than a state dict's")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in entries else b"little"
        if order not in (b"little", b"big"):
            raise _RefusedError("it states no known byte order")

        def raw(storage: _Storage) -> bytes:
            name = f"{folder}data/{storage.key}"  # only looked up among the archive's own names
            if name not in entries:
                raise _RefusedError(f"its archive lacks the storage {storage.key[:80]!r}")
            return archive.read(name)

        described, _ = _interpret(archive.read(pickles[0]), {})
        return _arrays(described, raw, "<" if order == b"little" else ">")


def _read_legacy(data: bytes) -> dict[str, Array]:
    """Magic number, version, system, object and keys, a pickle each; then (count, items) of each key's storage."""
    at = 0
    parts = []
    storages: dict[str, _Storage] = {}
    for _ in range(5):
        part, size = _interpret(data[at : at + MAX_PICKLE], storages)
        parts.append(part)
        at += size
    _, version, system, described, keys = parts
    if version != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise _RefusedError("it is of an unknown version of PyTorch's older format")
    if system.get("little_endian") is not True:
        raise _RefusedError("it was written on a big-endian machine by an old PyTorch")
    places: dict[str, memoryview] = {}
    for key in keys:
        if not isinstance(key, str) or key not in storages or key in places:
            raise _RefusedError("its list of storages does not fit its tensors")
        (count,) = struct.unpack_from("<q", data, at)
        size = np.dtype(STORAGES[storages[key].kind]).itemsize * count
        if count != storages[key].count or at + 8 + size > len(data):
            raise _RefusedError("it is truncated, or a storage has not the stated size")
        places[key] = memoryview(data)[at + 8 : at + 8 + size]
        at += 8 + size
    return _arrays(described, lambda storage: places[storage.key], "<")


def _interpret(data: bytes, storages: dict[str, _Storage]) -> tuple[Any, int]:
    """Carry out a pickle of plain data and tensors.

    Parameters
    ----------
    data : bytes
        Begins with the pickle.
    storages : dict
        The storages that the pickle mentions are added to it, by key.

    Returns
    -------
    value : object
        Of None, booleans, numbers, strings, tuples, lists, dicts, `_Name`, `_Storage` and `_Tensor`.
    size : int
        Bytes that the pickle takes.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop(count: int) -> list[Any]:
        if not 0 <= count <= len(stack):
            raise _RefusedError("its pickle takes more from the stack than there is")
        taken = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return taken

    def since_mark() -> list[Any]:
        return pop(len(stack) - marks.pop())

    argument: Any
    position: Any
    for opcode, argument, position in pickletools.genops(io.BytesIO(data)):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop(), position + 1
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(opcode.name[-1]))))
            case "APPEND" | "APPENDS":
                items = pop(1) if opcode.name == "APPEND" else since_mark()
                _expect(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = pop(2) if opcode.name == "SETITEM" else since_mark()
                _fill(_expect(stack[-1], dict), items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_name(argument))
            case "STACK_GLOBAL":
                stack.append(_name(" ".join(_expect(part, str) for part in pop(2))))
            case "REDUCE":
                stack.append(_call(*pop(2)))
            case "BUILD":
                pop(1)  # the attributes of a mapping, such as _metadata
                _expect(stack[-1], dict)
            case "BINPERSID":
                storage = _storage(*pop(1))
                if storages.setdefault(storage.key, storage) != storage:
                    raise _RefusedError(f"it describes the storage {storage.key[:80]!r} in two ways")
                stack.append(storage)
            case other:
                raise _RefusedError(f"its pickle has the instruction {other}, which a state dict does not need")
    raise _RefusedError("its pickle has no end")


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise _RefusedError(f"its pickle has a {type(value).__name__.strip('_')} where a {kind.__name__} belongs")
    return value


def _fill(target: dict, items: list[Any]) -> None:
    for key in items[::2]:
        if not (len(key) <= MAX_KEY if type(key) is str else type(key) is int and abs(key) < 2**31):
            raise _RefusedError("its pickle has a dict with keys other than names and small integers")
    target.update(zip(items[::2], items[1::2], strict=True))


def _name(text: str) -> _Name:
    if text not in NAMES:
        raise _RefusedError(f"it asks for {text.replace(' ', '.')[:80]!r}, and no code is run for a file")
    return _Name(text)


def _call(function: Any, arguments: Any) -> Any:
    """Do what a state dict's pickle calls functions for."""
    match function.text if isinstance(function, _Name) else None, arguments:
        case "collections OrderedDict", ():
            return {}
        case "collections OrderedDict", (list(pairs),):  # as Python 2 wrote it
            result: dict = {}
            for pair in pairs:
                if len(_expect(pair, list)) == 2:
                    _fill(result, pair)
            return result
        case "torch Size", (tuple(shape),):
            return shape
        case "torch._utils _rebuild_parameter", (_Tensor() as tensor, *_):
            return tensor
        case (
            "torch._utils _rebuild_tensor_v2" | "torch._utils _rebuild_tensor",
            (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_),
        ):
            return _Tensor(storage, offset, shape, strides)
    raise _RefusedError("its pickle calls a function in a way that a state dict does not need")


def _storage(identity: Any) -> _Storage:
    match identity:  # the older format ends with a view of the storage, or None
        case ("storage", _Name(text=kind), str(key), str(), int(count)) | (
            "storage", _Name(text=kind), str(key), str(), int(count), None
        ) if kind in STORAGES and len(key) <= MAX_KEY and count >= 0:  # fmt: skip
            return _Storage(kind, key, count)
    raise _RefusedError("its pickle refers to something else than a storage")


def _state_dict(described: Any) -> dict[str, _Tensor]:
    """Find the names and tensors in what a pickle describes."""
    for _ in NESTED:  # not until there is nothing to descend to: a dict may hold itself
        values = described if isinstance(described, dict) else {}
        described = next((values[key] for key in NESTED if isinstance(values.get(key), dict)), described)
    items = described.items() if isinstance(described, dict) else ()
    tensors = {name: value for name, value in items if isinstance(value, _Tensor)}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise _RefusedError(f"it holds no names with tensors, neither as a whole nor as {', '.join(NESTED)}")
    return tensors


def _arrays(described: Any, raw: Callable[[_Storage], bytes | memoryview], order: str) -> dict[str, Array]:
    """Fill the tensors of the state dict in `described` with their numbers."""
    storages: dict[_Storage, Array] = {}
    arrays = {}
    shown = stored = 0
    for name, tensor in _state_dict(described).items():
        if tensor.storage not in storages:
            storages[tensor.storage] = _numbers(tensor.storage, raw(tensor.storage), order)
            stored += tensor.storage.count
        arrays[name] = _view(name[:80], tensor, storages[tensor.storage])
        shown += arrays[name].size
        if shown > MAX_REPEATS * stored + MAX_REPEATED:
            raise _RefusedError("its tensors repeat the stored numbers far too often")
    return arrays


def _view(name: str, tensor: _Tensor, values: Array) -> Array:
    """See a tensor's part of its storage as an array, after making sure that it is a part of it."""
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    if not len(shape) == len(strides) <= MAX_AXES or not all(
        type(n) is int and 0 <= n < 2**62 for n in (offset, *shape, *strides)
    ):
        raise _RefusedError(f"the shape or strides of {name!r} are not those of a tensor")
    if 0 in shape:
        return np.empty(shape, values.dtype)
    if offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) >= len(values):
        raise _RefusedError(f"{name!r} reaches beyond its storage")
    item = values.itemsize  # NumPy, too, makes sure that the view lies inside
    return np.ndarray(shape, values.dtype, values, offset * item, [step * item for step in strides])


def _numbers(storage: _Storage, raw: bytes | memoryview, order: str) -> Array:
    """Read the numbers of a storage as a type that NumPy computes with, read-only."""
    dtype = np.dtype(order + STORAGES[storage.kind])
    if len(raw) != storage.count * dtype.itemsize:
        raise _RefusedError(f"the storage {storage.key[:80]!r} has not the stated size; the file may be truncated")
    items = np.frombuffer(raw, dtype) if len(raw) else np.empty(0, dtype)
    if storage.kind == "torch BFloat16Storage":  # the upper half of a float32
        values = (items.astype(np.uint32) << 16).view(np.float32)
    elif storage.kind == "torch HalfStorage":
        values = items.astype(np.float32)
    elif storage.kind == "torch BoolStorage":
        values = items != 0
    else:
        values = items.astype(dtype.newbyteorder("="), copy=False)
    values.flags.writeable = False
    return values


def write_torch(path: str | os.PathLike, tensors: Mapping[str, Array]) -> None:
    """Write arrays as `torch.save` writes a state dict, atomically; the same arrays give the same bytes.

    ``torch.load(path)`` gives the tensors back, with ``weights_only=True`` too. Names with the very same array (not
    only equal ones) share their memory, in the file and in PyTorch.

    Parameters
    ----------
    path : path
    tensors : mapping
        float16, float32, float64, boolean or integer arrays.

    Raises
    ------
    InputError
        An array is of another type.
    """
    kinds = {np.dtype(code): kind for kind, code in STORAGES.items() if kind != "torch BFloat16Storage"}
    kinds |= {np.dtype(np.uint8): "torch ByteStorage", np.dtype(bool): "torch BoolStorage"}
    arrays: dict[int, tuple[str, Array]] = {}  # id -> key in the file, array

    def text(value: str) -> bytes:
        encoded = value.encode()
        return b"X" + struct.pack("<I", len(encoded)) + encoded

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value) if value < 2**31 else b"\x8a\x08" + struct.pack("<q", value)

    def name(value: str) -> bytes:
        module, _, attribute = value.rpartition(" ")
        return f"c{module}\n{attribute}\n".encode()

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(integer, values)) + b"t"

    def tensor(array: Array) -> bytes:
        if array.dtype not in kinds:
            raise InputError(f"an array of type {array.dtype} was to be written, but PyTorch files hold none such")
        key, _ = arrays.setdefault(id(array), (str(len(arrays)), array))
        steps = tuple(prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
        storage = text("storage") + name(kinds[array.dtype]) + text(key) + text("cpu") + integer(array.size)
        hooks = name("collections OrderedDict") + b")R"
        arguments = b"(" + storage + b"tQ" + integer(0) + numbers(array.shape) + numbers(steps) + b"\x89" + hooks
        return name("torch._utils _rebuild_tensor_v2") + b"(" + arguments + b"tR"

    items = b"".join(text(key) + tensor(array) for key, array in tensors.items())
    described = b"\x80\x02" + name("collections OrderedDict") + b")R(" + items + b"u."
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        parts = {"data.pkl": described, "byteorder": b"little", "version": b"3\n"}
        for entry, part in parts.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{entry}"), part)  # a ZipInfo of a fixed date
        for key, array in arrays.values():
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            archive.writestr(zipfile.ZipInfo(f"archive/data/{key}"), little.tobytes())
