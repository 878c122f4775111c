"""Equilibrium: the average spiking rates at which every population is consistent with those it reads.

    a_l = σ(f_l(a_…)/V_th)      for every population l        (the *rate map*, a = F(a))

Without feedback one sweep in firing order finds the rates. With feedback a sweep maps the rates that are fed back to
themselves, z ↦ G(z), and the equilibrium is its fixed point; all other rates follow from z.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .errors import InputError, NotConverged
from .model.batch import Batch, attention_mask
from .model.network import INPUT, Network, Population
from .model.neurons import rate
from .model.parameters import Params, accumulate
from .model.projections import Attention
from .ops import Array

__all__ = [
    "Equilibrium",
    "Linearisation",
    "Rates",
    "Solution",
    "activity",
    "equilibrium",
    "rate_map",
    "scores",
    "sweep",
]

#: Average spiking rate (or, for analogue units, activity) of each population, by name: (B, N, width) each.
Rates = dict[str, Array]
#: A projection's pullback followed by the neuron's: cotangent of a rate -> cotangents of what was read, of parameters.
LocalPullback = Callable[[Array], tuple[tuple[Array, ...], Params]]


def activity(
    population: Population,
    params: Mapping[str, Array],
    reads: tuple[Array, ...],
    mask: Array,
    edge_derivative: float = 0.0,
    t_conv: int | None = None,
) -> tuple[Array, LocalPullback]:
    """Rate of one population from the rates it reads: ``a = σ(f(reads)/V_th)``, or ``a = f(reads)`` for analogue units.

    Parameters
    ----------
    population : Population
    params : mapping
    reads : tuple of arrays
    mask : array
    edge_derivative : float
        See `refsnn.ops.clip`.
    t_conv : int, optional
        Steps that the rate is quantised for; see `refsnn.model.neurons.rate`.

    Returns
    -------
    a : (B, N, width) array
    pullback : callable
        ``pullback(da) -> (dreads, dparams)``.
    """
    current, projection_pullback = population.projection(params, reads, mask)
    if population.neuron is None:
        return current, projection_pullback
    a, rate_pullback = rate(current, population.neuron, edge_derivative, t_conv)
    return a, lambda da: projection_pullback(rate_pullback(da))


@dataclass(frozen=True)
class Linearisation:
    """The derivative of the rate map F at some rates, as local pullbacks in firing order.

    With L the part of J = ∂F/∂a that reads earlier populations and U the part that reads later ones (feedback),
    J = L + U. Nothing is assembled.

    Attributes
    ----------
    tape : tuple of (Population, pullback)
    fed_back : tuple of str
        Populations that an earlier one reads.
    drive_pullback : callable
        From the cotangent of the embedding current to the embeddings' parameters.
    """

    tape: tuple[tuple[Population, LocalPullback], ...]
    fed_back: tuple[str, ...]
    drive_pullback: Callable[[Array], Params]

    def transpose(self, v: Mapping[str, Array]) -> Rates:
        """Whole-state product ``Jᵀ v``, every population at once.

        Parameters
        ----------
        v : mapping
            Population -> cotangent of its value of F.

        Returns
        -------
        drates : dict
            Population -> cotangent of its rate; 0 where nothing reads it.
        """
        total: Rates = {name: np.zeros_like(value) for name, value in v.items()}
        for population, pull in self.tape:
            for name, dread in zip(population.reads, pull(v[population.name])[0], strict=True):
                if name != INPUT:
                    total[name] = total[name] + dread
        return total

    def substitute(self, g: Mapping[str, Array]) -> tuple[Rates, Rates, Params]:
        """Back substitution ``λ = (I − Lᵀ)⁻¹ g``, that is back-propagation through one sweep.

        Parameters
        ----------
        g : mapping
            Cotangents of any of the rates.

        Returns
        -------
        adjoint : dict
            λ of the populations it reached.
        fed : dict
            ``Uᵀ λ``: cotangents of the rates that were fed back.
        dparams : dict
            ``(∂F/∂θ)ᵀ λ``.
        """
        cotangents = dict(g)
        adjoint: Rates = {}
        fed: Rates = {}
        dparams: Params = {}
        done: set[str] = set()
        for population, pull in reversed(self.tape):
            done.add(population.name)
            if population.name not in cotangents:
                continue  # nothing downstream depends on it
            adjoint[population.name] = cotangents.pop(population.name)
            dreads, dlocal = pull(adjoint[population.name])
            for name, dread in zip(population.reads, dreads, strict=True):
                accumulate(fed if name in done else cotangents, name, dread)
            for name, gradient in dlocal.items():
                accumulate(dparams, name, gradient)
        if INPUT in cotangents:
            dparams |= self.drive_pullback(cotangents[INPUT])
        return adjoint, fed, dparams


def sweep(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    fed_back: Mapping[str, Array] | None = None,
    at: Mapping[str, Array] | None = None,
    edge_derivative: float = 0.0,
    t_conv: int | None = None,
) -> tuple[Rates, Linearisation]:
    """Evaluate the rate map once, population after population in firing order.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    fed_back : mapping, optional
        Rates of the populations that are read before they are evaluated.
    at : mapping, optional
        Rates that every population reads instead of those just evaluated: the result is then F(`at`), and the
        linearisation that of F at these rates, which may be simulated ones.
    edge_derivative : float
        Derivative of the clip at exactly 0 and 1; see `refsnn.ops.clip`.
    t_conv : int, optional
        Steps that every rate is quantised for; see `refsnn.model.neurons.rate`.

    Returns
    -------
    rates : dict
        Population name -> (B, N, width) array; ``"input"`` -> the embedding current.
    linearisation : Linearisation
    """
    x, drive_pullback = network.drive(params, batch)
    mask = attention_mask(batch, x.real.dtype)
    rates: Rates = {INPUT: x}
    tape = []
    for population in network.populations:
        known = {**(fed_back or {}), **rates} if at is None else {**at, INPUT: x}
        reads = tuple(known[name] for name in population.reads)
        rates[population.name], pull = activity(population, params, reads, mask, edge_derivative, t_conv)
        tape.append((population, pull))
    return rates, Linearisation(tuple(tape), network.fed_back, drive_pullback)


def rate_map(
    network: Network, params: Mapping[str, Array], batch: Batch, edge_derivative: float = 0.0
) -> tuple[Rates, Callable[[Mapping[str, Array]], Params]]:
    """Rates of a network without feedback, by one sweep in firing order.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    edge_derivative : float
        Derivative of the clip at exactly 0 and 1; see `refsnn.ops.clip`.

    Returns
    -------
    rates : dict
        Population name -> (B, N, width) array; ``"input"`` -> the embedding current.
    pullback : callable
        ``pullback(drates) -> dparams``. `drates` holds cotangents of any of the rates; parameters that did not take
        part are absent from the result.

    Raises
    ------
    InputError
        The network has feedback: its rates are the solution of an equation, not of a sweep.
    """
    if network.fed_back:
        raise InputError("the network has feedback, so one sweep does not give its rates; solve for the equilibrium")
    rates, linearisation = sweep(network, params, batch, edge_derivative=edge_derivative)
    return rates, lambda drates: linearisation.substitute(drates)[2]


@dataclass(frozen=True)
class Solution:
    """What a solver found, forward or backward.

    Attributes
    ----------
    state : dict
        The unknowns by population: (B, N, width) arrays.
    residual : (B,) array
        True relative residual of every sample, recomputed from the state and never taken from the solver.
    trace : list of float
        Largest relative residual over the samples, or the solver's own estimate of it, by iteration.
    evaluations : int
        How often the map, or its transposed derivative, was evaluated.
    converged : bool
        Whether every residual is within the tolerance.
    method : str
    """

    state: Rates
    residual: Array
    trace: list[float] = field(repr=False)
    evaluations: int
    converged: bool
    method: str


class Vectors:
    """Dicts of arrays of one layout as vectors, and back; the samples' axis is the first of every array."""

    def __init__(self, like: Mapping[str, Array]) -> None:
        self.shapes = {name: value.shape for name, value in like.items()}
        self.dtype = np.result_type(*like.values()) if like else np.dtype(float)

    def flat(self, state: Mapping[str, Array]) -> Array:
        """All entries, end to end."""
        return np.concatenate([np.zeros(0, self.dtype), *(state[name].reshape(-1) for name in self.shapes)])

    def dict(self, vector: Array) -> Rates:
        """Undo `flat`."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()])
        parts = np.split(vector, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @staticmethod
    def norms(state: Mapping[str, Array]) -> Array:
        """Euclidean norm of every sample, over all populations."""
        return np.sqrt(sum((np.abs(v.reshape(len(v), -1)) ** 2).sum(axis=1) for v in state.values()))


ForwardMethod = Literal["simple", "damped", "anderson", "newton-krylov"]


@dataclass(frozen=True)
class Equilibrium:
    """Rates that satisfy a = F(a), the derivative of F there, and how they were found.

    Attributes
    ----------
    rates : dict
    linearisation : Linearisation
    solution : Solution
        State and residuals of the fed-back rates z: ``‖z − G(z)‖/‖z‖`` per sample.
    """

    rates: Rates
    linearisation: Linearisation
    solution: Solution


def equilibrium(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    method: ForwardMethod = "simple",
    tolerance: float | None = None,
    max_evaluations: int = 200,
    damping: float = 0.5,
    start: Mapping[str, Array] | None = None,
    edge_derivative: float = 0.0,
    on_failure: Literal["raise", "warn"] = "raise",
    t_conv: int | None = None,
) -> Equilibrium:
    """Find the rates at which the network is in equilibrium, ``a* = F(a*)``.

    Parameters
    ----------
    network : Network
        Without feedback one sweep is the answer, whatever the method.
    params : mapping
    batch : Batch
    method : {"simple", "damped", "anderson", "newton-krylov"}
        ``z ← G(z)``; ``z ← (1−d)·z + d·G(z)``; SciPy's Anderson mixing and Newton–Krylov on ``G(z) − z = 0``.
    tolerance : float, optional
        Largest ``‖z − G(z)‖/‖z‖`` of any sample; 1e-12 in float64 and 1e-5 in float32 by default.
    max_evaluations : int
        Sweeps after which the search is given up.
    damping : float
        d of the damped iteration.
    start : mapping, optional
        Rates of the fed-back populations to start from; 0 by default.
    edge_derivative : float
    on_failure : {"raise", "warn"}
    t_conv : int, optional
        Steps that every rate is quantised for (`refsnn.model.neurons.rate`). With feedback, rounding may leave no fixed
        point to be found.

    Returns
    -------
    equilibrium : Equilibrium

    Raises
    ------
    NotConverged
        The residual did not come within the tolerance; carries the `Solution`.

    References
    ----------
    SpikingBERT, section on implicit differentiation; Bai, Kolter & Koltun, *Deep Equilibrium Models*, NeurIPS 2019.
    """
    x, _ = network.drive(params, batch)
    if tolerance is None:
        tolerance = 1e-5 if x.dtype == np.float32 else 1e-12
    state = {name: np.zeros((*x.shape[:-1], network[name].width), x.dtype) for name in network.fed_back}
    state |= {name: np.asarray(value) for name, value in (start or {}).items() if name in state}
    vectors = Vectors(state)
    trace: list[float] = []
    evaluations = 0
    best: tuple[float, Rates, tuple[Rates, Linearisation] | None] = (np.inf, state, None)

    def residual(z: Rates, image: Rates) -> Array:
        size = np.maximum(Vectors.norms({n: image[n] for n in z}), np.finfo(x.real.dtype).tiny)
        return Vectors.norms({n: z[n] - image[n] for n in z}) / size

    def step(z: Rates) -> Rates:
        nonlocal evaluations, best
        if evaluations >= max_evaluations:
            raise _Enough
        evaluations += 1
        rates, linearisation = sweep(network, params, batch, z, edge_derivative=edge_derivative, t_conv=t_conv)
        image = {name: rates[name] for name in z}
        trace.append(float(residual(z, image).max(initial=0)))
        if trace[-1] < best[0]:
            best = (trace[-1], z, (rates, linearisation))
        if trace[-1] <= tolerance:
            raise _Enough
        return image

    def root(z: Array) -> Array:
        state = vectors.dict(z)
        return vectors.flat(step(state)) - z

    if state:
        from scipy import linalg, optimize  # here, because most networks have no feedback and it takes 20 MB

        try:
            if method in ("simple", "damped"):
                weight = 1.0 if method == "simple" else damping
                while True:
                    image = step(state)
                    state = {name: (1 - weight) * state[name] + weight * image[name] for name in state}
            elif method == "anderson":
                # alpha = 1 makes Anderson's first step that of the simple iteration. Near the end its small systems are
                # singular to rounding, which SciPy warns of; whether the search converged is decided by the residual.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", linalg.LinAlgWarning)
                    optimize.anderson(root, vectors.flat(state), M=5, alpha=1.0, f_tol=0.0, maxiter=max_evaluations)
            elif method == "newton-krylov":
                optimize.newton_krylov(root, vectors.flat(state), f_tol=0.0, maxiter=max_evaluations)
            else:
                raise InputError(f"the method is {method!r}, but it must be one of {ForwardMethod.__args__}")  # type: ignore[attr-defined]
        except (_Enough, optimize.NoConvergence, ValueError, np.linalg.LinAlgError) as error:
            if isinstance(error, InputError):
                raise
    _, state, evaluated = best
    rates, linearisation = evaluated or sweep(
        network, params, batch, state, edge_derivative=edge_derivative, t_conv=t_conv
    )
    found = residual(state, rates) if state else np.zeros(len(x))
    solution = Solution(state, found, trace, evaluations, bool((found <= tolerance).all()), method)
    if not solution.converged:
        fail(
            solution,
            f"the equilibrium was not reached by {method} iteration: relative residual {found.max():.1e} after "
            f"{evaluations} sweeps, wanted {tolerance:.0e}; try method='anderson' or 'newton-krylov', more "
            "evaluations, or a feedback matrix of smaller spectral norm",
            on_failure,
        )
    return Equilibrium(rates, linearisation, solution)


class _Enough(Exception):  # noqa: N818
    """Leaves a SciPy solver once the true residual is small enough, or the evaluations are used up."""


def fail(solution: Solution, message: str, on_failure: str) -> None:
    """Raise `NotConverged`, or warn where that was asked for.

    Parameters
    ----------
    solution : Solution
    message : str
    on_failure : {"raise", "warn"}
    """
    if on_failure == "raise":
        raise NotConverged(message, solution)
    import warnings

    warnings.warn(message, RuntimeWarning, stacklevel=3)


def scores(
    network: Network, params: Mapping[str, Array], rates: Rates, batch: Batch
) -> tuple[list[Array], Callable[[list[Array]], tuple[Rates, Params]]]:
    """Raw attention scores of every encoder at given rates, mask included.

    Parameters
    ----------
    network : Network
    params : mapping
    rates : dict
    batch : Batch

    Returns
    -------
    scores : list of (B, heads, N, N) arrays
    pullback : callable
        ``pullback(dscores) -> (drates, dparams)``: how the scores depend on the rates, and directly on the query's
        parameters.
    """
    mask = attention_mask(batch, rates[INPUT].real.dtype)
    observed = []
    for name in network.contexts:
        population = network[name]
        assert isinstance(population.projection, Attention)
        reads = tuple(rates[read] for read in population.reads)
        observed.append((population, *population.projection.scores(params, reads, mask)))

    def pullback(dscores: list[Array]) -> tuple[Rates, Params]:
        drates: Rates = {}
        dparams: Params = {}
        for (population, _, pull), dscore in zip(observed, dscores, strict=True):
            dreads, dlocal = pull(dscore)
            for name, dread in zip(population.reads[:2], dreads[:2], strict=True):  # the scores ignore the values
                accumulate(drates, name, dread)
            dparams |= dlocal
        return drates, dparams

    return [score for _, score, _ in observed], pullback
