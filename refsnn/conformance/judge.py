"""Putting the cases to a backend, and judging its answers.

Values may differ by ``16·u·κ`` of their quantity's largest entry: u is the unit round-off of the precision, κ ≥ 1 how
much a relative change of the inputs changes the quantity, relative to its largest entry, measured on the reference.
Spikes are judged by certificate, since correct programs may differ at structural ties; in exact cases, where nothing
rounds, everything must agree bit for bit.
"""

from __future__ import annotations

import fnmatch
import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..files import read_text
from ..model.batch import Batch
from ..model.neurons import Neuron
from ..model.student import StudentConfig
from ..ops import Array
from ..ops.rounding import PRECISIONS, Precision
from ..readings.certify import certify, certify_neurons
from . import reference
from .cases import VANISHING, Arrays, Case, call, parts
from .recognise import recognise
from .requirements import REQUIREMENTS

__all__ = [
    "Exemption",
    "Expectation",
    "Result",
    "certified",
    "conform",
    "expectation",
    "judge",
    "load_adapter",
    "missing",
    "read_exemptions",
]

#: Roundings that a tolerance allows for, in units of u·κ.
ROUNDINGS = 16
#: Scores at or below this are masked, and compared among themselves: they must not set the scale of the others.
MASKED = -1000.0
#: Relative perturbation by which sensitivity is measured: far above rounding, far below any curvature.
NUDGE = 2.0**-24

Status = Literal["passed", "failed", "unsupported", "skipped", "xfailed", "xpassed"]


@dataclass(frozen=True)
class Expectation:
    """The answer to a case.

    Attributes
    ----------
    values : dict
        Quantity -> float64 array.
    scales : dict
        What differences of a quantity are relative to.
    sensitivity : dict
        κ of each quantity.
    """

    values: Arrays
    scales: dict[str, float]
    sensitivity: dict[str, float]

    def tolerance(self, quantity: str, dtype: str) -> float:
        """Largest difference allowed, relative to the quantity's scale."""
        return ROUNDINGS * PRECISIONS[dtype].unit * self.sensitivity[quantity]


@lru_cache(maxsize=256)
def expectation(case: Case) -> Expectation:
    """Answer of the reference to a case, with scales and sensitivities; computed once.

    Parameters
    ----------
    case : Case

    Returns
    -------
    expectation : Expectation
    """
    values = {k: np.asarray(v, np.float64) for k, v in call(reference, case, case.inputs, "float64").items()}
    largest = max((_size(k, v) for k, v in values.items() if k.startswith(("gradient/", "d"))), default=0.0)
    scales = {}
    for name, value in values.items():
        floor = VANISHING * largest if name.startswith(("gradient/", "padding row")) else 0.0
        scales[name] = max(_size(name, value), floor) or 1.0
    if case.function in ("neurons", "simulate"):
        return Expectation(values, scales, dict.fromkeys(values, 1.0))
    rng = np.random.default_rng(1)
    sensitivity = dict.fromkeys(values, 1.0)
    for _ in range(4):
        moved = call(reference, case, {k: _nudged(k, v, rng) for k, v in case.inputs.items()}, "float64")
        for name, value in values.items():
            change = float(np.abs(np.asarray(moved[name]) - value)[_plain(name, value)].max(initial=0))
            sensitivity[name] = max(sensitivity[name], change / (NUDGE * scales[name]))
    return Expectation(values, scales, sensitivity)


def _nudged(name: str, value: Array, rng: np.random.Generator) -> Array:
    if value.dtype.kind != "f" or name == "mask" or name.startswith("spikes"):
        return value
    return value * (1 + NUDGE * rng.choice([-1.0, 1.0], value.shape))


def _plain(quantity: str, value: Array) -> Array:
    """Which entries are not masked scores; only scores (of an operation, "y") are as low as that."""
    return value > MASKED if quantity == "y" or quantity.startswith("scores/") else np.ones(value.shape, bool)


def _size(quantity: str, value: Array) -> float:
    return float(np.abs(value[_plain(quantity, value)]).max(initial=0))


@dataclass(frozen=True)
class Result:
    """What came of one case in one precision.

    Attributes
    ----------
    case : str
    dtype : str
    requirement : str
        The one that was violated, or that the case is for.
    status : {"passed", "failed", "unsupported", "skipped", "xfailed", "xpassed"}
    message : str
    worst : float
        Largest difference in units of its tolerance.
    level : str
    by_rounding : int
        Spike decisions that differ within rounding.
    """

    case: str
    dtype: str
    requirement: str
    status: Status
    message: str = ""
    worst: float = 0.0
    level: str = ""
    by_rounding: int = 0

    @property
    def id(self) -> str:
        """Case and precision, as skip files and pytest name them."""
        return f"{self.case}[{self.dtype}]"


#: The functions of the contract, of which an adapter has some.
CONTRACT = ("neurons", "asr", "op", "pullback", "current", "rate_map", "simulate", "gradients", "update")


def load_adapter(name: str, functions: Sequence[str] = CONTRACT) -> Any:
    """Import a backend's adapter by the name of its module.

    Parameters
    ----------
    name : str
        ``package.module``, or ``package.module:object``.
    functions : sequence of str
        It must have one of these.

    Returns
    -------
    adapter : module or object

    Raises
    ------
    InputError
        It cannot be imported, or has none of the functions.
    """
    module, _, attribute = name.partition(":")
    try:
        adapter = importlib.import_module(module)
        for part in filter(None, attribute.split(".")):
            adapter = getattr(adapter, part)
    except (Exception, SystemExit) as error:  # whatever a module raises that is not the one that was meant
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"the adapter {name} cannot be imported ({said}); name a module on the Python path") from None
    if not any(callable(getattr(adapter, function, None)) for function in functions):
        raise InputError(
            f"{name} has none of the functions {', '.join(functions)}; docs/test-your-backend.md shows how"
        )
    return adapter


def missing(adapter: Any, case: Case, dtype: str) -> str:
    """Name what an adapter does not support of a case; empty where it supports all.

    Parameters
    ----------
    adapter : module or object
    case : Case
    dtype : str

    Returns
    -------
    feature : str
    """
    if dtype not in getattr(adapter, "dtypes", ("float64", "float32")):
        return dtype
    if not callable(getattr(adapter, case.function, None)):
        return case.function
    supports = getattr(adapter, "supports", None)
    return next((f for f in case.features if supports is not None and not supports(f, dtype)), "")


def _rounded(inputs: Arrays, dtype: str) -> Arrays:
    kind = np.float64 if dtype == "float64" else np.float32
    return {k: v.astype(kind) if v.dtype.kind == "f" else np.asarray(v, np.int64) for k, v in inputs.items()}


def judge(adapter: Any, case: Case, dtype: str) -> Result:
    """Put one case to a backend.

    Parameters
    ----------
    adapter : module or object
    case : Case
    dtype : str

    Returns
    -------
    result : Result
    """
    base = Result(case.id, dtype, case.requirement, "passed", level=case.level)
    if lacking := missing(adapter, case, dtype):
        return replace(base, status="unsupported", message=f"{lacking} is not supported")
    try:
        answer = call(adapter, case, _rounded(case.inputs, dtype), dtype)
    except Exception as error:  # whatever a backend raises is its result
        return replace(
            base, status="failed", message=f"{case.function} raised {type(error).__name__}: {error}", worst=np.inf
        )
    expected = expectation(case)
    worst, by_rounding = 0.0, 0
    if case.function in ("neurons", "simulate") and dtype not in case.exact:
        try:
            by_rounding, message = certified(case, answer, dtype)
        except (InputError, ValueError, TypeError) as error:
            message = str(error)
        if message:
            failed = replace(base, status="failed", message=message, worst=np.inf)
            return _explained(failed, case, answer, expected)
        return replace(base, by_rounding=by_rounding)
    for quantity, value in expected.values.items():
        tolerance = 0.0 if dtype in case.exact else expected.tolerance(quantity, dtype)
        ratio, message = _compare(quantity, answer, value, expected.scales[quantity], tolerance, dtype)
        worst = max(worst, ratio)
        if message:
            requirement = case.requirement_of(quantity)
            failed = replace(base, status="failed", requirement=requirement, message=message, worst=ratio)
            return _explained(failed, case, answer, expected)
    return replace(base, worst=worst)


def _explained(failed: Result, case: Case, answer: Mapping[str, Any], expected: Expectation) -> Result:
    """Add what was required, and the likely mistake: recognised where the answer is that of a known one."""
    requirement = REQUIREMENTS[failed.requirement]
    known = recognise(case, answer, expected.values, failed.dtype)
    likely = f"this is what a backend answers where {known}" if known else f"often: {requirement.often}"
    return replace(
        failed, message=f"{requirement.id} ({requirement.title}): {failed.message}; {likely}. See {requirement.link}"
    )


def _compare(
    quantity: str, answer: Mapping[str, Any], value: Array, scale: float, tolerance: float, dtype: str
) -> tuple[float, str]:
    """Return the difference in units of the tolerance and, where it is beyond, a sentence."""
    if quantity not in answer or answer[quantity] is None:
        if quantity.startswith("gradient/") and not value.any():
            return 0.0, ""  # what takes no part may be absent
        return np.inf, f"{quantity} is missing from the answer"
    try:
        found = np.asarray(answer[quantity], np.float64)
    except (TypeError, ValueError) as error:
        return np.inf, f"{quantity} is no array of real numbers ({error})"
    if found.shape != value.shape:
        return np.inf, f"{quantity} has shape {found.shape}, but {value.shape} was expected"
    if not np.isfinite(found).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
        return np.inf, f"{quantity}{list(at)} is {found[at]}, but {value[at]:.9g} was expected"
    # Masked scores are compared relative to themselves; −10000 is not a number that bfloat16 has.
    plain = _plain(quantity, value)
    relative = np.abs(found - value) / np.where(plain, scale, np.abs(value))
    if tolerance == 0:
        differs = found != value
        if not differs.any():
            return 0.0, ""
        at = tuple(int(i) for i in np.argwhere(differs)[0])
        return np.inf, (
            f"{quantity}{list(at)} is {found[at]:.9g}, but {value[at]:.9g} was expected, exactly: nothing rounds in "
            f"this case ({int(differs.sum())} of {differs.size} entries differ)"
        )
    allowed = np.where(plain, tolerance, ROUNDINGS * PRECISIONS[dtype].unit)
    ratio = float((relative / allowed).max(initial=0))
    if ratio <= 1:
        return ratio, ""
    at = tuple(int(i) for i in np.argwhere(relative > allowed)[0])
    return ratio, (
        f"{quantity}{list(at)} is {found[at]:.9g}, but {value[at]:.9g} was expected; the largest difference is "
        f"{relative.max():.1e} of the largest entry, {ratio:.2g} times the tolerance of {tolerance:.1e} in {dtype}"
    )


def certified(case: Case, answer: Mapping[str, Any], dtype: str) -> tuple[int, str]:
    """Certify the spikes that answer a case.

    Parameters
    ----------
    case : Case
        One whose answer is spikes.
    answer : mapping
    dtype : str

    Returns
    -------
    by_rounding : int
        Decisions that differ within rounding.
    message : str
        A sentence if one is wrong, else empty.
    """
    precision, inputs, settings = Precision.named(dtype), case.inputs, case.settings
    if case.function == "neurons":
        spikes = np.asarray(answer["spikes"], np.float64)
        if spikes.shape != inputs["current"].shape:
            return 0, f"spikes have shape {spikes.shape}, but {inputs['current'].shape} was expected"
        neuron = Neuron(**settings["neuron"])
        if not np.isin(spikes, (0, 1, -1) if neuron.signed else (0, 1)).all():
            return 0, f"spikes hold other values than {'−1, ' * neuron.signed}0 and 1"
        verdicts = {"neurons": certify_neurons(inputs["current"], spikes, neuron, precision)}
    else:
        network = StudentConfig.from_dict(settings["config"]).network
        trains = {name: np.asarray(value) for name, value in answer.items()}
        tokens = inputs["batch/input_ids"].shape
        for p in network.populations:
            wanted = (settings["t_conv"], *tokens, p.width)
            if p.name in trains and trains[p.name].shape != wanted:
                return 0, f"the spikes of {p.name} have shape {trains[p.name].shape}, but {wanted} was expected"
        batch = Batch(**parts(inputs, "batch"))
        verdicts = certify(network, parts(inputs, "param"), batch, trains, settings["rule"], precision)
    first = [(v.first_wrong.t, order, name) for order, (name, v) in enumerate(verdicts.items()) if v.first_wrong]
    if first:
        _, _, name = min(first)
        wrong = sum(v.wrong for v in verdicts.values())
        decisions = sum(v.decisions for v in verdicts.values())
        return 0, (
            f"{wrong} of {decisions} spike decisions are wrong; the first is of {name}: {verdicts[name].first_wrong}"
        )
    return sum(v.by_rounding for v in verdicts.values()), ""


@dataclass
class Exemption:
    """A line of a skip or xfail file: a pattern of ids, and why."""

    pattern: str
    reason: str
    used: bool = field(default=False, compare=False)

    def matches(self, result_id: str) -> bool:
        """Whether the pattern is that of an id, or of its case in every precision."""
        hit = fnmatch.fnmatchcase(result_id.replace("[", "(").replace("]", ")"), self._pattern) or fnmatch.fnmatchcase(
            result_id.partition("[")[0], self._pattern
        )
        self.used = self.used or hit
        return hit

    @property
    def _pattern(self) -> str:
        return self.pattern.replace("[", "(").replace("]", ")")  # brackets name a precision, not a set of characters


def read_exemptions(path: str | os.PathLike | None) -> list[Exemption]:
    """Read a skip or xfail file: one pattern of ids a line, each with a reason after ``#``.

    Parameters
    ----------
    path : path or None

    Returns
    -------
    rules : list of Rule

    Raises
    ------
    InputError
        A line gives no reason.
    """
    if path is None:
        return []
    rules = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        pattern, _, reason = (part.strip() for part in line.partition("#"))
        if not pattern:
            continue
        if not reason:
            raise InputError(f"{Path(path)}, line {number}: {pattern!r} gives no reason; write one after a #")
        rules.append(Exemption(pattern, reason))
    return rules


def conform(
    adapter: Any,
    cases: Sequence[Case],
    dtypes: Iterable[str] | None = None,
    skips: Sequence[Exemption] = (),
    xfails: Sequence[Exemption] = (),
) -> Iterator[Result]:
    """Put every case to a backend, in every precision.

    Parameters
    ----------
    adapter : module or object
    cases : sequence of Case
    dtypes : iterable of str, optional
        The precisions; those that the adapter names by default.
    skips, xfails : sequences of Rule
        What the backend's author does not want asked, or knows to fail.

    Yields
    ------
    result : Result

    Raises
    ------
    InputError
        A precision is unknown.
    """
    chosen = tuple(dtypes) if dtypes is not None else tuple(getattr(adapter, "dtypes", ("float64", "float32")))
    for dtype in chosen:
        if dtype not in PRECISIONS:
            raise InputError(f"the precision is {dtype!r}, but it must be one of {', '.join(PRECISIONS)}")
    for case in cases:
        for dtype in chosen:
            if dtype in case.dtypes:
                yield exempted(adapter, case, dtype, skips, xfails)


def exempted(adapter: Any, case: Case, dtype: str, skips: Sequence[Exemption], xfails: Sequence[Exemption]) -> Result:
    """Put one case to a backend, unless it is skipped; a failure that was foreseen is an xfail.

    Parameters
    ----------
    adapter : module or object
    case : Case
    dtype : str
    skips, xfails : sequences of Rule

    Returns
    -------
    result : Result
    """
    name = f"{case.id}[{dtype}]"
    skip = [rule.reason for rule in skips if rule.matches(name)]
    xfail = [rule.reason for rule in xfails if rule.matches(name)]
    if skip:
        return Result(case.id, dtype, case.requirement, "skipped", skip[0], level=case.level)
    result = judge(adapter, case, dtype)
    if xfail and result.status == "failed":
        return replace(result, status="xfailed", message=f"{xfail[0]} [{result.message}]")
    if xfail and result.status == "passed":
        return replace(result, status="xpassed", message=f"passes, though it was to fail: {xfail[0]}")
    return result
