"""Equilibrium: the average spiking rates at which every population is consistent with those it reads.

    a_l = σ(f_l(a_…)/V_th)      for every population l        (the *rate map*, a = F(a))

Without feedback one sweep in firing order finds the rates. With feedback a sweep maps the rates that are fed back to
themselves, z ↦ G(z), and the equilibrium is its fixed point; all other rates follow from z.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError, is_number, number, shown, whole
from ..model.batch import Batch
from ..model.network import INPUT, Network
from ..ops import Array
from .inputs import check_inputs, check_known, real_array
from .rate_map import Linearisation, Rates, finite, one_sweep
from .solution import OnFailure, Solution, Vectors, check_limits, fail, usual_tolerance

__all__ = [
    "Equilibrium",
    "Search",
    "equilibrium",
]

ForwardMethod = Literal["simple", "damped", "anderson", "newton-krylov"]


@dataclass(frozen=True)
class Search:
    """How an equilibrium is searched for. A network without feedback has its rates after one sweep, whatever this says.

    Attributes
    ----------
    method : {"simple", "damped", "anderson", "newton-krylov"}
        ``z ← G(z)``; ``z ← (1−d)·z + d·G(z)``; SciPy's Anderson mixing and Newton–Krylov on ``G(z) − z = 0``.
    tolerance : float, optional
        Largest ``‖z − G(z)‖/‖z‖`` of any sample; 1e-12 in float64 and 1e-5 in float32 by default.
    max_evaluations : int
        Sweeps after which the search is given up.
    damping : float
        d of the damped iteration.
    on_failure : {"raise", "warn"}
    """

    method: ForwardMethod = "simple"
    tolerance: float | None = None
    max_evaluations: int = 200
    damping: float = 0.5
    on_failure: OnFailure = "raise"

    def __post_init__(self) -> None:
        check_limits(self, get_args(ForwardMethod))
        if not (is_number(self.damping) and 0 < self.damping < 2):
            raise InputError(
                f"`damping` is {shown(self.damping)}, but the damped iteration takes a number between 0 and 2"
            )


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


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # `finite` says so in words
def equilibrium(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    search: Search = Search(),
    start: Mapping[str, Array] | None = None,
    edge_derivative: float = 0.0,
    t_conv: int | None = None,
) -> Equilibrium:
    """Find the rates at which the network is in equilibrium, ``a* = F(a*)``.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    search : Search
    start : mapping, optional
        Rates of the fed-back populations to start from; 0 by default.
    edge_derivative : float
        Derivative of the clip at exactly 0 and 1; see `refsnn.ops.clip`.
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
    check_inputs(network, params, batch)
    number("edge_derivative", edge_derivative, 0, 1)
    t_conv = None if t_conv is None else whole("t_conv", t_conv)
    if not isinstance(search, Search):
        raise InputError(f"`search` is {shown(search)}, but a Search was expected, which holds method and tolerance")

    def evaluate(z: Rates) -> tuple[Rates, Linearisation]:
        return one_sweep(network, params, batch, z, edge_derivative=edge_derivative, t_conv=t_conv)

    x, _ = network.drive(params, batch)
    state = _start(network, x, {} if start is None else start)
    sweeps = _Sweeps(evaluate, usual_tolerance(x.dtype, search.tolerance), search.max_evaluations)
    if state:
        with suppress(_Enough):
            _iterate(sweeps, state, search)
        state = sweeps.best
    rates, linearisation = sweeps.found or evaluate(state)
    finite(rates, "the rate of")
    residual = _residual(state, rates) if state else np.zeros(len(x))
    converged = bool((residual <= sweeps.tolerance).all())
    solution = Solution(state, residual, sweeps.trace, len(sweeps.trace), converged, search.method)
    if not converged:
        fail(
            solution,
            f"the equilibrium was not reached by {search.method} iteration: relative residual {residual.max():.1e} "
            f"after {solution.evaluations} sweeps, wanted {sweeps.tolerance:.0e}; try method='anderson' or "
            "'newton-krylov', more evaluations, or a feedback matrix of smaller spectral norm",
            search.on_failure,
            stacklevel=4,  # `np.errstate` calls us
        )
    return Equilibrium(rates, linearisation, solution)


def _start(network: Network, x: Array, start: Mapping[str, Array]) -> Rates:
    """Rates of the fed-back populations to start from: those given, 0 otherwise."""
    if not isinstance(start, Mapping):
        raise InputError(f"`start` is {shown(start)}, but a dict of rates by population was expected")
    check_known("the rate to start from", start, [INPUT, *(population.name for population in network.populations)])
    state = {name: np.zeros((*x.shape[:-1], network[name].width), x.dtype) for name in network.fed_back}
    for name in state.keys() & start.keys():
        value = real_array(f"the rate of {name} to start from", start[name], x.dtype)
        if value.shape != state[name].shape:
            raise InputError(f"the rate of {name} to start from has shape {value.shape}, not {state[name].shape}")
        state[name] = value
    return state


def _residual(z: Rates, image: Mapping[str, Array]) -> Array:
    """Return the true relative residual ``‖z − G(z)‖/‖G(z)‖`` of every sample."""
    return Vectors.relative({name: z[name] - image[name] for name in z}, {name: image[name] for name in z})


class _Sweeps:
    """The map z ↦ G(z), with the residual of every state that it was evaluated at, and the best of them."""

    def __init__(
        self, evaluate: Callable[[Rates], tuple[Rates, Linearisation]], tolerance: float, max_evaluations: int
    ) -> None:
        self.evaluate, self.tolerance, self.max_evaluations = evaluate, tolerance, max_evaluations
        self.trace: list[float] = []
        self.best: Rates = {}
        self.found: tuple[Rates, Linearisation] | None = None  # what the sweep from there gave

    def __call__(self, z: Rates) -> Rates:
        """Return G(z), unless z is within the tolerance or the evaluations are used up."""
        if len(self.trace) >= self.max_evaluations:
            raise _Enough
        found = self.evaluate(z)
        image = {name: found[0][name] for name in z}
        residual = float(_residual(z, image).max(initial=0))
        if self.found is None or residual < min(self.trace):
            self.best, self.found = z, found
        self.trace.append(residual)
        if residual <= self.tolerance:
            raise _Enough
        return image


class _Enough(Exception):  # noqa: N818
    """Leaves a solver once the true residual is small enough, or the evaluations are used up."""


def _iterate(sweeps: _Sweeps, state: Rates, search: Search) -> None:
    """Search until `sweeps` has enough or the method gives up."""
    match search.method:
        case "simple":
            _damped(sweeps, state, 1.0)
        case "damped":
            _damped(sweeps, state, search.damping)
        case "anderson":
            _anderson(sweeps, state)
        case "newton-krylov":
            _root(sweeps, state, "newton_krylov")


def _damped(sweeps: _Sweeps, state: Rates, weight: float) -> None:
    while True:
        image = sweeps(state)
        state = {name: (1 - weight) * state[name] + weight * image[name] for name in state}


def _anderson(sweeps: _Sweeps, state: Rates) -> None:
    from scipy import linalg  # here, because most networks have no feedback and it takes 20 MB

    # alpha = 1 makes Anderson's first step that of the simple iteration. Near the end its small systems are singular to
    # rounding, which SciPy warns of.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", linalg.LinAlgWarning)
        _root(sweeps, state, "anderson", M=5, alpha=1.0)


def _root(sweeps: _Sweeps, state: Rates, solver: str, **options: Any) -> None:
    """Let a solver of SciPy look for a root of G(z) − z."""
    from scipy import optimize

    vectors = Vectors(state)

    def difference(z: Array) -> Array:
        return vectors.flat(sweeps(vectors.dict(z))) - z

    try:
        getattr(optimize, solver)(difference, vectors.flat(state), f_tol=0.0, maxiter=sweeps.max_evaluations, **options)
    except (optimize.NoConvergence, ValueError) as error:
        if isinstance(error, InputError):
            raise  # else it gave up: whether the search converged is decided by the residual of what it found
