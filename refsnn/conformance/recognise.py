"""Naming the likely mistake: known mistakes are made on purpose, and their answers compared with the backend's.

`mistakes.neurons` does this for neurons. Here are the operations' mistakes, each a wrong operation in the
form of `refsnn.conformance.reference.OPS`; the networks', each the right network on other settings or inputs, or a
network that is wired otherwise; and those of simulations, losses and the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..errors import InputError
from ..model.gpt import SpikingGptConfig, described
from ..ops import Array
from ..ops.rounding import PRECISIONS
from . import reference
from .cases import VANISHING, Case, call, eight_bits
from .mistakes.gpt import GPT_MISTAKES, GPT_WIRING_MISTAKES
from .mistakes.networks import (
    ADJOINT_MISTAKES,
    NETWORK_MISTAKES,
    SIMULATION_MISTAKES,
    WIRING_MISTAKES,
    score_mistakes,
    simulated,
)
from .mistakes.neurons import recognise_neuron
from .mistakes.operations import OP_MISTAKES, Op
from .mistakes.training import UPDATE_MISTAKES, asr_mistakes, loss_mistakes, updated

__all__ = [
    "recognise",
]

#: How near the answer must be to a mistake's, relative to the largest entry, to be taken for it ...
NEAR = 1e-3
#: ... and how many times nearer to it than to the right answer.
NEARER = 100.0
#: Mistakes whose answers are so near to each other cannot be told apart; all are named.
TIED = 1e-12
#: The same of spikes, by the fraction that differs: a tie that rounding decides changes others after it.
NEAR_SPIKES, NEARER_SPIKES = 1e-2, 10.0
#: So many timesteps are compared: mistakes show early, and long simulations take long.
STEPS = 16


def _mistaken(case: Case) -> Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]:
    """Return known mistakes and, each when it is called, its answer to a case."""
    inputs = case.inputs
    match case.function:
        case "asr":
            for sentence, value in asr_mistakes(case):
                yield sentence, partial(dict, asr=value)
        case "op" | "pullback":
            for sentence, wrong in OP_MISTAKES.get(case.settings["op"], ()):
                yield sentence, partial(call, _mistaken_op(case.settings["op"], wrong), case, inputs, "float64")
        case "current" | "rate_map" | "simulate" | "gradients" if _is_gpt(case):
            for sentence, change in GPT_MISTAKES:
                changed = change(case)
                yield sentence, partial(call, reference, changed, changed.inputs, "float64")
            for sentence, rewired in GPT_WIRING_MISTAKES:
                yield sentence, partial(call, reference.Reference(rewired), case, inputs, "float64")
        case "current" | "rate_map" | "simulate" | "gradients":
            for sentence, change in NETWORK_MISTAKES:
                changed = change(case)
                yield sentence, partial(call, reference, changed, changed.inputs, "float64")
            if case.function == "simulate":
                for sentence, seen, rewired in SIMULATION_MISTAKES:
                    yield sentence, partial(simulated, case, seen, rewired)
            elif case.function == "gradients":
                for sentence, losses in loss_mistakes(case):
                    yield sentence, partial(dict, losses)
                for sentence, rewired, method in ADJOINT_MISTAKES:
                    yield sentence, partial(call, reference.Reference(rewired, method), case, inputs, "float64")
            else:
                for sentence, rewired in WIRING_MISTAKES:
                    yield sentence, partial(call, reference.Reference(rewired), case, inputs, "float64")
                for sentence, found in score_mistakes(case) if case.function == "rate_map" else ():
                    yield sentence, partial(dict, found)
        case "update":
            for sentence, changes in UPDATE_MISTAKES:
                yield sentence, partial(updated, case, **changes)


def _is_gpt(case: Case) -> bool:
    return isinstance(described(case.settings["config"]), SpikingGptConfig)


def _mistaken_op(name: str, wrong: Op) -> Any:
    """Make an adapter of one wrong operation."""

    def pullback(_, arrays, constants, cotangent, dtype):
        found = wrong(arrays, constants)[1](cotangent)
        return dict(zip(reference.OPS[name][1], found if isinstance(found, tuple) else (found,), strict=False))

    return SimpleNamespace(op=lambda _, arrays, constants, dtype: wrong(arrays, constants)[0], pullback=pullback)


def _distance(one: Mapping[str, Any], other: Mapping[str, Any], names: list[str]) -> float:
    """Return the largest difference, relative to each quantity's largest entry; infinite where shapes differ."""
    sizes = {name: float(np.abs(other[name]).max(initial=0)) for name in names}
    floor = VANISHING * max((size for name, size in sizes.items() if name.startswith("gradient/")), default=0.0)
    worst = 0.0
    for name in names:
        a, b = np.asarray(one[name], np.float64), np.asarray(other[name], np.float64)
        if a.shape != b.shape or not np.isfinite(a).all():
            return np.inf
        scale = max(sizes[name], floor if name.startswith("gradient/") else 0.0) or 1.0
        worst = max(worst, float(np.abs(a - b).max(initial=0)) / scale)
    return worst


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], names: list[str]) -> float:
    """Return the fraction of spikes that differ."""
    pairs = [(np.asarray(one[name]), np.asarray(other[name])) for name in names]
    if any(a.shape != b.shape for a, b in pairs):
        return np.inf
    return sum(np.count_nonzero(a != b) for a, b in pairs) / sum(a.size for a, _ in pairs)


def recognise(
    case: Case, answer: Mapping[str, Any], expected: Mapping[str, Array], dtype: str | None = None
) -> str | None:
    """Name the mistake that a wrong answer shows.

    Parameters
    ----------
    case : Case
    answer : mapping
        The backend's.
    expected : mapping
        The right one.
    dtype : str, optional
        The precision that the backend claims. Without it, numbers of less are recognised in float64 arrays alone.

    Returns
    -------
    sentence : str or None
        Reads after "this is what a backend answers where"; several mistakes that cannot be told apart are all named.
        None if no known mistake gives this answer.
    """
    try:
        if case.function == "neurons":
            found = recognise_neuron(case.inputs["current"], answer["spikes"], case.settings["neuron"])
            return found and f"the neuron {found}"
        names = [name for name in expected if name in answer and name != "padding row"]
        spikes = case.function == "simulate"
        if spikes:
            settings = {**case.settings, "t_conv": min(case.settings["t_conv"], STEPS)}
            case = replace(case, settings=settings)
            answer, expected = ({name: np.asarray(d[name])[:STEPS] for name in names} for d in (answer, expected))
        distance, near, nearer = (_differing, NEAR_SPIKES, NEARER_SPIKES) if spikes else (_distance, NEAR, NEARER)
        right = distance(answer, expected, names)
        if not names or not np.isfinite(right):
            return None
        matches: list[tuple[float, str]] = []
        for sentence, answered in _mistaken(case):
            try:
                wrong = answered()
            except (InputError, KeyError):
                continue  # made like this, it has no equilibrium, say
            known = [name for name in names if name in wrong]
            off = distance(answer, wrong, known)
            if known and off <= near and off * nearer < distance(answer, expected, known):
                matches.append((off, sentence))
        if matches:
            best = min(off for off, _ in matches)
            alike = [sentence for off, sentence in matches if off <= 10 * best + TIED]
            return ", or where ".join(dict.fromkeys(alike))
        if spikes:
            return None
        return _lower_precision(answer, expected, names, right, dtype) or _factor(answer, expected, names)
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return None  # an answer so malformed that no mistake can be recognised in it


def _flat(values: Mapping[str, Any], names: list[str]) -> Array:
    """Put all entries of some quantities end to end."""
    return np.concatenate([np.ravel(np.asarray(values[name], float)) for name in names])


#: Precision -> its nearest numbers to others.
_HELD: dict[str, Callable[[Array], Array]] = {
    "bfloat16": eight_bits,
    "float16": lambda x: x.astype(np.float16).astype(float),
    "float32": lambda x: x.astype(np.float32).astype(float),
}


def _lower_precision(
    answer: Mapping[str, Any], expected: Mapping[str, Array], names: list[str], right: float, dtype: str | None
) -> str | None:
    """Recognise numbers of a lower precision than is claimed, about as far off as it explains."""
    if dtype is None and all(np.asarray(answer[name]).dtype == np.float64 for name in names):
        dtype = "float64"
    found, wanted = _flat(answer, names), _flat(expected, names)
    for name, held in _HELD.items():
        if dtype is None or PRECISIONS[name].unit <= PRECISIONS[dtype].unit or right > 256 * PRECISIONS[name].unit:
            continue
        with np.errstate(over="ignore"):
            if np.array_equal(held(found), found) and not np.array_equal(held(wanted), wanted):
                return f"numbers are rounded to {name}"
    return None


def _factor(answer: Mapping[str, Any], expected: Mapping[str, Array], names: list[str]) -> str | None:
    """Recognise an answer that is a multiple of the right one throughout, losses and gradients apart."""
    names = [name for name in names if name != "logits"]
    found, right = _flat(answer, names), _flat(expected, names)
    if np.count_nonzero(right) < 2:
        return None  # any number is a multiple of any other
    k = float(found @ right) / float(right @ right)
    if abs(k - 1) > NEAR and np.abs(found - k * right).max() <= NEAR * abs(k) * np.abs(right).max():
        return f"everything is multiplied by {k:.6g}"
    return None
