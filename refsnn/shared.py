"""Arrays in memory that several processes map: parameters that they read, results that they write.

The memory has no name in any file system (Linux, `memfd_create`), so that nothing is left behind whoever is killed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np

__all__ = ["Shared", "copied", "forget", "possible", "room"]

#: Arrays begin at multiples of this, as NumPy's own do at least.
ALIGNED = 64

_serial = count()

#: Name, shape and type of every array, in their order.
Layout = tuple[tuple[str, tuple[int, ...], str], ...]


class Shared(dict[str, np.ndarray]):
    """Arrays by name. Another process gets the place of their memory, and maps it; see `copied` and `room`."""

    def __init__(self, layout: Layout, memory: mmap.mmap, place: tuple[str, int]) -> None:
        for (name, shape, kind), start in zip(layout, _starts(layout), strict=False):
            size = int(np.prod(shape))
            self[name] = np.frombuffer(memory, kind, size, start).reshape(shape)
        self.layout, self.place = layout, place

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (self.layout, *self.place)


def _starts(layout: Layout) -> list[int]:
    """Where each array begins, and where the last one ends."""
    starts = [0]
    for _, shape, kind in layout:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        starts.append(starts[-1] + -(-size // ALIGNED) * ALIGNED)
    return starts


@lru_cache(maxsize=4)
def _attached(layout: Layout, path: str, serial: int) -> Shared:
    """Map another process's arrays. The serial number tells memory apart that had the same path one after the other."""
    with open(path, "r+b") as file:
        return Shared(layout, mmap.mmap(file.fileno(), 0), (path, serial))


def forget() -> None:
    """Let go of other processes' arrays."""
    _attached.cache_clear()


def possible() -> bool:
    """Whether the system has such memory.

    Returns
    -------
    yes : bool
    """
    return hasattr(os, "memfd_create")


@contextmanager
def room(layout: Mapping[str, tuple[tuple[int, ...], Any]]) -> Iterator[Shared]:
    """Make room for arrays, which other processes find while the block lasts; this one may keep them.

    Parameters
    ----------
    layout : mapping
        Name -> shape and type.

    Yields
    ------
    arrays : Shared
        Of zeros.
    """
    described = tuple((name, tuple(shape), np.dtype(kind).str) for name, (shape, kind) in layout.items())
    handle = os.memfd_create("refsnn")
    try:
        size = max(_starts(described)[-1], 1)
        os.ftruncate(handle, size)
        yield Shared(described, mmap.mmap(handle, size), (f"/proc/{os.getpid()}/fd/{handle}", next(_serial)))
    finally:
        os.close(handle)


@contextmanager
def copied(arrays: Mapping[str, np.ndarray]) -> Iterator[Shared]:
    """Copy arrays to where other processes find them while the block lasts.

    Parameters
    ----------
    arrays : mapping

    Yields
    ------
    arrays : Shared
    """
    with room({name: (array.shape, array.dtype) for name, array in arrays.items()}) as found:
        for name, array in arrays.items():
            found[name][...] = array
        yield found
