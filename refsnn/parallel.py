"""Threads over pieces of work that do not interact, such as the sequences of a batch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from .errors import InputError

__all__ = ["CORES", "cores", "each", "rounds", "threads"]

#: Environment variable: so many cores at most, where a process shares a machine with others.
CORES = "REFSNN_CORES"


def cores() -> int:
    """Count the cores that this process may use: those that the system gives it, or fewer by ``REFSNN_CORES``.

    Returns
    -------
    cores : int

    Raises
    ------
    InputError
        The variable is no whole number of at least 1.
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not (limit := os.environ.get(CORES)):
        return found
    if not (limit.isascii() and limit.isdigit() and int(limit) > 0):
        raise InputError(f"{CORES} is {limit!r}, but it must be a whole number of at least 1; change it or unset it")
    return min(found, int(limit))


@cache
def _pools() -> Any:
    """Find the libraries of matrix products that are loaded; None where nobody can tell."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def threads() -> int:
    """Count the threads that sequences may be shared among.

    Matrix products that have all cores already, as by default, would only wait for each other; the `refsnn` command
    leaves them one thread each (`refsnn.process.prepare`).

    Returns
    -------
    threads : int
        The cores if matrix products have one thread each (threadpoolctl says so), else 1.
    """
    pools = _pools()
    return cores() if pools is not None and all(pool["num_threads"] == 1 for pool in pools.info()) else 1


def each(function: Callable[[Any], Any], items: Sequence[Any], workers: int) -> list[Any]:
    """Apply a function to every item, by several threads, each taking the next item as soon as it is free.

    Parameters
    ----------
    function : callable
        Of one item; nothing that it changes may be another item's.
    items : sequence
    workers : int
        Threads.

    Returns
    -------
    results : list
        One for each item, in their order.

    Examples
    --------
    >>> each(abs, [-1, 2, -3], 2)
    [1, 2, 3]
    """
    if workers == 1:
        return [function(item) for item in items]
    results: list[Any] = [None] * len(items)
    waiting = iter(range(len(items)))

    def work(_: int) -> None:
        # One call of the pool for each thread, not for each item: items may be small and many.
        try:
            for i in waiting:
                results[i] = function(items[i])
        finally:
            deque(waiting, 0)  # after an error nobody begins another item

    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(work, range(workers)))  # the list raises what a thread raised
        finally:
            deque(waiting, 0)  # nor after Ctrl-C, which comes to this thread
    return results


def rounds(function: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[list[Any]]:
    """Apply a function to as many items at a time as there are threads, where results are too large to keep them all.

    Parameters
    ----------
    function : callable
        Of one item, as for `each`.
    items : sequence
    workers : int
        Threads.

    Yields
    ------
    results : list
        Of the next items, in their order.

    Examples
    --------
    >>> list(rounds(abs, [-1, 2, -3], 2))
    [[1, 2], [3]]
    """
    for first in range(0, len(items), workers):
        yield each(function, items[first : first + workers], workers)
