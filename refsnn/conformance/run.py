"""A whole run: an adapter in a process of its own, or in several, is put every case."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from .ask import known_precision
from .cases import Case
from .child import TIMEOUT, Child
from .judge import Exemption, Result, excused, judge, skipped

__all__ = ["Asked", "mend_first", "run"]

#: What answers of a function are built on: where that is wrong, the function is not to blame.
BUILT_ON = {
    "current": ("op",),
    "rate_map": ("op", "current"),
    "simulate": ("neurons", "op", "current"),
    "gradients": ("op", "pullback", "current", "rate_map"),
}
#: Operations that no network has.
APART = ("tanh", "cross_entropy")


@dataclass(frozen=True)
class Asked:
    """What an adapter is asked, and how.

    Attributes
    ----------
    cases : sequence of Case
    dtypes : sequence of str or None
        Precisions; the adapter's where there are none.
    skips, xfails : sequences of Exemption
    timeout : float
        Seconds for the import, and for each case.
    jobs : int
        Processes that ask at once, each with an adapter of its own.
    first : bool
        Stop at the first failure.
    """

    cases: Sequence[Case]
    dtypes: Sequence[str] | None = None
    skips: Sequence[Exemption] = ()
    xfails: Sequence[Exemption] = ()
    timeout: float = TIMEOUT
    jobs: int = 1
    first: bool = False


def run(child: Child, asked: Asked) -> Iterator[Result]:
    """Put every case to an adapter, in every precision.

    Parameters
    ----------
    child : Child
    asked : Asked

    Yields
    ------
    result : Result
    """
    dtypes = asked.dtypes or child.dtypes
    for dtype in dtypes:
        known_precision(dtype)
    questions = [(case, dtype) for case in asked.cases for dtype in dtypes if case.asked_in(dtype)]
    judged = _alone(child, asked, questions) if asked.jobs == 1 else _together(child.adapter, asked, questions)
    for result in judged:
        result = excused(result, asked.xfails)
        yield result
        if asked.first and result.status == "failed":
            return


def _alone(child: Child, asked: Asked, questions: Sequence[tuple[Case, str]]) -> Iterator[Result]:
    for case, dtype in questions:
        yield skipped(case, dtype, asked.skips) or judge(child, case, dtype)


def _together(adapter: str, asked: Asked, questions: Sequence[tuple[Case, str]]) -> Iterator[Result]:
    """Judge in several processes; results come in the cases' order."""
    spawn = multiprocessing.get_context("spawn")  # a process that has threads must not be forked
    with ProcessPoolExecutor(asked.jobs, spawn, _begin, (adapter, asked.timeout)) as pool:
        jobs: list[Result | Future[Result]] = []
        for case, dtype in questions:
            jobs.append(skipped(case, dtype, asked.skips) or pool.submit(_judged, case, dtype))
        try:
            for job in jobs:
                yield job if isinstance(job, Result) else job.result()
        finally:
            pool.shutdown(cancel_futures=True)


_STATE: dict[str, Any] = {}


def _begin(adapter: str, timeout: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process says when it is over
    _STATE["child"] = Child(adapter, timeout)


def _judged(case: Case, dtype: str) -> Result:
    return judge(_STATE["child"], case, dtype)


def mend_first(results: Sequence[Result]) -> list[Result]:
    """Say what to mend first, in place of a guess, where an answer is built on something that is wrong as well.

    Parameters
    ----------
    results : sequence of Result

    Returns
    -------
    results : list of Result
    """
    wrong = [r for r in results if r.status == "failed"]

    def below(result: Result) -> list[str]:
        parts = BUILT_ON.get(result.case.partition("/")[0], ())
        return [
            other.id
            for other in wrong
            if other.dtype == result.dtype
            and (kind := other.case.partition("/"))[0] in parts
            and not kind[2].startswith(APART)
        ]

    found = []
    for result in results:
        first = below(result) if result.status == "failed" and result.guess else []
        if first:
            names = ", ".join(first[:3]) + (f" and {len(first) - 3} more" if len(first) > 3 else "")
            result = replace(result, message=f"{result.bare}; mend these first: {names}", guess=False)
        found.append(result)
    return found
