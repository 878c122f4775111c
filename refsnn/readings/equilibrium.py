"""Equilibrium: the average spiking rates at which every population is consistent with those it reads.

    a_l = σ(f_l(a_…)/V_th)      for every population l        (the *rate map*, a = F(a))

Without feedback one sweep in firing order finds the rates. With feedback a sweep maps the rates that are fed back to
themselves, z ↦ G(z), and the equilibrium is its fixed point; all other rates follow from z.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import InputError
from ..model.batch import Batch
from ..model.network import Network
from ..ops import Array
from .rate_map import Linearisation, Rates, sweep
from .solution import Solution, Vectors, fail

__all__ = [
    "Equilibrium",
    "equilibrium",
]

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
