"""Mistakes a backend can make, and how to tell from its answer which one it made.

Every implementation of an integrate-and-fire neuron looks right and most differ: in the comparison at the threshold, in
what comes first of leak and reset, in when the reset acts. The differences are few and they leave a signature: a
mistake is simulated here on the same currents, and named if it gives the backend's spikes, every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ...ops import Array

__all__ = ["NEURON_MISTAKES", "recognise_neuron"]


class _Constants(NamedTuple):
    vth: float
    leak: float
    u0: float
    tie: float


class _Step(NamedTuple):
    """What a step leaves to the next."""

    u: Array  #: the potential that was compared
    s: Array  #: the spikes
    charge: Array  #: the potential after the reset


def _neurons(
    current: Array,
    vth: float,
    leak: float,
    u0: float,
    tie: float,
    *,
    constants: Callable[[_Constants], _Constants] = lambda k: k,
    driven: Callable[[Array, _Constants], Array] = lambda current, k: current,
    carried: Callable[[_Step, _Constants], Array] = lambda last, k: k.leak * last.charge,
    seen: Callable[[Array, _Step, _Constants], Array] = lambda u, last, k: u,
    fires: Callable[[Array, _Constants], Array] = lambda u, k: u >= k.vth * (1 - k.tie),
    left: Callable[[Array, Array, _Step, _Constants], Array] = lambda u, s, last, k: u - k.vth * s,
    record: Callable[[Array, _Constants], Array] = lambda spikes, k: spikes,
) -> Array:
    """Spikes (T, …) of the right rule, or of a wrong one: each keyword replaces one part of the rule."""
    k = constants(_Constants(vth, leak, u0, tie))
    inputs = driven(current, k)
    spikes = np.empty_like(inputs)
    start = np.full(current.shape[1:], k.u0 * k.vth, dtype=current.dtype)
    last = _Step(start, np.zeros_like(start), start)
    for t, now in enumerate(inputs):
        u = carried(last, k) + now
        spikes[t] = fires(seen(u, last, k), k)
        last = _Step(u, spikes[t], left(u, spikes[t], last, k))
    return record(spikes, k)


def _late(spikes: Array) -> Array:
    """Shift a record by one step: nothing at the first, and one step more."""
    return np.concatenate([np.zeros_like(spikes[:1]), spikes])


#: The parts of the rule that each mistake changes. Common ones come first: where two give the same spikes
#: (nothing leaks for λ = 1, say), the first is named.
_CHANGES: dict[str, dict[str, Any]] = {
    "fires only above the threshold (u > V_th), not at it": dict(fires=lambda u, k: u > k.vth),
    "compares with V_th itself (tie rule ignored, δ = 0)": dict(fires=lambda u, k: u >= k.vth),
    "leaks before the reset: u[t] = λ·u[t−1] − V_th·s[t−1] + I[t]": dict(
        carried=lambda last, k: k.leak * last.u - k.vth * last.s
    ),
    "resets to zero instead of subtracting V_th": dict(left=lambda u, s, last, k: np.where(s, 0, u)),
    "never resets": dict(left=lambda u, s, last, k: u),
    "resets one step late: u[t] = λ·(u[t−1] − V_th·s[t−2]) + I[t]": dict(left=lambda u, s, last, k: u - k.vth * last.s),
    "must reach 2·V_th to fire again where a spike left more than V_th behind": dict(
        seen=lambda u, last, k: u - k.vth * (last.charge > k.vth)
    ),
    "decides one step late: s[t] from u[t−1]": dict(seen=lambda u, last, k: last.u),
    "hands its spikes out one step late: s[t−1] in place of s[t]": dict(record=lambda spikes, k: _late(spikes)[:-1]),
    "leaves the first step out: I[1] is not integrated and nothing fires": dict(
        driven=lambda current, k: current[1:], record=lambda spikes, k: _late(spikes)
    ),
    "scales the input by 1 − λ: u[t] = λ·(u[t−1] − V_th·s[t−1]) + (1 − λ)·I[t]": dict(
        driven=lambda current, k: (1 - k.leak or 1) * current
    ),
    "lets the new current leak too: u[t] = λ·(u[t−1] − V_th·s[t−1] + I[t])": dict(
        driven=lambda current, k: k.leak * current
    ),
    "does not leak at all (λ = 1)": dict(constants=lambda k: k._replace(leak=1)),
    "takes λ for what is lost: leaks by 1 − λ": dict(constants=lambda k: k._replace(leak=1 - k.leak or 1)),
    "ignores the initial potential (u0 = 0)": dict(constants=lambda k: k._replace(u0=0)),
    "starts at u0 instead of u0·V_th": dict(constants=lambda k: k._replace(u0=k.u0 / k.vth)),
    "does not let the initial potential leak: u[1] = u0·V_th + I[1]": dict(
        constants=lambda k: k._replace(u0=k.u0 / k.leak)
    ),
    "ignores the threshold (1 in place of V_th)": dict(constants=lambda k: k._replace(vth=1)),
    "subtracts 1 instead of V_th": dict(left=lambda u, s, last, k: u - s),
    "gives its spikes the height V_th instead of 1": dict(record=lambda spikes, k: k.vth * spikes),
    "fires several times a step: s[t] = ⌊u[t]/V_th⌋": dict(
        fires=lambda u, k: np.floor(np.maximum(u, 0) / (k.vth * (1 - k.tie)))
    ),
    "fires −1 too, at u ≤ −V_th": dict(fires=lambda u, k: np.trunc(np.clip(u / (k.vth * (1 - k.tie)), -1, 1))),
    "cannot fire in the step after a spike (refractory)": dict(seen=lambda u, last, k: np.where(last.s, 0, u)),
    "cuts negative potentials to 0": dict(left=lambda u, s, last, k: np.maximum(u - k.vth * s, 0)),
    "subtracts V_th·(1 − δ), the level, instead of V_th": dict(left=lambda u, s, last, k: u - k.vth * (1 - k.tie) * s),
    "compares with V_th − δ instead of V_th·(1 − δ)": dict(fires=lambda u, k: u >= k.vth - k.tie),
}

#: (sentence, ``variant(current, vth, leak, u0, tie) -> spikes``) of every mistake that is known by name.
NEURON_MISTAKES: tuple[tuple[str, partial[Array]], ...] = tuple(
    (sentence, partial(_neurons, **parts)) for sentence, parts in _CHANGES.items()
)


def _signed(
    current: Array, vth: float, leak: float, u0: float, up: float, down: float, counted: bool, inclusive: bool = False
) -> Array:
    """Spikes of signed neurons: −1 below `down`, or, `inclusive`, at it too; `counted`, only where n > 0."""
    v = np.full(current.shape[1:], u0 * vth, dtype=current.dtype)
    n, spikes = np.zeros_like(v), np.empty_like(current)
    for t, now in enumerate(current):
        u = leak * v + now
        back = (u <= down if inclusive else u < down) & ((n > 0) | (not counted))
        spikes[t] = np.where(u >= up, 1.0, -1.0 * back)
        v = u - vth * spikes[t]
        n += spikes[t]
    return spikes


def _signed_candidates(polarity: str, vth: float, tie: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return known mistakes of signed neurons as arguments of `_signed`; the first is the right rule."""
    counted = polarity == "retractable"
    due = 1.0 if counted else 0.5
    right = {"up": vth * (due - tie), "down": vth * (due - 1 - tie), "counted": counted}
    yield "", right
    yield "never fires −1: its spikes are unsigned", right | {"down": -np.inf}
    at_level = right | {"down": vth * (due - 1), "inclusive": True}
    yield "fires −1 at the lower level itself (u ≤ level)", at_level
    yield (
        "compares with the levels themselves (tie rule ignored, δ = 0)",
        right | {"up": due * vth, "down": (due - 1) * vth},
    )
    if counted:
        yield "takes back spikes that it has not fired (n > 0 is not asked)", right | {"counted": False}
        yield "takes a spike back only from −V_th on", right | {"down": -vth}
        yield "has the levels of ternary neurons, ±V_th/2", right | {"up": vth / 2, "down": -vth / 2}
    else:
        unsigned = right | {"up": vth * (1 - tie), "down": -np.inf}
        yield "never fires −1, and 1 from V_th on: its spikes are unsigned", unsigned
        yield "fires 1 and −1 from ±V_th, not from ±V_th/2", right | {"up": vth * (1 - tie), "down": -vth * (1 + tie)}
        yield "fires −1 only to take a spike back (n > 0)", right | {"counted": True}
        yield "has the levels of retractable neurons, V_th and 0", right | {"up": vth * (1 - tie), "down": -vth * tie}


def _recognise_signed(current: Array, spikes: Array, neuron: Mapping[str, Any]) -> str | None:
    vth, leak, u0, tie = (float(neuron[name]) for name in _Constants._fields)
    for sentence, levels in _signed_candidates(str(neuron["polarity"]), vth, tie):
        if np.array_equal(_signed(current, vth, leak, u0, **levels), spikes):
            return sentence or None
    return None


def _candidates() -> Iterator[tuple[str, partial[Array]]]:
    """Every mistake, then every two at once that concern different parts of the rule."""
    yield from NEURON_MISTAKES
    for (one, f), (other, g) in combinations(NEURON_MISTAKES, 2):
        if not f.keywords.keys() & g.keywords.keys():
            yield f"{one}; and {other}", partial(_neurons, **f.keywords, **g.keywords)


def recognise_neuron(current: Array, spikes: Array, neuron: Mapping[str, Any]) -> str | None:
    """Name the mistake that explains wrong spikes.

    Parameters
    ----------
    current : (T, ...) array
        What the neurons were given. It must make them disagree: normal random currents tell most mistakes apart, ties
        take currents that reach V_th exactly, such as multiples of V_th/16 with a dyadic leak.
    spikes : (T, ...) array
        What the backend answered.
    neuron : dict
        "vth", "leak", "u0", "tie" and, of signed neurons, "polarity", as an adapter's ``neurons`` gets them.

    Returns
    -------
    sentence : str or None
        The first mistake of `NEURON_MISTAKES` that gives every one of these spikes, or the first two mistakes that do
        so together, joined by "; and ". None if the right rule gives them, if nothing known does, and if there is no
        spike at all, which has too many explanations to be one.

    Examples
    --------
    >>> current = np.array([[0.5], [0.5], [0.5]])
    >>> neuron = {"vth": 1.0, "leak": 1.0, "u0": 0.0, "tie": 1e-9}
    >>> recognise_neuron(current, np.array([[0.0], [0.0], [1.0]]), neuron)
    'fires only above the threshold (u > V_th), not at it'
    >>> recognise_neuron(current, np.array([[0.0], [1.0], [0.0]]), neuron) is None  # right
    True
    """
    spikes = np.asarray(spikes)
    if spikes.shape != current.shape or not np.any(spikes):
        return None
    if "polarity" in neuron:
        return _recognise_signed(current, spikes, neuron)
    constants = {name: float(neuron[name]) for name in _Constants._fields}
    current, spikes = (array.reshape(len(array), -1) for array in (current, spikes))

    def gives(rule: Callable[..., Array]) -> bool:  # neurons are independent: a few of them refute most rules
        parts = (slice(64), slice(None))
        return all(np.array_equal(rule(current[:, part], **constants), spikes[:, part]) for part in parts)

    if gives(_neurons):
        return None
    return next((sentence for sentence, rule in _candidates() if gives(rule)), None)
