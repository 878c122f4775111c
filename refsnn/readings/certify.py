"""Certificates: whether a spike record, made by anyone, is consistent with the equations.

No simulation is replayed. Each population's currents follow from the *recorded* spikes it reads, its membrane
potential from its *own* recorded spikes, and every decision is then checked by itself, so nothing drifts apart:

    consistent        s = 1 where u ≥ V_th(1 − δ), else s = 0
    within rounding   the other answer, but |u − V_th(1 − δ)| ≤ E: a correct program may have found either
    wrong             the other answer, beyond E

Signed neurons (`refsnn.model.neurons`) have a second level, from which they fire −1, and three answers: each is right
where some potential within E of ours has it. Whether a spike may be taken back, n[t−1] > 0, the record itself says.

E bounds a priori, from unit round-off, fan-in and magnitudes, how far the membrane potential of any correct program of
the record's precision may lie from ours (`refsnn.ops.rounding`). Over time it grows as the membrane does,

    E[t] = (1 + u)^{k+1}·(λ·E[t−1] + δI[t] + u·(|u[t]| + λ(k|v[t−1]| + V_th·|s[t−1]|))),      v = u − V_th·s,

δI the bound of the current, k = 1 for IF and 3 for LIF. Under the rule ``running`` the currents telescope,
``Σ I = t·f(ā[t])``, and so do their errors: with δF the bound of ``t·f(ā[t])``, what has gathered in the membrane is at
most ``2·max δF`` (δF for IF), and δI is what rounding makes of numbers that are off by so much.

Analogue units among neurons, such as the residual stream of `refsnn.model.gpt`, are not recorded and decide nothing.
What they pass on follows, with a bound, from the recorded spikes that they read.

One pass over blocks of timesteps; memory does not grow with T.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from ..errors import InputError, one_of, shown, whole
from ..model.batch import Batch, attention_mask
from ..model.network import INPUT, Network, Population
from ..model.neurons import Neuron, membrane_potential
from ..ops import Array
from ..ops.rounding import OWN, Enclosed, Precision
from .inputs import check_inputs, check_known, real_array
from .simulate import Rule

__all__ = ["DECADES", "STRUCTURAL_TIE", "Verdict", "WrongDecision", "certify", "certify_neurons"]

#: A decision this close to the threshold, relative to it, is a structural tie: exact arithmetic has u = V_th there.
STRUCTURAL_TIE = 1e-9
#: Edges of the margins' histogram, as powers of ten of ``|u − V_th|/V_th``; less and more go to the outermost bins.
DECADES = range(-17, 3)


@dataclass(frozen=True)
class WrongDecision:
    """A decision that rounding cannot explain.

    Attributes
    ----------
    t : int
        Timestep, counted from 1.
    index : tuple of int
        (batch, position, feature).
    spike : int
        What the record says.
    u, level, bound : float
        Membrane potential, the level that it was on the wrong side of, and E.
    """

    t: int
    index: tuple[int, ...]
    spike: int
    u: float
    level: float
    bound: float

    def __str__(self) -> str:
        verb = {1: "fired", 0: "did not fire", -1: "fired −1"}[self.spike]
        if self.spike < 0 and self.u < self.level - self.bound:  # as far as its potential goes it might have
            verb = "took back a spike that it had not fired"
        return (
            f"at t = {self.t}, index {self.index}, the neuron {verb} at u = {self.u:.9g}, "
            f"level {self.level:.9g}; rounding explains {self.bound:.1e}, the margin is {abs(self.u - self.level):.1e}"
        )


@dataclass
class Verdict:
    """The decisions of one population.

    Attributes
    ----------
    decisions : int
        T × B × N × width.
    spikes : int
        Those of −1 included.
    by_rounding : int
        Decisions that differ from ours within the bound: either answer is right.
    undecidable : int
        Decisions whose margin is within the bound, whatever the record says: those that no certificate can check.
    wrong : int
        Decisions that rounding cannot explain.
    ties : int
        Structural ties: ``|u − V_th| ≤ 1e-9·V_th``, or likewise at another level of a signed neuron.
    largest_bound : float
        Largest E.
    first_wrong : WrongDecision or None
        The earliest.
    margins : (20,) array of int
        Histogram of ``log₁₀(|u − V_th|/V_th)`` over `DECADES`, of the nearest level; the first bin holds all smaller
        ones.
    """

    decisions: int = 0
    spikes: int = 0
    by_rounding: int = 0
    undecidable: int = 0
    wrong: int = 0
    ties: int = 0
    largest_bound: float = 0.0
    first_wrong: WrongDecision | None = None
    margins: Array = field(default_factory=lambda: np.zeros(len(DECADES), int))


@np.errstate(over="ignore", invalid="ignore")  # a potential that is no number is wrong, and counted so
def certify(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    spikes: Mapping[str, Array],
    rule: Rule = "inst",
    precision: Precision | str = "float64",
    block: int = 8,
) -> dict[str, Verdict]:
    """Check every spike decision of a record.

    Parameters
    ----------
    network : Network
        Its neurons' tie rule δ is taken as the record's; 0 is the plain comparison.
    params : mapping
        The parameters that the record was made with, in any precision.
    batch : Batch
    spikes : mapping
        Population name -> (T, B, N, width) array of 0 and 1, and of −1 where neurons are signed, for every population
        of neurons and for none of analogue units. Whatever has a shape and can be sliced along time will do, such as a
        slice of a safetensors file: only a block at a time is held.
    rule : {"inst", "running"}
        Integration rule of the record.
    precision : Precision or str
        Arithmetic that the record was made with.
    block : int
        Timesteps per block; sets the memory, not the result.

    Returns
    -------
    verdicts : dict
        Population name -> Verdict, of neurons.

    Raises
    ------
    InputError
        A population is missing or unknown, a record has the wrong shape or other values than its neurons' spikes; no
        population has neurons; or analogue units compute what is not affine under the rule ``running``.

    References
    ----------
    ``docs/certificates.md`` derives the bounds.
    """
    one_of("rule", rule, get_args(Rule))
    block = whole("block", block)
    precision = _precision(precision)
    check_inputs(network, params, batch)
    exact = {name: np.asarray(value, np.float64) for name, value in params.items()}
    x = network.drive.enclose(exact, batch, precision)
    steps = _steps(network, batch, spikes)
    checks = [_Check(p, exact, attention_mask(batch, np.dtype(float)), rule, precision) for p in network.populations]
    signed = {p.name for p in network.populations if p.neuron is not None and p.neuron.signed}
    trains = _Trains(spikes, signed, precision)
    if any(network[name].neuron is None for name in network.fed_back):
        block = 1  # what analogue units pass on is known only once their own turn has come
    for name in network.fed_back:  # before the first step nothing was passed on
        nothing = Enclosed.exact(np.zeros((1, *batch.input_ids.shape, network[name].width)))
        trains.pass_on(name, nothing, nothing)
    for start in range(0, steps, block):
        times = np.arange(start + 1, min(start + block, steps) + 1.0).reshape(-1, 1, 1, 1)
        trains.load(start, times)
        seen: set[str] = set()
        for check in checks:
            delayed = {name for name in check.population.reads if name not in seen}  # fed back
            seen.add(check.population.name)
            check.advance(times, x, trains, delayed)
    return {check.population.name: check.membrane.verdict for check in checks if check.membrane is not None}


def certify_neurons(current: Array, spikes: Array, neuron: Neuron, precision: Precision | str = "float64") -> Verdict:
    """Check the spikes of neurons whose currents are given.

    Parameters
    ----------
    current, spikes : (T, ...) arrays
    neuron : Neuron
    precision : Precision or str

    Returns
    -------
    verdict : Verdict

    Examples
    --------
    >>> current = np.full((5, 1), 0.4)
    >>> certify_neurons(current, np.array([[0.0], [0], [1], [0], [1]]), Neuron()).wrong
    0
    >>> print(certify_neurons(current, np.array([[0.0], [1], [0], [0], [1]]), Neuron(tie=0)).first_wrong)
    at t = 2, index (0,), the neuron fired at u = 0.8, level 1; rounding explains 3.1e-15, the margin is 2.0e-01
    """
    if not isinstance(neuron, Neuron):
        raise InputError(f"the neuron is {shown(neuron)}, but a Neuron was expected, with its constants")
    current = real_array("the current", current)
    train = _train("the spikes", spikes, neuron.signed)
    if np.iscomplexobj(current) or not current.size or train.shape != current.shape:
        kinds = f"{current.dtype} {current.shape} and {train.shape}"
        raise InputError(f"currents and spikes are {kinds}, but real numbers and spikes of one shape, over time, count")
    membrane = _Membrane(neuron, _precision(precision))
    times = np.arange(1.0, len(current) + 1)
    none = np.zeros(1)
    with np.errstate(over="ignore", invalid="ignore"):
        membrane.advance(times, current.astype(np.float64), none, none, train)
    return membrane.verdict


def _precision(given: Precision | str) -> Precision:
    return given if isinstance(given, Precision) else Precision.named(given)


def _train(what: str, spikes: Any, signed: bool) -> Array:
    """Return spikes as float64, or say that they are no spikes."""
    try:
        train = np.asarray(spikes)
    except ValueError:  # rows of different lengths
        raise InputError(f"{what} are {shown(spikes)}, but an array was expected") from None
    known = (train == 0) | (train == 1) | (signed & (train == -1))
    if train.dtype.kind not in "biuf" or not known.all():
        values = "−1, 0 and 1" if signed else "0 and 1"
        raise InputError(f"{what} hold other values than {values}, so they are no spike record")
    return train.astype(np.float64)


def _steps(network: Network, batch: Batch, spikes: Mapping[str, Array]) -> int:
    """Return the number of timesteps that all populations' records share."""
    if not isinstance(spikes, Mapping):
        raise InputError(f"the spikes are a {type(spikes).__name__}, but a dict of arrays by population was expected")
    check_known("spikes of population", spikes, [population.name for population in network.populations])
    if all(population.neuron is None for population in network.populations):
        raise InputError("every population has analogue units, so there are no spikes to certify")
    lengths = set()
    for population in network.populations:
        if population.neuron is None:
            if population.name in spikes:
                raise InputError(
                    f"the record has spikes of {population.name}, whose analogue units have none; leave it out"
                )
            continue
        if population.name not in spikes:
            raise InputError(f"the record lacks the spikes of {population.name}; a certificate needs every population")
        shape = _shape(spikes[population.name])
        lengths.add(shape[0] if shape else 0)
        if shape[1:] != (*batch.input_ids.shape, population.width) or not shape[0]:
            wanted = ", ".join(map(str, (*batch.input_ids.shape, population.width)))
            raise InputError(f"the spikes of {population.name} have shape {shape}, but (T, {wanted}) was expected")
    if len(lengths) > 1:
        raise InputError(f"the populations were recorded over different numbers of timesteps: {sorted(lengths)}")
    return lengths.pop()


def _shape(train: Any) -> tuple[int, ...]:
    """Shape of a record in memory or in a file."""
    return tuple(train.get_shape() if hasattr(train, "get_shape") else np.shape(train))


def _gathered(steps: Array, before: Array | float, leak: float = 1.0, growth: float = 1.0) -> Array:
    """``e[t] ← growth·(leak·e[t−1] + e[t])`` over time, in place; `before` is e at the end of the last block."""
    for e in steps:
        e += leak * before
        e *= growth
        before = e
    return steps


class _Trains:
    """What populations pass on in a block of timesteps, and its sums over time; both with a bound of their error.

    Neurons pass on their recorded spikes, which are read when needed; analogue units what `pass_on` was told.
    """

    def __init__(self, spikes: Mapping[str, Array], signed: set[str], precision: Precision) -> None:
        self.record, self.signed = spikes, signed
        self.unit = 2 * (precision.unit + OWN)  # of a division by t: one rounding of 1/t, one of the product
        self.block: dict[str, Enclosed] = {}
        self.sums: dict[str, Enclosed] = {}
        self.last: dict[str, Enclosed] = {}  # of the block before: its last step
        self.last_sums: dict[str, Enclosed] = {}

    def load(self, start: int, times: Array) -> None:
        self.start, self.times = start, times
        self.last = {name: Enclosed(v[-1:], e[-1:]) for name, (v, e) in self.block.items()}
        self.last_sums = {name: Enclosed(v[-1:], e[-1:]) for name, (v, e) in self.sums.items()}
        self.block, self.sums = {}, {}

    def pass_on(self, name: str, current: Enclosed, total: Enclosed | None = None) -> None:
        """Note the currents of analogue units and, under ``running``, the sums of all of them so far."""
        self.block[name] = current
        if total is not None:
            self.sums[name] = total

    def now(self, name: str, delayed: bool = False) -> Enclosed:
        if name not in self.block and name in self.record:
            train = self.record[name][self.start : self.start + len(self.times)]
            self.block[name] = Enclosed.exact(_train(f"the spikes of {name}", train, name in self.signed))
        return self._late(self.block, self.last, name) if delayed else self.block[name]

    def means(self, name: str, delayed: bool = False) -> Enclosed:
        if name not in self.sums and name in self.record:  # counts, which are exact
            before = self.last_sums[name].value if name in self.last_sums else 0.0
            self.sums[name] = Enclosed.exact(np.cumsum(self.now(name).value, axis=0) + before)
        total = self._late(self.sums, self.last_sums, name) if delayed else self.sums[name]
        value, error = total.value / self.times, total.error / self.times
        return Enclosed(value, error + self.unit * (np.abs(value) + error))

    def _late(self, block: dict[str, Enclosed], last: dict[str, Enclosed], name: str) -> Enclosed:
        """Return the same one step late."""
        if len(self.times) == 1:  # where analogue units are fed back, their own turn has not come
            return last[name]
        return Enclosed(*(np.concatenate([b, n[:-1]]) for b, n in zip(last[name], block[name], strict=True)))


class _Membrane:
    """One population's potentials as its spikes imply them, the bound of their error, and the verdict so far."""

    def __init__(self, neuron: Neuron, precision: Precision) -> None:
        self.neuron, self.precision = neuron, precision
        self.verdict = Verdict()
        self.charge: Array | None = None  # u − V_th·s at the end of the last block
        self.net: Array | float = 0.0  # n there
        start, self.unit = abs(neuron.u0) * neuron.vth, precision.unit + 4 * OWN  # with what our own are off by
        self.roundings = 1 if neuron.leak == 1 else 3  # of the charge: after the reset; the leak and its product
        self.left: Array | float = self.roundings * start  # k|v| + V_th·|s| there
        self.bound: Array | float = 4 * self.unit * start  # E there, without what telescopes

    def advance(self, times: Array, current: Array, error: Array, carried: Array, own: Array) -> None:
        """Check a block: its currents, the error each adds to the membrane, the error that telescopes, the spikes."""
        leak, vth, k = self.neuron.leak, self.neuron.vth, self.roundings
        current, error, carried = (np.broadcast_to(part, own.shape) for part in (current, error, carried))
        u = membrane_potential(current, own, self.neuron, self.charge)
        v = u - vth * own
        left = k * np.abs(v) + vth * np.abs(own)
        before = np.concatenate([np.broadcast_to(self.left, v[:1].shape), left[:-1]])
        step = error + self.unit * (np.abs(u) + leak * before) + 3 * self.precision.tiny
        step = _gathered(step, self.bound, leak, (1 + self.unit) ** (k + 1))  # E[t]
        self.bound, self.left = step[-1], left[-1]
        self.charge = v[-1]
        # V_th, 1 − δ and their product are rounded as well.
        self._judge(times, own, u, step + carried + 4 * self.unit * vth)

    def _judge(self, times: Array, own: Array, u: Array, bound: Array) -> None:
        verdict, vth, due = self.verdict, self.neuron.vth, self.neuron.due
        up, down = self.neuron.levels(self.precision.name)
        over, distance = u - up, np.abs(u - due * vth)
        ours = (over >= 0).astype(np.int8)
        close = np.abs(over) <= bound
        right = np.where(own > 0, over >= -bound, over <= bound)
        level = np.asarray(up)
        if self.neuron.signed:
            under, back = u - down, self._may_fire_back(own)
            ours -= (under < 0) & back
            close |= (np.abs(under) <= bound) & back
            right = np.where(own < 0, back & (under <= bound), right & ((own > 0) | (under >= -bound) | ~back))
            level = np.where((own > 0) | ((own == 0) & (over > bound)), up, down)
            distance = np.where(back, np.minimum(distance, np.abs(u - (due - 1) * vth)), distance)
        wrong = ~right | ~np.isfinite(u)
        if verdict.first_wrong is None and wrong.any():
            at = np.unravel_index(int(wrong.argmax()), wrong.shape)  # time is the slowest axis: the earliest
            place, levels = tuple(int(i) for i in at[1:]), np.broadcast_to(level, u.shape)
            verdict.first_wrong = WrongDecision(
                int(times.flat[0]) + int(at[0]), place, int(own[at]), float(u[at]), float(levels[at]), float(bound[at])
            )
        relative = distance / vth
        decade = np.floor(np.log10(np.maximum(relative, 10.0 ** DECADES[0])))
        decade = np.clip(np.nan_to_num(decade, nan=DECADES[-1]), DECADES[0], DECADES[-1])
        verdict.decisions += own.size
        verdict.spikes += int(np.abs(own).sum())
        verdict.by_rounding += int(((own != ours) & ~wrong).sum())
        verdict.undecidable += int(close.sum())
        verdict.wrong += int(wrong.sum())
        verdict.ties += int((relative <= STRUCTURAL_TIE).sum())
        verdict.largest_bound = max(verdict.largest_bound, float(bound.max()))
        verdict.margins += np.bincount(decade.astype(int).ravel() - DECADES[0], minlength=len(DECADES))

    def _may_fire_back(self, own: Array) -> Array:
        """Where −1 may be fired: anywhere, or, of retractable neurons, where n[t−1] > 0."""
        if self.neuron.polarity != "retractable":
            return np.ones(own.shape, bool)
        after = np.cumsum(own, axis=0) + self.net
        self.net = after[-1]
        before: Array = after - own > 0
        return before


class _Check:
    """One population of a network: its currents from what it reads; of neurons, the membrane from their own spikes."""

    def __init__(
        self, population: Population, params: Mapping[str, Array], mask: Array, rule: Rule, precision: Precision
    ) -> None:
        neuron, affine = population.neuron, population.projection.affine
        if neuron is None and rule == "running" and not affine:
            raise InputError(
                f"population {population.name} has analogue units whose map is not affine, so that under the rule "
                "'running' programs may differ in what it passes on; certify the rule 'inst', or give it neurons"
            )
        self.population, self.affine = population, affine
        self.params, self.mask, self.rule, self.precision = params, mask, rule, precision
        self.membrane = None if neuron is None else _Membrane(neuron, precision)
        self.integral: Array | float = 0.0  # t·f(ā[t]) at the end of the last block
        self.telescoped: Array | float = 0.0  # largest δF so far
        self.stepwise: Array | float = 0.0  # what errors of single currents have come to there

    def advance(self, times: Array, x: Enclosed, trains: _Trains, delayed: set[str]) -> None:
        """Check a block of timesteps; of analogue units, say what they pass on in it."""
        name, membrane, unit = self.population.name, self.membrane, self.precision.unit + OWN
        if self.rule == "inst":
            current = self._enclosed(times, x, trains.now, delayed)
            if membrane is None:
                trains.pass_on(name, current)
            else:
                membrane.advance(times, *current, np.zeros(1), trains.now(name).value)
            return
        integral, change = self._integral(times, x, trains, delayed)
        if membrane is None:
            current = self._enclosed(times, x, trains.now, delayed)
            rounded = np.abs(current.value) + np.abs(integral.value) + 3 * integral.error
            step = current.error + unit * rounded + 2 * self.precision.tiny
            summed = self._stepwise(step, growth=1 + unit)
            trains.pass_on(name, current, Enclosed(integral.value, integral.error + summed))
            return
        carried = integral.error * (1 if membrane.neuron.leak == 1 else 2)
        if self.affine:  # a program may integrate f(s[t]) as well, whose errors add up step by step
            current = self._enclosed(times, x, trains.now, delayed)
            gathered = self._stepwise(current.error.copy(), membrane.neuron.leak)
            # Either what telescopes is there or this; both, where analogue units pass on currents that telescope.
            recorded = all(read == INPUT or read in trains.record for read in self.population.reads)
            carried = np.maximum(carried, gathered) if recorded else carried + gathered
        # The difference is rounded, and potentials that are off by what is carried: once for each operation on them.
        error = membrane.unit * (np.abs(change) + 5 * carried)
        membrane.advance(times, change, error, carried, trains.now(name).value)

    def _integral(self, times: Array, x: Enclosed, trains: _Trains, delayed: set[str]) -> tuple[Enclosed, Array]:
        """Return t·f(ā[t]), with the largest δF so far, and what it grew by."""
        f = self._enclosed(times, x, trains.means, delayed)
        unit = 2 * (self.precision.unit + OWN)
        integral = times * f.value
        error = times * (f.error + (1 + unit) * unit * (np.abs(f.value) + f.error)) + self.precision.tiny  # δF
        error = np.maximum(np.maximum.accumulate(error, axis=0), self.telescoped)
        change = np.diff(integral, axis=0, prepend=np.zeros_like(integral[:1]) + self.integral)
        self.integral, self.telescoped = integral[-1], error[-1]
        return Enclosed(integral, error), change

    def _stepwise(self, steps: Array, leak: float = 1.0, growth: float = 1.0) -> Array:
        """Gather errors of single currents."""
        steps = _gathered(steps, self.stepwise, leak, growth)
        self.stepwise = steps[-1]
        return steps

    def _enclosed(
        self, times: Array, x: Enclosed, passed_on: Callable[[str, bool], Enclosed], delayed: set[str]
    ) -> Enclosed:
        """Currents of what was passed on, or of its means."""
        reads = (x if r == INPUT else passed_on(r, r in delayed) for r in self.population.reads)
        f = self.population.projection.enclose(self.params, tuple(reads), self.mask, self.precision)
        return Enclosed(*(np.broadcast_to(part, (len(times), *part.shape[-3:])) for part in f))
