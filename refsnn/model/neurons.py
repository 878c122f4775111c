"""Integrate-and-fire neurons: membrane potentials, spikes, average spiking rates.

    u[t] = λ·(u[t−1] − V_th·s[t−1]) + I[t],    s[t] = 1 if u[t] ≥ V_th·(1 − δ) else 0,    t = 1…T

Reset is by subtraction and the leak λ acts after it: λ = 1 is IF, 0 < λ < 1 is LIF. A neuron fires at most once a step.
δ is the *tie rule*: attention weights sum to 1, so a value feature whose neurons all fire drives its context neurons
with a current of exactly V_th, computed as V_th·(1 ± a few units of rounding). Comparing against V_th itself, the spike
would be decided by the order of a summation; with a small δ such structural ties always fire, whatever the BLAS.

That is the paper's neuron. Neurons of another *polarity* also fire s = −1, and every level is lower by δ·V_th:

    retractable   1 if u ≥ V_th·(1 − δ),  −1 if u < −V_th·δ and n[t−1] > 0,  else 0        n[t] = s[1] + … + s[t]
    ternary       1 if u ≥ V_th·(½ − δ),  −1 if u < −V_th·(½ + δ),           else 0

A retractable neuron takes back a spike that it should not have fired, so 0 ≤ n[t] ≤ t; a ternary one has rates between
−1 and 1. What a polarity means, its levels and its rates, `Neuron` alone says.

Time is axis 0 everywhere in this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError, is_number, one_of, shown
from ..ops import Array, clip

__all__ = ["Neuron", "Polarity", "asr", "fire", "fire_loop", "membrane_potential", "rate"]

#: δ of the tie rule, by precision: far above the rounding of a current, far below any other decision.
TIE_RULE = {"float64": 1e-9, "float32": 1e-5}


Polarity = Literal["unsigned", "retractable", "ternary"]


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
        starts at 0; 1/2 turns the floor in "how many spikes" into a rounding. It lies in [0, 1), or, of ternary
        neurons, which round already where it is 0, in [−½, ½).
    tie : float or None
        δ of the tie rule; None takes 1e-9 in float64 and 1e-5 in float32; 0 compares with V_th itself.
    polarity : {"unsigned", "retractable", "ternary"}
        Which spikes there are: 0 and 1, as in the paper; −1 as well, to take a spike back; −1 as well, for rates down
        to −1.

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
    polarity: Polarity = "unsigned"

    def __post_init__(self) -> None:
        one_of("polarity", self.polarity, get_args(Polarity))
        if not (is_number(self.vth) and self.vth > 0):
            raise InputError(f"vth is {shown(self.vth)}, but a threshold is a positive number")
        if not (is_number(self.leak) and 0 < self.leak <= 1):
            raise InputError(f"leak is {shown(self.leak)}, but a leak lies in (0, 1]: 1 for IF neurons, less for LIF")
        if not (is_number(self.u0) and self.due - 1 <= self.u0 < self.due):
            whose, limits = f" of {self.polarity} neurons" if self.due != 1 else "", f"[{self.due - 1:g}, {self.due:g})"
            raise InputError(
                f"u0 is {shown(self.u0)}, but the initial potential{whose} lies in {limits}, in units of vth"
            )
        if self.tie is not None and not (is_number(self.tie) and 0 <= self.tie < 0.1):
            raise InputError(f"tie is {shown(self.tie)}, but the tie rule's δ is a small number in [0, 0.1)")

    def delta(self, precision: str) -> float:
        """δ of the tie rule in a precision, by its name; half precisions take float32's."""
        return TIE_RULE.get(precision, TIE_RULE["float32"]) if self.tie is None else self.tie

    @property
    def signed(self) -> bool:
        """Whether there are spikes of −1."""
        return self.polarity != "unsigned"

    @property
    def low(self) -> float:
        """Least rate: 0, or −1 for ternary neurons. The largest is 1."""
        return -1.0 if self.polarity == "ternary" else 0.0

    @property
    def due(self) -> float:
        """Potential at which a spike is due, in units of vth, ties aside; a spike of −1 is due one unit below it."""
        return 0.5 if self.polarity == "ternary" else 1.0

    def levels(self, precision: str) -> tuple[float, float]:
        """Potential from which a neuron fires, and the one below which it fires −1 (−∞ if it never does)."""
        delta = self.delta(precision)
        return self.vth * (self.due - delta), self.vth * (self.due - 1 - delta) if self.signed else -np.inf

    def quantise(self, a: Array, t_conv: int) -> Array:
        """Round a rate as T steps of a constant current do: ``⌊T·a + u₀⌋/T``; of ternary neurons, ``⌊T·a + u₀ + ½⌋/T``.

        Parameters
        ----------
        a : array
            Between `low` and 1.
        t_conv : int
            T.

        Returns
        -------
        a : array

        Examples
        --------
        >>> Neuron(polarity="ternary").quantise(np.array([-1, -0.3, 0.1, 0.2]), 4)
        array([-1.  , -0.25,  0.  ,  0.25])
        """
        quantised: Array = np.floor(t_conv * a + (self.u0 + (1 - self.due))) / t_conv
        return quantised


@np.errstate(over="ignore", invalid="ignore")
def fire(current: Array, neuron: Neuron, charge: Array | None = None) -> tuple[Array, Array]:
    """Spikes of a whole current record, all neurons of a step at once.

    Parameters
    ----------
    current : (T, ...) array
        I[1…T].
    neuron : Neuron
    charge : (...) array, optional
        What an earlier block of timesteps returned; by default ``u0·V_th``.

    Returns
    -------
    spikes : (T, ...) array of 0 and 1, and of −1 where neurons are signed, in the dtype of `current`
    charge : (...) array
        u[T] − V_th·s[T], to hand to the next block: blocks of any length give the spikes of one long call. Of
        retractable neurons a (2, ...) array: n[T] stands beside the charge.

    Raises
    ------
    InputError
        `current` or `charge` are not real numbers, or the potentials that they lead to are not.

    Examples
    --------
    >>> spikes, charge = fire(np.full((5, 1), 0.4), Neuron())
    >>> spikes[:, 0], charge.round(9)
    (array([0., 0., 1., 0., 1.]), array([0.]))

    A spike too many is taken back:

    >>> fire(np.array([[1.0], [-0.5], [0.0], [0.0]]), Neuron(polarity="retractable"))[0][:, 0]
    array([ 1., -1.,  0.,  0.])
    """
    current = _current(current, neuron)
    state = _state(current, neuron, charge)
    up, down = neuron.levels(current.dtype.name)
    v, n = (state[0, ...], state[1, ...]) if neuron.polarity == "retractable" else (state, None)  # views
    spikes = np.empty(current.shape, current.dtype)
    reset, back = np.empty_like(v), np.empty_like(v)
    for t in range(len(current)):
        drive, s = current[t, ...], spikes[t, ...]  # views, of a single neuron too
        if neuron.leak != 1:
            v *= neuron.leak
        v += drive  # u[t]
        np.greater_equal(v, up, out=s, casting="unsafe")
        if neuron.signed:
            np.less(v, down, out=back, casting="unsafe")
            if n is not None:
                np.minimum(back, n, out=back)  # none is left to be taken back where n = 0
            s -= back
            if n is not None:
                n += s
        v -= s if neuron.vth == 1 else np.multiply(s, neuron.vth, out=reset)
    _check_potential(v)
    return spikes, state


def _state(current: Array, neuron: Neuron, charge: Array | None) -> Array:
    """Return what membranes start with: u₀·V_th and, of retractable neurons, n = 0 beside it; or what they have."""
    first = np.full(current.shape[1:], neuron.u0 * neuron.vth, dtype=current.dtype)
    if neuron.polarity == "retractable":
        first = np.stack([first, np.zeros_like(first)])
    return first if charge is None else _charge(charge, first).copy()


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


def _charge(charge: Array, like: Array) -> Array:
    """Return the charge left by an earlier block in the currents' precision, or say that it is another's."""
    charge = _array("charge", charge)
    if charge.dtype.kind not in "fiu" or charge.shape != like.shape:
        kind = f"{charge.dtype} {charge.shape}"
        raise InputError(f"the charge is {kind}, but one real number for each of {like.shape} was expected")
    return charge.astype(like.dtype, copy=False)


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
    scalar = current.dtype.type
    up, down = map(scalar, neuron.levels(current.dtype.name))
    retractable = neuron.polarity == "retractable"
    spikes = np.zeros_like(current)
    state = _state(current, neuron, charge)
    left, count = (state[0, ...], state[1, ...]) if retractable else (state, np.zeros_like(state))
    for place in np.ndindex(*current.shape[1:]):
        for t in range(len(current)):
            u = scalar(neuron.leak) * left[place] + current[(t, *place)]
            if u >= up:
                spikes[(t, *place)] = 1
            elif u < down and (count[place] > 0 or not retractable):
                spikes[(t, *place)] = -1
            left[place] = u - scalar(neuron.vth) * spikes[(t, *place)]
            count[place] += spikes[(t, *place)]
    _check_potential(left)
    return spikes, state


def membrane_potential(current: Array, spikes: Array, neuron: Neuron, charge: Array | None = None) -> Array:
    """Membrane potential u[1…T] that a given spike record implies: linear in both, so no step waits for another.

    ``u[t] = λ^t·v₀ + Σ_{k≤t} λ^{t−k}·(I[k] − λ·V_th·s[k−1])``, with ``s[0] = 0`` and v₀ the initial charge.

    Parameters
    ----------
    current, spikes : (T, ...) arrays
    neuron : Neuron
    charge : (...) array, optional
        u[0] − V_th·s[0], the charge alone; by default ``u0·V_th``.

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
    for t in range(1, len(drive)):
        before, now = drive[t - 1, ...], drive[t, ...]  # views, of a single neuron too
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
    a : (...) array of float64, in [0, 1]; of ternary neurons in [−1, 1]

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

    Of ternary neurons σ cuts at −1 in place of 0.

    The surrogate equilibrium is made of this map. For IF neurons the average spiking rate tends to it like 1/T; for
    LIF neurons it is the map that the authors' program differentiates, though the rate itself keeps a bias.

    After a number T of steps an IF neuron has fired ``⌊T·σ(I/V_th) + u₀⌋`` times (`Neuron.quantise`). With `t_conv` the
    rate is that number over T (*quantised*), and its derivative still the one of σ, as if the rounding were not there.

    Parameters
    ----------
    current : array
    neuron : Neuron
    edge_derivative : float
        Derivative of σ at exactly its two edges; see `refsnn.ops.clip`.
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
    a, clip_pullback = clip(current / neuron.vth, edge_derivative, neuron.low)
    if t_conv is not None:
        a = neuron.quantise(a, t_conv)
    return a, lambda da: clip_pullback(da) / neuron.vth
