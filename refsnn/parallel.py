"""Threads over sequences, which do not interact: how many, and a training objective computed share by share."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import iadd, imul
from typing import Any

import numpy as np

from .network import Batch, Params
from .ops import Array

__all__ = ["cores", "each", "in_shares", "map_shares", "threads"]

#: Shares of a batch. Their number is fixed, so that what is computed does not depend on the machine's cores.
SHARES = 2


def cores() -> int:
    """Count the cores that this process may use.

    Returns
    -------
    cores : int
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Count the threads that sequences may be shared among.

    Matrix products that have all cores already (OpenBLAS's default) would only wait for each other; the `refsnn`
    command leaves them one thread each.

    Returns
    -------
    threads : int
        The cores if ``OPENBLAS_NUM_THREADS`` is 1, else 1.
    """
    return cores() if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else 1


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


def map_shares(function: Callable[[Batch, Array], Any], batch: Batch, shares: int, workers: int) -> list[Any]:
    """Apply a function to shares of a batch's sequences, several at once.

    Parameters
    ----------
    function : callable
        ``function(share, places)``: the share, and where its sequences are in the batch.
    batch : Batch
    shares, workers : int
        Fewer where there are fewer sequences.

    Returns
    -------
    results : list
        One for each share, in their order.
    """
    places = np.array_split(np.arange(len(batch.input_ids)), max(min(shares, len(batch.input_ids)), 1))
    return each(lambda rows: function(Batch(*(ids[rows] for ids in batch)), rows), places, min(workers, len(places)))


def in_shares(objective):
    """Compute a training objective on shares of the batch, several at once, and put the results together.

    Every loss is a mean over the sequences of a batch, all padded to one length, so a share of b_i of b sequences adds
    b_i/b of its loss and of its gradient.

    Parameters
    ----------
    objective : callable
        ``objective(params, batch, rows) -> (losses, gradients, statistics)``; see `refsnn.training.Objective`.

    Returns
    -------
    objective : callable
        The same mathematically; sums are rounded in another order.
    """

    def whole(params: Params, batch: Batch, rows: Array) -> tuple[dict[str, Any], Params, dict[str, float]]:
        def one(share: Batch, places: Array):
            return len(places) / len(rows), objective(params, share, rows[places])

        weights, parts = zip(*map_shares(one, batch, SHARES, threads()), strict=True)
        losses, gradients, statistics = (_mean(weights, dicts) for dicts in zip(*parts, strict=True))
        return losses, gradients, statistics

    return whole


def _mean(weights: Sequence[float], parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up what the shares found, name by name, in the arrays of the parts: these are nobody else's."""
    names = list(dict.fromkeys(name for part in parts for name in part))

    def one(name: str) -> Any:
        return reduce(iadd, (imul(part[name], w) for w, part in zip(weights, parts, strict=True) if name in part))

    return dict(zip(names, each(one, names, threads()), strict=True))
