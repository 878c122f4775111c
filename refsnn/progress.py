"""Progress bars, for a person who is looking."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from .files import require

__all__ = ["progress", "quiet"]

#: Whether this thread works on a task for somebody else, who says how far everything is.
quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def progress(
    label: str,
    unit: str,
    total: int | None = None,
    items: Iterable[Any] | None = None,
    initial: int = 0,
    leave: bool = True,
) -> Any:
    """Make a progress bar on standard error; where that is a file or a pipe, nothing is shown.

    Parameters
    ----------
    label, unit : str
        What is done, and in what it is counted.
    total : int, optional
        How many of them; the length of `items` by default, if they have one.
    items : iterable, optional
        To be counted while they are iterated over.
    initial : int
        How many were done earlier.
    leave : bool
        Whether the bar stays when it is full.

    Returns
    -------
    bar : tqdm.tqdm
        A context manager, with ``update`` and ``set_postfix``.

    Examples
    --------
    >>> with progress("counting", "number", 3) as bar:
    ...     for _ in range(3):
    ...         _ = bar.update()
    """
    looks: dict[str, Any] = {"desc": f"{label:>10}", "unit": unit, "dynamic_ncols": True, "smoothing": 0.05}
    disable = True if quiet.get() else None  # None: where standard error is no terminal
    return require("tqdm").tqdm(items, total=total, initial=initial, leave=leave, disable=disable, **looks)
