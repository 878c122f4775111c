"""Implicit differentiation: the gradient of a loss at an equilibrium, by one linear solve.

    (I − Jᵀ) λ = g,    J = ∂F/∂a at a*,    g = ∂L/∂a*        dL/dθ = (∂F/∂θ)ᵀ λ

J = L + U, L reading earlier populations and U later ones (feedback). Back substitution S = (I − Lᵀ)⁻¹, ordinary
back-propagation through one sweep, leaves an equation for what returns through the feedback alone:

    w = Uᵀ S (g + w)    that is    (I − Uᵀ S) w = Uᵀ S g,        λ = S (g + w)

The residual of the first equation is that of the second: g − (I − Jᵀ)λ = Uᵀλ − w. Without feedback w is empty and the
implicit gradient *is* back-propagation. Both forms are solved by the same function, matrix-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..errors import InputError, shown, whole
from ..model.batch import Batch, attention_mask
from ..model.network import INPUT, Network
from ..model.parameters import Gradients, Params, accumulate
from ..ops import Array
from .adjoint import Solve, solve_adjoint
from .inputs import check_inputs, checked_cotangents
from .rate_map import Linearisation, Rates, finite, one_sweep
from .solution import Solution, Vectors, count_samples

__all__ = [
    "adjoint",
    "contraction_bound",
    "implicit_gradient",
    "unrolled_gradient",
    "within_spectral_norm",
]


def adjoint(
    linearisation: Linearisation,
    g: Mapping[str, Array],
    solve: Solve = Solve(),  # noqa: B008
    whole: bool = False,
) -> tuple[Rates, Gradients, Solution]:
    """Adjoint state of a network's equilibrium, and the gradient of the parameters that follows from it.

    Parameters
    ----------
    linearisation : Linearisation
        At the equilibrium, or at simulated rates.
    g : mapping
        ``∂L/∂a`` of any populations.
    solve : Solve
    whole : bool
        Solve for λ of every population at once, as the equation stands, instead of for what returns through the
        feedback. The same λ, by more and longer steps; without feedback a Krylov solver needs as many as the network is
        deep.

    Returns
    -------
    lambda_ : dict
        λ by population.
    dparams : Gradients
        ``(∂F/∂θ)ᵀ λ``.
    solution : Solution
        Its residuals are those of ``(I − Jᵀ)λ = g``, relative to ‖g‖ sample by sample.
    """
    if not isinstance(linearisation, Linearisation):
        raise InputError(f"the linearisation is {shown(linearisation)}, but that of an equilibrium was expected")
    if not isinstance(solve, Solve):
        raise InputError(f"`solve` is {shown(solve)}, but a Solve was expected, which holds method and tolerance")
    g = checked_cotangents(g, linearisation.layout)
    with np.errstate(over="ignore", invalid="ignore"):
        lambda_, dparams, solution = (_whole if whole else _fed_back)(linearisation, g, solve)
    finite(lambda_ | dparams, "the gradient of")
    return lambda_, dparams, solution


def _fed_back(linearisation: Linearisation, g: Mapping[str, Array], solve: Solve) -> tuple[Rates, Gradients, Solution]:
    """Solve for what returns through the feedback alone."""
    lambda_, fed, dparams = linearisation.substitute(g, parameters=not linearisation.fed_back)
    if linearisation.fed_back and not fed:
        dparams = linearisation.substitute(g)[2]  # of what nobody feeds back after all
    if not fed:
        samples = count_samples(g)
        return lambda_, dparams, Solution({}, np.zeros(samples), [0.0], 1, True, "back substitution")

    def transpose(w: Rates) -> Rates:
        returned = linearisation.substitute(w, parameters=False)[1]
        return {name: returned[name] for name in w}

    solution = solve_adjoint(transpose, fed, solve)
    total = dict(g)
    for name, w in solution.state.items():
        accumulate(total, name, w)
    lambda_, returned, dparams = linearisation.substitute(total)
    # The residual of the whole equation is Uᵀλ − w, relative to ‖g‖.
    residual = Vectors.relative({name: returned[name] - w for name, w in solution.state.items()}, g)
    return lambda_, dparams, replace(solution, residual=residual)


def _whole(linearisation: Linearisation, g: Mapping[str, Array], solve: Solve) -> tuple[Rates, Gradients, Solution]:
    """Solve for every population at once."""
    names = [population.name for population, _ in linearisation.tape]
    dtype = np.result_type(*g.values()) if g else float
    full = {name: g[name] if name in g else np.zeros(linearisation.layout[name][0], dtype) for name in names}
    solution = solve_adjoint(linearisation.transpose, full, solve)
    dparams = linearisation.drive_pullback(g[INPUT]) if INPUT in g else Gradients()
    for population, pull in linearisation.tape:
        dreads, dlocal = pull(solution.state[population.name])
        dparams.add(dlocal)
        for name, dread in zip(population.reads, dreads, strict=True):
            if name == INPUT:
                dparams.add(linearisation.drive_pullback(dread))
    return solution.state, dparams, solution


def implicit_gradient(
    linearisation: Linearisation,
    g: Mapping[str, Array],
    solve: Solve = Solve(),  # noqa: B008
) -> Params:
    """Gradient of a loss with respect to the network's parameters, by implicit differentiation.

    Parameters
    ----------
    linearisation : Linearisation
    g : mapping
        ``∂L/∂a`` of any populations: all read-outs and attention scores together, for one solve serves them all.
    solve : Solve

    Returns
    -------
    dparams : dict
    """
    return dict(adjoint(linearisation, g, solve)[1])


def unrolled_gradient(
    network: Network, params: Mapping[str, Array], batch: Batch, g: Mapping[str, Array], sweeps: int
) -> Params:
    """Differentiate a number of sweeps ``z ← G(z)``, started from z = 0, by ordinary back-propagation.

    Tends to the implicit gradient as the sweeps converge; its memory grows with their number.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    g : mapping
        Cotangents of the rates after the last sweep.
    sweeps : int

    Returns
    -------
    dparams : dict
    """
    check_inputs(network, params, batch)
    x, _ = network.drive(params, batch)
    z = {name: np.zeros((*x.shape[:-1], network[name].width), x.dtype) for name in network.fed_back}
    tape = []
    for _ in range(whole("sweeps", sweeps)):
        rates, linearisation = one_sweep(network, params, batch, z)
        z = {name: rates[name] for name in z}
        tape.append(linearisation)
    dparams = Gradients()
    cotangent: Rates = checked_cotangents(g, tape[-1].layout)
    for linearisation in reversed(tape):
        _, cotangent, dlocal = linearisation.substitute(cotangent)
        dparams.add(dlocal)
    return dict(dparams)


def contraction_bound(network: Network, params: Mapping[str, Array], batch: Batch, rates: Rates) -> float:
    """Bound of ``‖∂G/∂z‖`` at given rates, from the operator norms of the projections.

    Norms multiply along every path from the fed-back rates to themselves, and paths add. Below 1 the equilibrium is
    stable and the iteration ``z ← G(z)`` contracts there; the bound is safe, not sharp.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    rates : dict
        With ``"input"``, as from `refsnn.readings.equilibrium.equilibrium`.

    Returns
    -------
    bound : float
        0 without feedback.
    """
    check_inputs(network, params, batch)
    mask = attention_mask(batch, rates[INPUT].dtype)
    reach = dict.fromkeys(network.fed_back, 1.0)  # bound of the derivative of each population with respect to z
    after: dict[str, float] = {}
    for population in network.populations:
        norms = population.projection.norms(params, tuple(rates[name] for name in population.reads), mask)
        slope = 1.0 if population.neuron is None else 1 / population.neuron.vth
        known = {INPUT: 0.0, **reach, **after}
        after[population.name] = slope * sum(
            norm * known[name] for norm, name in zip(norms, population.reads, strict=True)
        )
    return float(np.sqrt(sum(after[name] ** 2 for name in network.fed_back)))


def within_spectral_norm(matrix: Array, bound: float) -> Array:
    """Project a matrix onto those of spectral norm at most `bound`, by cutting its singular values.

    Parameters
    ----------
    matrix : (n, m) array
    bound : float

    Returns
    -------
    matrix : (n, m) array
        The nearest such matrix; the same array if it is within already.

    Examples
    --------
    >>> within_spectral_norm(np.diag([3.0, 0.5]), 1.0)
    array([[1. , 0. ],
           [0. , 0.5]])
    """
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return matrix if s[0] <= bound else (u * np.minimum(s, bound)) @ vt
