"""Integrate-and-fire neurons: membrane potentials, spikes, average spiking rates.

    u[t] = λ·(u[t−1] − V_th·s[t−1]) + I[t],    s[t] = 1 if u[t] ≥ V_th·(1 − δ) else 0,    t = 1…T

Reset is by subtraction and the leak λ acts after it: λ = 1 is IF, 0 < λ < 1 is LIF. A neuron fires at most once a step.
δ is the *tie rule*: attention weights sum to 1, so a value feature whose neurons all fire drives its context neurons
with a current of exactly V_th, computed as V_th·(1 ± a few units of rounding). Comparing against V_th itself, the spike
would be decided by the order of a summation; with a small δ such structural ties always fire, whatever the BLAS.

Time is axis 0 everywhere in this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import InputError, is_number, shown
from ..ops import Array, clip

__all__ = ["Neuron", "asr", "fire", "fire_loop", "membrane_potential", "rate"]

#: δ of the tie rule, by precision: far above the rounding of a current, far below any other decision.
TIE_RULE = {"float64": 1e-9, "float32": 1e-5}


@dataclass(frozen=True)
class Neuron:
    """The constants of an integrate-and-fire population.

    Attributes
    ----------
    vth : float
        Threshold V_th, in units of current × step.
    leak : float
        λ in (0, 1]; 1 is IF.
    u0 : float
        The membrane potential starts at ``u0·V_th`` (read as the charge left after step 0). The authors' program
        starts at 0; 1/2 turns the floor in "how many spikes" into a rounding.
    tie : float or None
        δ of the tie rule; None takes 1e-9 in float64 and 1e-5 in float32; 0 compares with V_th itself.

    Raises
    ------
    InputError
        A constant lies outside its range.

    Examples
    --------
    >>> Neuron(leak=1.5)
    Traceback (most recent call last):
    refsnn.errors.InputError: leak is 1.5, but a leak lies in (0, 1]: 1 for IF neurons, less for LIF
    """

    vth: float = 1.0
    leak: float = 1.0
    u0: float = 0.0
    tie: float | None = None

    def __post_init__(self) -> None:
        if not (is_number(self.vth) and self.vth > 0):
            raise InputError(f"vth is {shown(self.vth)}, but a threshold is a positive number")
        if not (is_number(self.leak) and 0 < self.leak <= 1):
            raise InputError(f"leak is {shown(self.leak)}, but a leak lies in (0, 1]: 1 for IF neurons, less for LIF")
        if not (is_number(self.u0) and 0 <= self.u0 < 1):
            raise InputError(f"u0 is {shown(self.u0)}, but the initial potential lies in [0, 1), in units of vth")
        if self.tie is not None and not (is_number(self.tie) and 0 <= self.tie < 0.1):
            raise InputError(f"tie is {shown(self.tie)}, but the tie rule's δ is a small number in [0, 0.1)")

    def delta(self, precision: str) -> float:
        """δ of the tie rule in a precision, by its name; half precisions take float32's."""
        return TIE_RULE.get(precision, TIE_RULE["float32"]) if self.tie is None else self.tie

    def firing_level(self, dtype: np.dtype) -> float:
        """V_th·(1 − δ), the potential from which a neuron of this precision fires."""
        return self.vth * (1 - self.delta(np.dtype(dtype).name))


@np.errstate(over="ignore", invalid="ignore")
def fire(current: Array, neuron: Neuron, charge: Array | None = None) -> tuple[Array, Array]:
    """Spikes of a whole current record, all neurons of a step at once.

    Parameters
    ----------
    current : (T, ...) array
        I[1…T].
    neuron : Neuron
    charge : (...) array, optional
        u[0] − V_th·s[0], the charge left by an earlier block of timesteps; by default ``u0·V_th``.

    Returns
    -------
    spikes : (T, ...) array of 0 and 1, in the dtype of `current`
    charge : (...) array
        u[T] − V_th·s[T], to hand to the next block: blocks of any length give the spikes of one long call.

    Raises
    ------
    InputError
        `current` or `charge` are not real numbers, or the potentials they lead to are none.

    Examples
    --------
    >>> spikes, charge = fire(np.full((5, 1), 0.4), Neuron())
    >>> spikes[:, 0], charge.round(9)
    (array([0., 0., 1., 0., 1.]), array([0.]))
    """
    current = _current(current, neuron)
    charge = _charge(charge, current)
    level = neuron.firing_level(current.dtype)
    v = np.full(current.shape[1:], neuron.u0 * neuron.vth, dtype=current.dtype) if charge is None else charge.copy()
    spikes = np.empty(current.shape, current.dtype)
    reset = np.empty_like(v)
    for t in range(len(current)):
        drive, s = current[t, ...], spikes[t, ...]  # views, of a single neuron too
        if neuron.leak != 1:
            v *= neuron.leak
        v += drive  # u[t]
        np.greater_equal(v, level, out=s, casting="unsafe")
        v -= s if neuron.vth == 1 else np.multiply(s, neuron.vth, out=reset)
    _check_potential(v)
    return spikes, v


def _check_potential(charge: Array) -> None:
    """Refuse what is left after the last step where it is no number: it stays none, and the neuron would be silent."""
    if not np.isfinite(charge).all():
        raise InputError("the currents hold NaN or infinite values, or overflow, so their neurons have no potential")


def _current(current: Array, neuron: Neuron) -> Array:
    """Return currents over time as an array of real numbers, integers as float64, or say what they are."""
    if not isinstance(neuron, Neuron):
        raise InputError(f"the neuron is {shown(neuron)}, but a Neuron was expected, with its constants")
    current = _array("current", current)
    if current.dtype.kind in "iu":
        current = current.astype(np.float64)
    if current.dtype.kind != "f" or not current.ndim:
        raise InputError(f"the current is {current.dtype} {current.shape}, but real numbers over time were expected")
    return current


def _array(what: str, given: Any) -> Array:
    try:
        return np.asarray(given)
    except ValueError:  # rows of different lengths
        raise InputError(f"the {what} is {shown(given)}, but an array was expected") from None


def _charge(charge: Array | None, current: Array) -> Array | None:
    """Return the charge left by an earlier block in the currents' precision, or say that it is another's."""
    if charge is None:
        return None
    charge = _array("charge", charge)
    if charge.dtype.kind not in "fiu" or charge.shape != current.shape[1:]:
        kind = f"{charge.dtype} {charge.shape}"
        raise InputError(f"the charge is {kind}, but one real number for each of {current.shape[1:]} was expected")
    return charge.astype(current.dtype, copy=False)


@np.errstate(over="ignore", invalid="ignore")
def fire_loop(current: Array, neuron: Neuron, charge: Array | None = None) -> tuple[Array, Array]:
    """`fire`, written neuron by neuron and step by step, as the equations stand: its plain twin, for tests and readers.

    Parameters
    ----------
    current, neuron, charge
        As in `fire`.

    Returns
    -------
    spikes, charge
        As in `fire`, bit for bit.

    Examples
    --------
    >>> current = np.random.default_rng(0).normal(0.3, 1, (50, 3))
    >>> all(np.array_equal(a, b) for a, b in zip(fire(current, Neuron()), fire_loop(current, Neuron())))
    True
    """
    current = _current(current, neuron)
    charge = _charge(charge, current)
    scalar = current.dtype.type
    spikes = np.zeros_like(current)
    final = np.empty(current.shape[1:], dtype=current.dtype)
    for place in np.ndindex(*current.shape[1:]):
        left = scalar(neuron.u0 * neuron.vth) if charge is None else charge[place]
        for t in range(len(current)):
            u = scalar(neuron.leak) * left + current[(t, *place)]
            if u >= scalar(neuron.firing_level(current.dtype)):
                spikes[(t, *place)] = 1
            left = u - scalar(neuron.vth) * spikes[(t, *place)]
        final[place] = left
    _check_potential(final)
    return spikes, final


def membrane_potential(current: Array, spikes: Array, neuron: Neuron, charge: Array | None = None) -> Array:
    """Membrane potential u[1…T] that a given spike record implies: linear in both, so no step waits for another.

    ``u[t] = λ^t·v₀ + Σ_{k≤t} λ^{t−k}·(I[k] − λ·V_th·s[k−1])``, with ``s[0] = 0`` and v₀ the initial charge.

    Parameters
    ----------
    current, spikes : (T, ...) arrays
    neuron : Neuron
    charge : (...) array, optional
        As in `fire`.

    Returns
    -------
    u : (T, ...) array

    Examples
    --------
    >>> current = np.random.default_rng(0).normal(0.3, 1, (50, 3))
    >>> spikes, _ = fire(current, Neuron())
    >>> bool(np.all((membrane_potential(current, spikes, Neuron()) >= 1) == spikes))
    True
    """
    drive = current.astype(np.result_type(current, np.float64))
    drive[1:] -= neuron.leak * neuron.vth * spikes[:-1]
    drive[:1] += neuron.leak * (neuron.u0 * neuron.vth if charge is None else charge)
    for before, now in pairwise(drive):  # in place: a view of each step
        now += before if neuron.leak == 1 else neuron.leak * before
    return drive


def asr(spikes: Array, leak: float = 1.0) -> Array:
    """Average spiking rate of a spike record.

    ``a[T] = Σ_t λ^{T−t}·s[t] / Σ_t λ^{T−t}``; λ = 1 gives the plain mean, which is the limit λ → 1 and not 0/0.

    Parameters
    ----------
    spikes : (T, ...) array
    leak : float
        λ of the *average*. The authors' program always takes the plain mean (``leak=1``), for LIF neurons too; the
        paper weights by the leak.

    Returns
    -------
    a : (...) array of float64, in [0, 1]

    Examples
    --------
    >>> s = np.array([[1.0], [0.0], [1.0]])
    >>> asr(s), asr(s, leak=0.5)
    (array([0.66666667]), array([0.71428571]))
    """
    weights = leak ** np.arange(len(spikes) - 1, -1, -1.0)  # (T,)
    average: Array = np.tensordot(weights, spikes, axes=(0, 0)) / weights.sum()
    return average


def rate(
    current: Array, neuron: Neuron, edge_derivative: float = 0.0, t_conv: int | None = None
) -> tuple[Array, Callable[[Array], Array]]:
    """Rate of a neuron under a constant current, as T → ∞: ``a = σ(I/V_th)``, ``σ(x) = min(max(x, 0), 1)``.

    The surrogate equilibrium is made of this map. For IF neurons the average spiking rate tends to it like 1/T; for
    LIF neurons it is the map that the authors' program differentiates, though the rate itself keeps a bias.

    After a number T of steps an IF neuron has fired ``⌊T·σ(I/V_th) + u₀⌋`` times. With `t_conv` the rate is that
    number over T (*quantised*), and its derivative still the one of σ, as if the rounding were not there.

    Parameters
    ----------
    current : array
    neuron : Neuron
    edge_derivative : float
        Derivative of σ at exactly 0 and 1; see `refsnn.ops.clip`.
    t_conv : int, optional
        T, the number of steps that the rate is quantised for.

    Returns
    -------
    a : array
    pullback : callable
        ``pullback(da) -> dcurrent``.

    Examples
    --------
    >>> a, pullback = rate(np.array([0.3, 2.0]), Neuron(vth=2.0))
    >>> a, pullback(np.ones(2))
    (array([0.15, 1.  ]), array([0.5, 0. ]))
    >>> rate(np.array([0.3, 2.0]), Neuron(vth=2.0), t_conv=8)[0]
    array([0.125, 1.   ])
    """
    a, clip_pullback = clip(current / neuron.vth, edge_derivative)
    if t_conv is not None:
        a = np.floor(t_conv * a + neuron.u0) / t_conv
    return a, lambda da: clip_pullback(da) / neuron.vth
