"""Threads over sequences, which do not interact: how many, and a training objective computed share by share."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .network import Batch, Params, accumulate
from .ops import Array

__all__ = ["cores", "in_shares", "threads"]

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
        shares = np.array_split(np.arange(len(rows)), min(SHARES, len(rows)))

        def one(share: Array):
            weight = len(share) / len(rows)
            parts = objective(params, Batch(*(ids[share] for ids in batch)), rows[share])
            return [{name: value * weight for name, value in part.items()} for part in parts]

        with ThreadPoolExecutor(min(threads(), len(shares))) as pool:
            losses, gradients, statistics = zip(*pool.map(one, shares), strict=True)
        return _total(losses), _total(gradients), _total(statistics)

    return whole


def _total(parts) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            accumulate(total, name, value)
    return total
