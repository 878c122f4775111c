"""Putting the cases to a backend, and judging its answers.

Values may differ by ``16·u·κ`` of their quantity's largest entry: u is the unit round-off of the precision, κ ≥ 1 how
much a relative change of the inputs changes the quantity, relative to its largest entry, measured on the reference.
Spikes are judged by certificate, since correct programs may differ at structural ties; in exact cases, where nothing
rounds, everything must agree bit for bit.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..files import read_text
from ..model.batch import Batch
from ..model.gpt import described
from ..model.neurons import Neuron
from ..ops import Array
from ..ops.rounding import PRECISIONS, Precision
from ..readings.certify import Verdict, certify, certify_neurons
from . import reference
from .ask import ask, declared, known_precision, plain_text
from .backwards import COTANGENT, first_astray, inside
from .cases import VANISHING, Arrays, Case, call, parts
from .child import Child
from .recognise import recognise
from .requirements import REQUIREMENTS

__all__ = [
    "Exemption",
    "Expectation",
    "Result",
    "certified",
    "conform",
    "excused",
    "expectation",
    "first_wrong",
    "judge",
    "read_exemptions",
    "skipped",
]

#: Roundings that a tolerance allows for, in units of u·κ.
ROUNDINGS = 16
#: Scores at or below this are masked, and compared among themselves: they must not set the scale of the others.
MASKED = -1000.0
#: What to do about TF32.
TF32 = (
    "on a GPU turn TF32 off, by torch.set_float32_matmul_precision('highest') in PyTorch and "
    "jax.config.update('jax_default_matmul_precision', 'highest') in JAX, or claim the precision tf32"
)
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
    multiplies : bool
        Whether matrix products are taken, whose inputs some precisions round.
    optional : dict
        Like `values`, but an answer need not hold it: the cotangents of rates, from the loss backwards.
    compared : dict
        Which entries of these are compared; the others are 0 here.
    """

    values: Arrays
    scales: dict[str, float]
    sensitivity: dict[str, float]
    multiplies: bool = True
    optional: Arrays = field(default_factory=dict)
    compared: dict[str, Array] = field(default_factory=dict)

    def tolerance(self, quantity: str, dtype: str) -> float:
        """Largest difference allowed, relative to the quantity's scale."""
        precision = PRECISIONS[dtype]
        unit = max(precision.unit, precision.product if self.multiplies else 0.0)
        return ROUNDINGS * unit * self.sensitivity[quantity]


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
    compared = inside(case) if case.function == "gradients" else {}

    def answered(inputs: Arrays) -> Arrays:
        found = call(reference, case, inputs, "float64").items()
        return {k: np.where(compared.get(k, True), np.asarray(v, np.float64), 0) for k, v in found}

    values = answered(case.inputs)
    largest = max((_size(k, v) for k, v in values.items() if k.startswith(("gradient/", "d"))), default=0.0)
    steepest = max((_size(k, v) for k, v in values.items() if k.startswith(COTANGENT)), default=0.0)
    scales = {}
    for name, value in values.items():
        floor = VANISHING * largest if name.startswith(("gradient/", "padding row")) else 0.0
        floor = VANISHING * steepest if name.startswith(COTANGENT) else floor
        scales[name] = max(_size(name, value), floor) or 1.0
    if case.function in ("neurons", "simulate"):
        return Expectation(values, scales, dict.fromkeys(values, 1.0), case.multiplies)
    rng = np.random.default_rng(1)
    sensitivity = dict.fromkeys(values, 1.0)
    for _ in range(4):
        moved = answered({k: _nudged(k, v, rng) for k, v in case.inputs.items()})
        for name, value in values.items():
            change = float(np.abs(moved[name] - value)[_plain(name, value)].max(initial=0))
            sensitivity[name] = max(sensitivity[name], change / (NUDGE * scales[name]))
    optional = {name: values.pop(name) for name in list(values) if name.startswith(COTANGENT)}
    return Expectation(values, scales, sensitivity, case.multiplies, optional, compared)


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
    undecidable : float
        Share of the spike decisions that either answer would have passed.
    trace : str
        The traceback of an exception.
    bare : str
        The message without a hint.
    guess : bool
        Whether the hint is what usually is wrong, and not what was found to be.
    """

    case: str
    dtype: str
    requirement: str
    status: Status
    message: str = ""
    worst: float = 0.0
    level: str = ""
    by_rounding: int = 0
    undecidable: float = 0.0
    trace: str = field(default="", repr=False)
    bare: str = field(default="", repr=False)
    guess: bool = False

    @property
    def id(self) -> str:
        """Case and precision, as skip files and pytest name them."""
        return f"{self.case}[{self.dtype}]"


def judge(adapter: Any, case: Case, dtype: str) -> Result:
    """Put one case to a backend.

    Parameters
    ----------
    adapter : module, object or Child
    case : Case
    dtype : str

    Returns
    -------
    result : Result
    """
    base = Result(case.id, dtype, case.requirement, "passed", level=case.level)
    reply = adapter.ask(case, dtype) if isinstance(adapter, Child) else ask(adapter, case, dtype)
    if reply.lacking:
        return replace(base, status="unsupported", message=f"{reply.lacking} is not supported")
    if reply.problem:
        failed = replace(base, status="failed", message=reply.problem, worst=np.inf, trace=reply.trace)
        return _told(failed, "")
    if case.function in ("neurons", "simulate") and not case.exact_in(dtype):
        return _certified(base, case, reply.answer)
    expected = expectation(case)
    unasked = _unasked(case, expected)
    worst = 0.0
    answer = dict(reply.answer)
    optional = {name: value for name, value in expected.optional.items() if name in answer}
    for name, value in optional.items():
        if answer[name].shape == value.shape:
            answer[name] = np.where(expected.compared[name], answer[name], 0)
    for quantity, value in (expected.values | optional).items():
        tolerance = 0.0 if case.exact_in(dtype) else expected.tolerance(quantity, dtype)
        found = _compare(quantity, answer, value, expected.scales[quantity], tolerance, dtype, unasked)
        worst = max(worst, found.ratio)
        if found.message:
            requirement = case.requirement_of(quantity)
            failed = replace(base, status="failed", requirement=requirement, message=found.message, worst=found.ratio)
            if optional and not found.malformed:
                failed = _located(failed, case, answer, expected)
            return _told(failed, "" if found.malformed else _hint(failed, case, answer, expected))
    return replace(base, worst=worst)


def _located(failed: Result, case: Case, answer: Mapping[str, Any], expected: Expectation) -> Result:
    """Add the population whose derivative is wrong to a message about gradients, where the answer shows it."""
    allowed = {q: 4 * expected.tolerance(q, failed.dtype) * scale for q, scale in expected.scales.items()}
    where = first_astray(case, answer, allowed, expected.compared)
    return replace(failed, message=f"{failed.message}; {where}") if where else failed


def _unasked(case: Case, expected: Expectation) -> set[str]:
    """Return what an answer may leave out: parameters and moments of an update that have no gradient."""
    if case.function != "update":
        return set()
    gradients = {name.removeprefix("gradient/") for name in case.inputs if name.startswith("gradient/")}
    return {q for q in expected.values if q.partition("/")[2] not in gradients}


def _certified(base: Result, case: Case, answer: Mapping[str, Any]) -> Result:
    """Judge spikes by certificate."""
    try:
        verdicts = certified(case, answer, base.dtype)
    except (InputError, ValueError, TypeError) as error:
        return _told(replace(base, status="failed", message=plain_text(error), worst=np.inf), "")
    decisions = sum(v.decisions for v in verdicts.values())
    base = replace(
        base,
        by_rounding=sum(v.by_rounding for v in verdicts.values()),
        undecidable=sum(v.undecidable for v in verdicts.values()) / decisions,
    )
    if not (message := first_wrong(verdicts)):
        return base
    failed = replace(base, status="failed", message=message, worst=np.inf)
    return _told(failed, _hint(failed, case, answer, expectation(case)))


def _hint(failed: Result, case: Case, answer: Mapping[str, Any], expected: Expectation) -> str:
    """Say what the mistake is where that is known, or else what usually was.

    A difference that a lower precision of products explains is none of those that are usual.
    """
    if known := recognise(case, answer, expected.values, failed.dtype):
        told = f"this is what a backend answers where {known}"
        return f"{told}; {TF32}" if "TF32" in known else told
    ratio = failed.worst * PRECISIONS["float32"].unit / PRECISIONS["tf32"].product
    if failed.dtype == "float32" and case.multiplies and ratio <= 1 and not case.exact:
        return f"it is as far off as matrix products of TF32 inputs are: {TF32}"
    return f"often: {REQUIREMENTS[failed.requirement].often}"


def _told(failed: Result, hint: str) -> Result:
    """Say what was required, what was found, and the hint, if there is one."""
    requirement = REQUIREMENTS[failed.requirement]
    bare = f"{requirement.id} ({requirement.title}): {failed.message}"
    told = f"{bare}; {hint}" if hint else bare
    return replace(failed, message=f"{told}. See {requirement.link}", bare=bare, guess=hint.startswith("often"))


@dataclass(frozen=True)
class _Comparison:
    """How one quantity differs: in units of its tolerance and, where that is too much, in a sentence."""

    ratio: float
    message: str = ""
    malformed: bool = False


def _compare(
    quantity: str,
    answer: Mapping[str, Any],
    value: Array,
    scale: float,
    tolerance: float,
    dtype: str,
    unasked: Collection[str] = (),
) -> _Comparison:
    """Compare a quantity with its right value."""

    def malformed(message: str) -> _Comparison:
        return _Comparison(np.inf, message, True)

    if answer.get(quantity) is None:
        if (quantity.startswith("gradient/") and not value.any()) or quantity in unasked:
            return _Comparison(0.0)  # what takes no part may be absent
        return malformed(f"{quantity} is missing from the answer")
    found = answer[quantity].astype(np.float64)
    if found.shape != value.shape:
        return malformed(f"{quantity} has shape {found.shape}, but {value.shape} was expected")
    if not np.isfinite(found).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
        return malformed(f"{quantity}{list(at)} is {found[at]}, but {value[at]:.9g} was expected")
    # Masked scores are compared relative to themselves; −10000 is not a number that bfloat16 has.
    plain = _plain(quantity, value)
    relative = np.abs(found - value) / np.where(plain, scale, np.abs(value))
    if tolerance == 0:
        differs = found != value
        if not differs.any():
            return _Comparison(0.0)
        at = tuple(int(i) for i in np.argwhere(differs)[0])
        return _Comparison(np.inf, (
            f"{quantity}{list(at)} is {found[at]:.9g}, but {value[at]:.9g} was expected, exactly: nothing rounds in "
            f"this case ({int(differs.sum())} of {differs.size} entries differ)"
        ))  # fmt: skip
    allowed = np.where(plain, tolerance, ROUNDINGS * PRECISIONS[dtype].unit)
    ratio = float((relative / allowed).max(initial=0))
    if ratio <= 1:
        return _Comparison(ratio)
    at = tuple(int(i) for i in np.argwhere(relative > allowed)[0])
    return _Comparison(ratio, (
        f"{quantity}{list(at)} is {found[at]:.9g}, but {value[at]:.9g} was expected; the largest difference is "
        f"{relative.max():.1e} of the largest entry, {ratio:.2g} times the tolerance of {tolerance:.1e} in {dtype}"
    ))  # fmt: skip


def certified(case: Case, answer: Mapping[str, Any], dtype: str) -> dict[str, Verdict]:
    """Certify the spikes that answer a case.

    Parameters
    ----------
    case : Case
        One whose answer is spikes.
    answer : mapping
    dtype : str

    Returns
    -------
    verdicts : dict
        Population -> Verdict; of single neurons, "neurons".

    Raises
    ------
    InputError
        The answer is no record of spikes of this case.
    """
    precision, inputs, settings = Precision.named(dtype), case.inputs, case.settings
    if case.function == "neurons":
        if answer.get("spikes") is None:
            raise InputError("spikes is missing from the answer")
        spikes = np.asarray(answer["spikes"], np.float64)
        if spikes.shape != inputs["current"].shape:
            raise InputError(f"spikes have shape {spikes.shape}, but {inputs['current'].shape} was expected")
        neuron = Neuron(**settings["neuron"])
        if not np.isin(spikes, (0, 1, -1) if neuron.signed else (0, 1)).all():
            raise InputError(f"spikes hold other values than {'−1, ' * neuron.signed}0 and 1")
        return {"neurons": certify_neurons(inputs["current"], spikes, neuron, precision)}
    network = described(settings["config"]).network
    analogue = {p.name for p in network.populations if p.neuron is None}  # their currents follow from the spikes
    trains = {name: np.asarray(value) for name, value in answer.items() if name not in analogue}
    tokens = inputs["batch/input_ids"].shape
    for p in network.populations:
        wanted = (settings["t_conv"], *tokens, p.width)
        if p.name in trains and trains[p.name].shape != wanted:
            raise InputError(f"the spikes of {p.name} have shape {trains[p.name].shape}, but {wanted} was expected")
    batch = Batch(**parts(inputs, "batch"))
    return certify(network, parts(inputs, "param"), batch, trains, settings["rule"], precision)


def first_wrong(verdicts: Mapping[str, Verdict]) -> str:
    """Say where the first wrong decision is; empty if there is none.

    Parameters
    ----------
    verdicts : mapping

    Returns
    -------
    sentence : str
    """
    first = [(v.first_wrong.t, order, name) for order, (name, v) in enumerate(verdicts.items()) if v.first_wrong]
    if not first:
        return ""
    _, _, name = min(first)
    wrong = sum(v.wrong for v in verdicts.values())
    decisions = sum(v.decisions for v in verdicts.values())
    return f"{wrong} of {decisions} spike decisions are wrong; the first is of {name}: {verdicts[name].first_wrong}"


@dataclass
class Exemption:
    """A line of a skip or xfail file: a pattern of ids, and why."""

    pattern: str
    reason: str
    used: bool = field(default=False, compare=False)

    def matches(self, result_id: str) -> bool:
        """Whether the pattern is that of an id, or of its case in every precision."""
        case, _, dtype = result_id.rstrip("]").partition("[")
        case = case.partition("@")[0]  # whatever the seed
        names = (f"{case}({dtype})", f"{case}-{dtype}", case)  # pytest names them with a hyphen
        hit = any(fnmatch.fnmatchcase(name, self._pattern) for name in names)
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
    adapter : module, object or Child
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
    chosen = tuple(dtypes) if dtypes is not None else declared(adapter)
    for dtype in chosen:
        known_precision(dtype)
    for case in cases:
        for dtype in chosen:
            if case.asked_in(dtype):
                yield exempted(adapter, case, dtype, skips, xfails)


def exempted(adapter: Any, case: Case, dtype: str, skips: Sequence[Exemption], xfails: Sequence[Exemption]) -> Result:
    """Put one case to a backend, unless it is skipped; a failure that was foreseen is an xfail.

    Parameters
    ----------
    adapter : module, object or Child
    case : Case
    dtype : str
    skips, xfails : sequences of Rule

    Returns
    -------
    result : Result
    """
    return excused(skipped(case, dtype, skips) or judge(adapter, case, dtype), xfails)


def skipped(case: Case, dtype: str, skips: Sequence[Exemption]) -> Result | None:
    """Return the result of a case that is not to be asked; None of one that is.

    Parameters
    ----------
    case : Case
    dtype : str
    skips : sequence of Rule

    Returns
    -------
    result : Result or None
    """
    reasons = [rule.reason for rule in skips if rule.matches(f"{case.id}[{dtype}]")]
    return Result(case.id, dtype, case.requirement, "skipped", reasons[0], level=case.level) if reasons else None


def excused(result: Result, xfails: Sequence[Exemption]) -> Result:
    """Turn a failure that was foreseen into an xfail, and a pass that was not into an xpass.

    Parameters
    ----------
    result : Result
    xfails : sequence of Rule

    Returns
    -------
    result : Result
    """
    xfail = [rule.reason for rule in xfails if rule.matches(result.id)]
    if xfail and result.status == "failed":
        return replace(result, status="xfailed", message=f"{xfail[0]} [{result.message}]")
    if xfail and result.status == "passed":
        return replace(result, status="xpassed", message=f"passes, though it was to fail: {xfail[0]}")
    return result
