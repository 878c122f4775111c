"""Comparison of the adjoint solvers on a trained student with feedback."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from ..distillation.student import logits, true_loss
from ..errors import InputError
from ..ops import Array
from ..readings.adjoint import AdjointMethod, Solve, spectral_radius
from ..readings.equilibrium import Equilibrium, equilibrium
from ..readings.implicit import adjoint, contraction_bound, implicit_gradient, unrolled_gradient
from ..readings.solution import Solution
from ..storage.run import Run

__all__ = [
    "Solved",
    "compare_solvers",
]

#: Unknowns above which a dense solve is left out.
DENSE = 3000


@dataclass(frozen=True)
class Solved:
    """One method's solve.

    Attributes
    ----------
    method : str
    solution : Solution or None
        None for unrolled differentiation, which solves nothing.
    products : int
        Products with the transposed derivative: sweeps differentiated, for the unrolled method.
    seconds : float
    error : float
        Largest relative difference of a parameter's gradient from the reference's.
    """

    method: str
    solution: Solution | None
    products: int
    seconds: float
    error: float


def _difference(gradient: Mapping[str, Array], reference: Mapping[str, Array]) -> float:
    differences = (
        float(np.linalg.norm(gradient[name] - value) / np.linalg.norm(value))
        for name, value in reference.items()
        if np.linalg.norm(value) > 0
    )
    return max(differences, default=0.0)  # of a student whose neurons are all silent or saturated, nothing is left


def compare_solvers(
    run: str | os.PathLike,
    data: str | os.PathLike | None,
    samples: int = 8,
    tolerance: float = 1e-10,
    columns: Sequence[str] = (),
) -> tuple[str, list[Solved]]:
    """Solve one adjoint equation of a trained student by every method, in float64.

    The cotangent is that of the prediction loss against the true labels, over the first sentences of the dev split.

    Parameters
    ----------
    run : path
        A finished run with feedback.
    data : path
    samples : int
    tolerance : float
        Relative residual asked of every method that solves.
    columns : sequence of str
        Pairs ``name=column``; by default those that the run was distilled with.

    Returns
    -------
    heading : str
        The equilibrium and its spectral radius.
    rows : list of Row

    Raises
    ------
    InputError
        The student has no feedback: its adjoint equation is solved by back substitution, whatever the method.
    """
    opened = Run(run)
    config, params = opened.student()
    network = config.network
    if not network.fed_back:
        raise InputError(
            f"the student of {run} has no feedback, so its implicit gradient is plain back-propagation and there is "
            "nothing to solve; distil one with `refsnn distill --feedback 0.2`"
        )
    params = {name: value.astype(np.float64) for name, value in params.items()}
    examples, batch = opened.sample(samples, data, columns)

    found = equilibrium(network, params, batch)
    last = network.readouts[-1]
    z, logits_pullback = logits(params, found.rates[last], network.rectified)
    dlast, _ = logits_pullback(true_loss(z, examples.labels)[1](1.0))
    g = {last: dlast}

    def transpose(w: dict[str, Array]) -> dict[str, Array]:
        returned = found.linearisation.substitute(w, parameters=False)[1]
        return {name: returned[name] for name in w}

    unknowns = sum(found.rates[name].size for name in network.fed_back)
    radius = spectral_radius(transpose, {name: found.rates[name] for name in network.fed_back})
    bound = contraction_bound(network, params, batch, found.rates)
    heading = (
        f"{len(examples)} sentences, {unknowns} unknowns; equilibrium by {found.solution.evaluations} sweeps to "
        f"{found.solution.residual.max():.1e}; spectral radius {radius:.3g} (bound from operator norms {bound:.1e})"
    )
    return heading, _rows(found, g, tolerance, unknowns, network, params, batch)


def _rows(
    found: Equilibrium, g: dict[str, Array], tolerance: float, unknowns: int, network, params, batch
) -> list[Solved]:
    methods = [m for m in get_args(AdjointMethod) if m != "dense" or unknowns <= DENSE]
    gradient: Mapping[str, Array]
    results: list[tuple[str, Mapping[str, Array], Solution | None, int, float]] = []
    for method in methods:
        limit = unknowns + 2 if method == "dense" else 500
        solve = Solve(method, tolerance, limit)
        started = time.perf_counter()
        _, gradient, solution = adjoint(found.linearisation, g, solve)
        seconds = time.perf_counter() - started
        if method not in ("dense", "one-step"):  # once more, to see every iterate
            traced = adjoint(found.linearisation, g, replace(solve, history=True))[2]
            solution = replace(solution, trace=traced.trace)
        results.append((method, gradient, solution, solution.evaluations, seconds))
    sweeps = max(found.solution.evaluations, 1)
    started = time.perf_counter()
    gradient = unrolled_gradient(network, params, batch, g, sweeps)
    results.append((f"unrolled, {sweeps} sweeps", gradient, None, sweeps, time.perf_counter() - started))
    if "dense" in methods:
        reference = next(gradient for method, gradient, *_ in results if method == "dense")
    else:
        reference = implicit_gradient(found.linearisation, g, Solve("gmres", 1e-13, 2000))
    return [Solved(m, s, p, t, _difference(gradient, reference)) for m, gradient, s, p, t in results]
