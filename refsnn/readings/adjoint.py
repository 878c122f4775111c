"""The adjoint equation, solved matrix-free.

    (I − Jᵀ) λ = g,    J = ∂F/∂a at a*,    g = ∂L/∂a*

Krylov methods of SciPy, the Neumann series, or a dense solve; what they found is judged by its true residual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError
from ..ops import Array
from .rate_map import Rates
from .solution import Solution, Vectors, count_samples, fail

__all__ = [
    "AdjointMethod",
    "solve_adjoint",
    "spectral_radius",
]

AdjointMethod = Literal["gmres", "lgmres", "gcrotmk", "bicgstab", "tfqmr", "neumann", "one-step", "dense"]

#: Jᵀ as a function of cotangents by population.
Transpose = Callable[[Rates], Rates]


def solve_adjoint(
    transpose: Transpose,
    g: Mapping[str, Array],
    method: AdjointMethod = "gmres",
    tolerance: float | None = None,
    max_evaluations: int = 200,
    start: Mapping[str, Array] | None = None,
    preconditioner: Transpose | None = None,
    on_failure: Literal["raise", "warn"] = "raise",
    per_sample: bool = False,
    history: bool = False,
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
    method : {"gmres", "lgmres", "gcrotmk", "bicgstab", "tfqmr", "neumann", "one-step", "dense"}
        SciPy's Krylov solvers; the Neumann series ``Σ_k (Jᵀ)^k g``; its first term alone; a dense LU solve, for small
        sizes and for checks.
    tolerance : float, optional
        Largest ``‖g − (I − Jᵀ)λ‖/‖g‖`` of any sample; 1e-12 in float64 and 1e-5 in float32 by default. ``one-step``
        does not try to reach it.
    max_evaluations : int
        Products with Jᵀ after which the solver is stopped, those that check its result not counted.
    start : mapping, optional
        Where to start; 0 by default.
    preconditioner : callable, optional
        Approximates ``(I − Jᵀ)⁻¹ v``; for the Krylov solvers.
    on_failure : {"raise", "warn"}
    per_sample : bool
        Solve one sample after another instead of all as one vector. Samples do not interact, so the solution is the
        same; one sample that is hard no longer holds up the others.
    history : bool
        Put the true residual of every iterate that the solver shows into the trace, at the price of a product each
        that is not counted. Without it only GMRES, which knows its residual, and the Neumann series leave a trace;
        lgmres and gcrotmk show no iterate before a cycle of products ends.

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
    if method not in get_args(AdjointMethod):
        raise InputError(f"the method is {method!r}, but it must be one of {', '.join(get_args(AdjointMethod))}")
    if per_sample:
        limits: dict[str, Any] = {"method": method, "tolerance": tolerance, "max_evaluations": max_evaluations}
        limits |= {"on_failure": on_failure, "history": history}
        return _sample_by_sample(transpose, g, start, preconditioner, limits)
    vectors = Vectors(g)
    dtype = vectors.dtype
    if not np.isfinite(vectors.flat(g)).all():
        raise InputError("the cotangent g holds NaN or infinite values, so there is nothing to solve for")
    if tolerance is None:
        tolerance = 1e-5 if dtype == np.float32 else 1e-12
    norms = Vectors.norms(g)
    scale = np.where(norms > 0, norms, 1).astype(dtype)
    evaluations = 0
    trace: list[float] = []

    def product(v: Array) -> Array:
        nonlocal evaluations
        evaluations += 1
        return v - vectors.flat(transpose(vectors.dict(v.astype(dtype, copy=False))))

    def limited(v: Array) -> Array:
        if evaluations >= max_evaluations:
            raise _Stopped
        return product(v)

    def watch(iterate: Array, b: Array) -> None:
        nonlocal evaluations
        if history:
            trace.append(float(np.linalg.norm(b - product(iterate))))
            evaluations -= 1

    x = np.zeros_like(vectors.flat(g)) if start is None else vectors.flat(_scaled(start, 1 / scale))
    unit = vectors.flat(_scaled(g, 1 / scale))
    error = unit if start is None else unit - product(x)
    residual = Vectors.norms(vectors.dict(error))
    # Solve for the correction of what is there, until every sample is within the tolerance. One pass is the rule; a
    # second one is for samples whose error was a small part of the first one's.
    while (residual > tolerance).any() and evaluations < max_evaluations:
        remaining = np.where(residual > 0, residual, 1).astype(dtype)
        wanted = min(0.1 * tolerance / float(residual.max()), 0.5)
        b = vectors.flat(_scaled(vectors.dict(error), 1 / remaining))
        try:
            left = max_evaluations - evaluations
            correction = _run(method, limited, b, wanted, left, trace, vectors, preconditioner, watch)
        except _Stopped as stopped:
            correction = np.zeros_like(b) if stopped.best is None else stopped.best
        candidate = x + vectors.flat(_scaled(vectors.dict(correction.astype(dtype, copy=False)), remaining))
        if not np.isfinite(candidate).all():
            break
        error = unit - product(candidate)
        before, residual, x = residual, Vectors.norms(vectors.dict(error)), candidate
        trace.append(float(residual.max()))
        if method == "one-step" or residual.max() > 0.5 * before.max():
            break  # as good as this method gets
    converged = bool((residual <= tolerance).all())
    state = _scaled(vectors.dict(x), scale)
    solution = Solution(state, residual, trace or [float(residual.max(initial=0))], evaluations, converged, method)
    if not converged and method != "one-step":
        radius = spectral_radius(transpose, g)
        fail(
            solution,
            f"the adjoint equation was not solved by {method}: relative residual {residual.max():.1e} after "
            f"{evaluations} products, wanted {tolerance:.0e}; the spectral radius of J is {radius:.3g}"
            + (
                ", so the equilibrium is unstable: use a feedback matrix of smaller spectral norm"
                if radius >= 1
                else "; allow more evaluations, a larger tolerance, or another method"
            ),
            on_failure,
        )
    return solution


def _scaled(state: Mapping[str, Array], factors: Array) -> Rates:
    """Multiply every sample by its factor."""
    return {name: value * factors.reshape(-1, *[1] * (value.ndim - 1)) for name, value in state.items()}


class _Stopped(Exception):  # noqa: N818
    """The evaluations are used up; carries the best iterate known."""

    def __init__(self, best: Array | None = None) -> None:
        self.best = best


def _run(
    method: str,
    operator: Callable[[Array], Array],
    b: Array,
    tolerance: float,
    limit: int,
    trace: list[float],
    vectors: Vectors,
    preconditioner: Transpose | None,
    watch: Callable[[Array, Array], None],
) -> Array:
    if method == "one-step":
        return b
    if method == "dense":
        identity = np.eye(b.size, dtype=b.dtype)
        return np.linalg.solve(np.stack([operator(column) for column in identity], axis=1), b)
    if method == "neumann":
        x = np.zeros_like(b)
        while True:
            try:
                error = b - operator(x)  # b − (I − Jᵀ)x, so that x + error = b + Jᵀ x
            except _Stopped:
                raise _Stopped(x) from None
            trace.append(float(np.linalg.norm(error)))
            if trace[-1] <= tolerance or not trace[-1] <= 1e12:
                return x
            x = x + error
    from scipy.sparse import linalg as sparse

    shape = (b.size, b.size)
    matrix = sparse.LinearOperator(shape, matvec=operator, dtype=b.dtype)
    options: dict[str, Any] = {"rtol": tolerance, "atol": 0.0}
    if preconditioner is not None:

        def precondition(v: Array) -> Array:
            return vectors.flat(preconditioner(vectors.dict(v)))

        options["M"] = sparse.LinearOperator(shape, matvec=precondition, dtype=b.dtype)
    latest: list[Array] = []

    def callback(x: Any) -> None:
        if np.ndim(x) == 0:  # gmres reports its own estimate of the residual
            trace.append(float(x))
        else:
            latest[:] = [np.array(x)]
            watch(latest[0], b)

    solver = getattr(sparse, method)
    if method == "gmres":
        # No restart before the evaluations are used up. A cycle ends with one product more, for the true residual: if
        # that were refused, what the cycle found would be lost.
        cycles = 1 if limit - 1 <= b.size else 2
        options |= {"restart": min(b.size, max(limit - 1, 1)), "maxiter": cycles, "callback_type": "pr_norm"}
    else:
        options["maxiter"] = limit
    try:
        return solver(matrix, b, callback=callback, **options)[0]
    except _Stopped:
        raise _Stopped(latest[0] if latest else None) from None


def _sample_by_sample(transpose, g, start, preconditioner, limits: dict[str, Any]) -> Solution:
    solutions = []
    for i in range(count_samples(g)):

        def only(state: Mapping[str, Array], i: int = i) -> Rates:
            return {name: value[i : i + 1] for name, value in state.items()}

        def alone(function: Transpose, i: int = i) -> Transpose:
            def of_one(v: Rates) -> Rates:
                padded = {name: np.zeros(g[name].shape, value.dtype) for name, value in v.items()}
                for name, value in v.items():
                    padded[name][i] = value[0]
                return {name: value[i : i + 1] for name, value in function(padded).items()}

            return of_one

        solutions.append(
            solve_adjoint(
                alone(transpose),
                only(g),
                start=None if start is None else only(start),
                preconditioner=None if preconditioner is None else alone(preconditioner),
                **limits,
            )
        )
    return Solution(
        {name: np.concatenate([s.state[name] for s in solutions]) for name in g},
        np.concatenate([s.residual for s in solutions]),
        [residual for s in solutions for residual in s.trace],
        sum(s.evaluations for s in solutions),
        all(s.converged for s in solutions),
        limits["method"],
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

    def product(v: Array) -> Array:
        return vectors.flat(transpose(vectors.dict(v.reshape(-1).astype(dtype, copy=False)))).astype(float)

    if size <= 64:  # ARPACK wants room to work in
        matrix = np.stack([product(column) for column in np.eye(size)], axis=1)
        return float(np.abs(np.linalg.eigvals(matrix)).max(initial=0))
    from scipy.sparse import linalg as sparse

    start = np.random.default_rng(seed).normal(size=size)
    operator = sparse.LinearOperator((size, size), matvec=product, dtype=float)
    try:
        values = sparse.eigs(operator, k=1, which="LM", v0=start, tol=1e-4, return_eigenvectors=False)
    except sparse.ArpackNoConvergence as error:
        values = error.eigenvalues if len(error.eigenvalues) else np.array([np.nan])
    except sparse.ArpackError:  # the starting vector was mapped to zero: J is nilpotent, as without feedback
        return 0.0
    return float(np.abs(values).max())
