"""The adjoint equation, solved matrix-free.

    (I − Jᵀ) λ = g,    J = ∂F/∂a at a*,    g = ∂L/∂a*

Krylov methods of SciPy, the Neumann series, or a dense solve; what they found is judged by its true residual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError, shown
from ..ops import Array
from .inputs import real_array
from .rate_map import Rates
from .solution import (
    OnFailure,
    Solution,
    Vectors,
    check_limits,
    count_samples,
    exponents,
    fail,
    shifted,
    usual_tolerance,
)

__all__ = [
    "AdjointMethod",
    "Solve",
    "solve_adjoint",
    "spectral_radius",
]

AdjointMethod = Literal["gmres", "lgmres", "gcrotmk", "bicgstab", "tfqmr", "neumann", "one-step", "dense"]

#: Jᵀ as a function of cotangents by population.
Transpose = Callable[[Rates], Rates]


@dataclass(frozen=True)
class Solve:
    """How an adjoint equation is solved.

    Attributes
    ----------
    method : {"gmres", "lgmres", "gcrotmk", "bicgstab", "tfqmr", "neumann", "one-step", "dense"}
        SciPy's Krylov solvers; the Neumann series ``Σ_k (Jᵀ)^k g``; its first term alone; a dense LU solve, for small
        sizes and for checks.
    tolerance : float, optional
        Largest ``‖g − (I − Jᵀ)λ‖/‖g‖`` of any sample; 1e-12 in float64 and 1e-5 in float32 by default. ``one-step``
        does not try to reach it.
    max_evaluations : int
        Products with Jᵀ after which the solver is stopped, those that check its result not counted.
    per_sample : bool
        Solve one sample after another instead of all as one vector. Samples do not interact, so the solution is the
        same; one sample that is hard no longer holds up the others.
    history : bool
        Put the true residual of every iterate that the solver shows into the trace, at the price of a product each
        that is not counted. Without it only GMRES, which knows its residual, and the Neumann series leave a trace;
        lgmres and gcrotmk show no iterate before a cycle of products ends.
    on_failure : {"raise", "warn"}
    """

    method: AdjointMethod = "gmres"
    tolerance: float | None = None
    max_evaluations: int = 200
    per_sample: bool = False
    history: bool = False
    on_failure: OnFailure = "raise"

    def __post_init__(self) -> None:
        check_limits(self, get_args(AdjointMethod))


def solve_adjoint(
    transpose: Transpose,
    g: Mapping[str, Array],
    solve: Solve = Solve(),
    start: Mapping[str, Array] | None = None,
    preconditioner: Transpose | None = None,
) -> Solution:
    """Solve ``(I − Jᵀ) λ = g``, given only the product ``v ↦ Jᵀ v``.

    Samples do not interact, so each sample's g is scaled to norm 1 before and its λ back after: neither tiny nor huge
    cotangents meet a solver's absolute tolerances, and a sample with a small cotangent is solved as well as one with a
    large one. g = 0 gives λ = 0.

    Parameters
    ----------
    transpose : callable
        ``transpose(v) -> Jᵀ v`` on dicts of arrays like `g`.
    g : mapping
        Name -> array; the samples' axis is first.
    solve : Solve
    start : mapping, optional
        Where to start; 0 by default.
    preconditioner : callable, optional
        Approximates ``(I − Jᵀ)⁻¹ v``; for the Krylov solvers.

    Returns
    -------
    solution : Solution
        ``state`` is λ; ``residual`` is recomputed from it, sample by sample, with a product of its own.

    Raises
    ------
    NotConverged
        The true residual exceeds the tolerance. The message states the spectral radius of J, by which one sees whether
        the equilibrium is stable at all.

    Notes
    -----
    jaxopt's implicit differentiation returns a zero gradient, silently, where its backward solve fails (its issue 466).
    """
    if not isinstance(solve, Solve):
        raise InputError(f"`solve` is {shown(solve)}, but a Solve was expected, which holds method and tolerance")
    g = {name: real_array(f"the cotangent g of {name}", value) for name, value in g.items()}
    if solve.per_sample:
        return _sample_by_sample(transpose, g, replace(solve, per_sample=False), start, preconditioner)
    vectors = Vectors(g)
    tolerance = usual_tolerance(vectors.dtype, solve.tolerance)
    power = exponents(g)
    g = shifted(g, -power)  # exact, and no square in a norm vanishes or overflows
    norms = Vectors.norms(g)
    scale = np.where(norms > 0, norms, 1).astype(vectors.dtype)
    operator = _Operator(transpose, vectors, solve, preconditioner)
    unit = vectors.flat(_scaled(g, 1 / scale))
    x = None if start is None else vectors.flat(_scaled(shifted(start, -power), 1 / scale))
    x, residual = _corrected(operator, unit, x, solve.method, tolerance)
    converged = bool((residual <= tolerance).all())
    trace = operator.trace or [float(residual.max(initial=0))]
    state = shifted(_scaled(vectors.dict(x), scale), power)
    solution = Solution(state, residual, trace, operator.evaluations, converged, solve.method)
    if not all(np.isfinite(value).all() for value in state.values()):
        raise InputError(f"the adjoint state is too large for {vectors.dtype}; scale the loss down")
    if not converged and solve.method != "one-step":
        fail(solution, _complaint(solution, tolerance, spectral_radius(transpose, g)), solve.on_failure)
    return solution


def _complaint(solution: Solution, tolerance: float, radius: float) -> str:
    advice = "; allow more evaluations, a larger tolerance, or another method"
    if radius >= 1:
        advice = ", so the equilibrium is unstable: use a feedback matrix of smaller spectral norm"
    return (
        f"the adjoint equation was not solved by {solution.method}: relative residual {solution.residual.max():.1e} "
        f"after {solution.evaluations} products, wanted {tolerance:.0e}; the spectral radius of J is {radius:.3g}"
    ) + advice


def _scaled(state: Mapping[str, Array], factors: Array) -> Rates:
    """Multiply every sample by its factor."""
    return {name: value * factors.reshape(-1, *[1] * (value.ndim - 1)) for name, value in state.items()}


class _Stopped(Exception):  # noqa: N818
    """The evaluations are used up; carries the best iterate known."""

    def __init__(self, best: Array | None = None) -> None:
        self.best = best


class _Operator:
    """``v ↦ (I − Jᵀ)v`` on vectors, as solvers call it; counts its products and keeps the trace of their residuals."""

    def __init__(self, transpose: Transpose, vectors: Vectors, solve: Solve, preconditioner: Transpose | None) -> None:
        self.transpose, self.vectors, self.preconditioner = transpose, vectors, preconditioner
        self.max_evaluations, self.history = solve.max_evaluations, solve.history
        self.evaluations = 0
        self.trace: list[float] = []

    @property
    def left(self) -> int:
        """Products that a solver may still take."""
        return self.max_evaluations - self.evaluations

    def __call__(self, v: Array) -> Array:
        """Take a product, or raise `_Stopped` where none is left."""
        if self.left <= 0:
            raise _Stopped
        return self.product(v)

    def product(self, v: Array) -> Array:
        """Take a product, left or not: a check of what was found."""
        self.evaluations += 1
        v_dict = self.vectors.dict(v.astype(self.vectors.dtype, copy=False))
        return v - self.vectors.flat(self.transpose(v_dict))

    def watch(self, iterate: Array, b: Array) -> None:
        """Note the true residual of an iterate, if wanted."""
        if self.history:
            self.trace.append(float(np.linalg.norm(b - self.product(iterate))))
            self.evaluations -= 1


def _corrected(
    operator: _Operator, unit: Array, x: Array | None, method: AdjointMethod, tolerance: float
) -> tuple[Array, Array]:
    """Solve for the correction of what is there until every sample is within the tolerance; return it, and residuals.

    One pass is the rule; a second one is for samples whose error was a small part of the first one's.
    """
    vectors = operator.vectors
    error = unit if x is None else unit - operator.product(x)
    x = np.zeros_like(unit) if x is None else x
    residual = Vectors.norms(vectors.dict(error))
    while (residual > tolerance).any() and operator.left > 0:
        remaining = np.where(residual > 0, residual, 1).astype(vectors.dtype)
        b = vectors.flat(_scaled(vectors.dict(error), 1 / remaining))
        try:
            correction = SOLVERS[method](operator, b, 0.1 * tolerance / float(residual.max()))
        except _Stopped as stopped:
            correction = np.zeros_like(b) if stopped.best is None else stopped.best
        candidate = x + vectors.flat(_scaled(vectors.dict(correction.astype(vectors.dtype, copy=False)), remaining))
        if not np.isfinite(candidate).all():
            break
        error = unit - operator.product(candidate)
        before, residual, x = residual, Vectors.norms(vectors.dict(error)), candidate
        operator.trace.append(float(residual.max()))
        if method == "one-step" or residual.max() > 0.5 * before.max():
            break  # as good as this method gets
    return x, residual


def _one_step(operator: _Operator, b: Array, tolerance: float) -> Array:
    return b


def _dense(operator: _Operator, b: Array, tolerance: float) -> Array:
    identity = np.eye(b.size, dtype=b.dtype)
    return np.linalg.solve(np.stack([operator(column) for column in identity], axis=1), b)


def _neumann(operator: _Operator, b: Array, tolerance: float) -> Array:
    x = np.zeros_like(b)
    while True:
        try:
            error = b - operator(x)  # b − (I − Jᵀ)x, so that x + error = b + Jᵀ x
        except _Stopped:
            raise _Stopped(x) from None
        operator.trace.append(float(np.linalg.norm(error)))
        if operator.trace[-1] <= tolerance or not operator.trace[-1] <= 1e12:
            return x
        x = x + error


def _gmres(operator: _Operator, b: Array, tolerance: float) -> Array:
    # No restart before the evaluations are used up. A cycle ends with one product more, for the true residual: if that
    # were refused, what the cycle found would be lost.
    left = operator.left - 1
    options = {"restart": min(b.size, max(left, 1)), "maxiter": 1 if left <= b.size else 2}
    return _krylov("gmres", operator, b, tolerance, callback_type="pr_norm", **options)


def _others(name: str, operator: _Operator, b: Array, tolerance: float) -> Array:
    return _krylov(name, operator, b, tolerance, maxiter=operator.left)


def _krylov(name: str, operator: _Operator, b: Array, tolerance: float, **options: Any) -> Array:
    """Let a Krylov solver of SciPy solve for `b`."""
    from scipy.sparse import linalg as sparse

    vectors, preconditioner = operator.vectors, operator.preconditioner
    linear = partial(sparse.LinearOperator, (b.size, b.size), dtype=b.dtype)
    if preconditioner is not None:
        options["M"] = linear(matvec=lambda v: vectors.flat(preconditioner(vectors.dict(v))))
    latest: list[Array] = []

    def callback(x: Any) -> None:
        if np.ndim(x) == 0:  # gmres reports its own estimate of the residual
            operator.trace.append(float(x))
        else:
            latest[:] = [np.array(x)]
            operator.watch(latest[0], b)

    try:
        solver = getattr(sparse, name)
        found: Array = solver(linear(matvec=operator), b, rtol=tolerance, atol=0.0, callback=callback, **options)[0]
    except _Stopped:
        raise _Stopped(latest[0] if latest else None) from None
    return found


#: Find x with ``(I − Jᵀ)x = b`` to a relative tolerance, or raise `_Stopped` with the best known.
SOLVERS: dict[AdjointMethod, Callable[[_Operator, Array, float], Array]] = {
    "gmres": _gmres,
    "lgmres": partial(_others, "lgmres"),
    "gcrotmk": partial(_others, "gcrotmk"),
    "bicgstab": partial(_others, "bicgstab"),
    "tfqmr": partial(_others, "tfqmr"),
    "neumann": _neumann,
    "one-step": _one_step,
    "dense": _dense,
}


def _sample_by_sample(
    transpose: Transpose,
    g: Mapping[str, Array],
    solve: Solve,
    start: Mapping[str, Array] | None,
    preconditioner: Transpose | None,
) -> Solution:
    """Solve for one sample at a time."""

    def only(state: Mapping[str, Array], i: int) -> Rates:
        return {name: value[i : i + 1] for name, value in state.items()}

    def alone(function: Transpose, i: int) -> Transpose:
        def of_one(v: Rates) -> Rates:
            padded = {name: np.zeros(g[name].shape, value.dtype) for name, value in v.items()}
            for name, value in v.items():
                padded[name][i] = value[0]
            return only(function(padded), i)

        return of_one

    solutions = [
        solve_adjoint(
            alone(transpose, i),
            only(g, i),
            solve,
            None if start is None else only(start, i),
            None if preconditioner is None else alone(preconditioner, i),
        )
        for i in range(count_samples(g))
    ]
    return Solution(
        {name: np.concatenate([s.state[name] for s in solutions]) for name in g},
        np.concatenate([s.residual for s in solutions]),
        [residual for s in solutions for residual in s.trace],
        sum(s.evaluations for s in solutions),
        all(s.converged for s in solutions),
        solve.method,
    )


def spectral_radius(transpose: Transpose, like: Mapping[str, Array], seed: int = 0) -> float:
    """Largest modulus of an eigenvalue of J, by Arnoldi iteration on v ↦ Jᵀ v.

    Parameters
    ----------
    transpose : callable
        As in `solve_adjoint`.
    like : mapping
        Arrays of the shapes that `transpose` takes.
    seed : int
        Of the starting vector.

    Returns
    -------
    radius : float
        Iterations ``a ← F(a)`` close to the equilibrium shrink errors by this factor; at 1 or above they do not.
    """
    vectors = Vectors(like)
    size = vectors.flat(like).size
    dtype = vectors.dtype
    if not size:
        return 0.0

    def product(v: Array) -> Array:
        return vectors.flat(transpose(vectors.dict(v.reshape(-1).astype(dtype, copy=False)))).astype(float)

    if size <= 64:  # ARPACK wants room to work in
        matrix = np.stack([product(column) for column in np.eye(size)], axis=1)
        return float(np.abs(np.linalg.eigvals(matrix)).max(initial=0))
    from scipy.sparse import linalg as sparse

    start = np.random.default_rng(seed).normal(size=size)
    # Without feedback J maps populations to earlier ones alone: it is nilpotent, and what Arnoldi iteration finds of
    # such a matrix is rounding (0.1 and more, by SciPy's version). So many products then leave exactly nothing.
    left = start
    for _ in like:
        left = product(left)
        if not left.any():
            return 0.0
    operator = sparse.LinearOperator((size, size), matvec=product, dtype=float)
    try:
        values = sparse.eigs(operator, k=1, which="LM", v0=start, tol=1e-4, return_eigenvectors=False)
    except sparse.ArpackNoConvergence as error:
        values = error.eigenvalues if len(error.eigenvalues) else np.array([np.nan])
    except sparse.ArpackError:  # the starting vector was mapped to zero, but for rounding
        return 0.0
    return float(np.abs(values).max())
