"""Implicit differentiation at a true equilibrium: the forward search, the adjoint solve, and the gradient they give."""

import dataclasses

import numpy as np
import pytest
from conftest import SMALL, random_batch, random_parameters
from hypothesis import given, settings
from hypothesis import strategies as st

from refsnn.errors import InputError, NotConverged
from refsnn.model.batch import attention_mask
from refsnn.model.families import spiking_bert
from refsnn.model.network import INPUT
from refsnn.model.neurons import Neuron
from refsnn.model.shapes import BertConfig
from refsnn.ops.dense import LinearPullback
from refsnn.readings.adjoint import SOLVERS, Solve, solve_adjoint, spectral_radius
from refsnn.readings.equilibrium import Search, _residual, equilibrium
from refsnn.readings.implicit import (
    adjoint,
    contraction_bound,
    implicit_gradient,
    unrolled_gradient,
    within_spectral_norm,
)
from refsnn.readings.rate_map import rate_map, sweep
from refsnn.readings.simulate import simulate
from refsnn.readings.solution import Vectors

KRYLOV = ("gmres", "lgmres", "gcrotmk", "bicgstab", "tfqmr")
NETWORK = spiking_bert(SMALL, feedback=True)


def parameters(seed: int, feedback: float = 0.05, config: BertConfig = SMALL):
    params = random_parameters(config, seed, feedback=True)
    params["feedback.weight"] = within_spectral_norm(params["feedback.weight"], feedback)
    return params


def cotangents(rates, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=rate.shape) for name, rate in rates.items() if name != INPUT}


def largest_error(ours, reference):
    assert set(ours) == set(reference)
    return max(np.abs(ours[k] - reference[k]).max() / max(np.abs(reference[k]).max(), 1e-300) for k in reference)


def feedback_product(linearisation):
    """Transposed derivative of the sweep map z ↦ G(z)."""
    return lambda w: {name: linearisation.substitute(w)[1][name] for name in w}


@pytest.fixture(scope="module")
def solved():
    params, batch = parameters(0), random_batch(SMALL, 0, size=3)
    found = equilibrium(NETWORK, params, batch)
    return params, batch, found, cotangents(found.rates)


# --- Forward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["simple", "damped", "anderson", "newton-krylov"])
def test_every_method_finds_the_rates_that_satisfy_the_equation(solved, method):
    params, batch, reference, _ = solved
    found = equilibrium(NETWORK, params, batch, Search(method))
    again, _ = sweep(NETWORK, params, batch, at=found.rates)  # F(a), population by population, from a alone
    for name, rate in found.rates.items():
        assert np.abs(again[name] - rate).max() < 1e-11, name
        assert np.abs(rate - reference.rates[name]).max() < 1e-9, name
    solution = found.solution
    assert solution.converged and solution.residual.shape == (3,)
    assert solution.evaluations == len(solution.trace) >= 2
    z = solution.state["encoder.1.output"]
    image = sweep(NETWORK, params, batch, solution.state)[0]["encoder.1.output"]
    true = np.linalg.norm((z - image).reshape(3, -1), axis=1) / np.linalg.norm(image.reshape(3, -1), axis=1)
    np.testing.assert_allclose(solution.residual, true, rtol=1e-6, atol=1e-16)


def test_without_feedback_the_equilibrium_is_one_sweep():
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 1)
    found = equilibrium(network, params, batch)
    rates, _ = rate_map(network, params, batch)
    for name in rates:
        np.testing.assert_array_equal(found.rates[name], rates[name])
    assert found.solution.evaluations == 0


def test_a_good_start_saves_sweeps(solved):
    params, batch, found, _ = solved
    assert equilibrium(NETWORK, params, batch, start=found.solution.state).solution.evaluations <= 2


def test_an_equilibrium_that_is_not_reached_is_an_error_with_its_numbers():
    params, batch = parameters(0, feedback=3.0), random_batch(SMALL, 0)
    with pytest.raises(NotConverged, match=r"residual .* after 30 sweeps") as caught:
        equilibrium(NETWORK, params, batch, Search(max_evaluations=30))
    assert not caught.value.solution.converged
    assert len(caught.value.solution.trace) == 30
    with pytest.warns(RuntimeWarning, match="not reached"):
        found = equilibrium(NETWORK, params, batch, Search(max_evaluations=30, on_failure="warn"))
    assert found.solution.residual.max() > 1e-3


# --- Backward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("method", [*KRYLOV, "neumann"])
def test_every_solver_agrees_with_a_dense_solve(solved, method, whole):
    _, _, found, g = solved
    _, reference, _ = adjoint(found.linearisation, g, Solve("dense", max_evaluations=5000))
    _, dparams, solution = adjoint(found.linearisation, g, Solve(method, max_evaluations=500), whole)
    assert solution.converged and solution.residual.max() < 1e-11
    assert largest_error(dparams, reference) < 1e-10


@pytest.mark.parametrize("products", [1, 2, 3])
def test_gmres_stopped_early_keeps_what_it_found(solved, products):
    """After k products its residual is the smallest over the Krylov space: about that of k terms of the series or less.

    (About: what it minimises is the equation of the fed-back rates, and the residual shown is that of every sample.)
    """
    _, _, found, g = solved
    errors = {}
    # SciPy's GMRES ends with a product more, for its residual.
    for method, limit in {"gmres": products + 1, "neumann": products}.items():
        with pytest.warns(RuntimeWarning):
            _, _, solution = adjoint(found.linearisation, g, Solve(method, max_evaluations=limit, on_failure="warn"))
        errors[method] = np.linalg.norm(solution.residual)
    assert errors["gmres"] <= 1.01 * errors["neumann"]
    assert errors["gmres"] < 0.5


def test_both_forms_of_the_equation_give_the_same_adjoint(solved):
    _, _, found, g = solved
    swept, _, _ = adjoint(found.linearisation, g)
    whole, _, _ = adjoint(found.linearisation, g, whole=True)
    assert largest_error(swept, whole) < 1e-10
    # The equation itself: g − (I − Jᵀ)λ = 0 over all populations.
    product = found.linearisation.transpose(swept)
    for name in g:
        assert np.abs(g[name] - swept[name] + product[name]).max() < 1e-10


def test_what_returns_through_the_feedback_is_solved_for_by_default(solved):
    """The whole equation takes more products, for the same adjoint state."""
    _, _, found, g = solved
    default, swept, whole = (
        adjoint(found.linearisation, g, **options)[2] for options in ({}, {"whole": False}, {"whole": True})
    )
    assert default.state.keys() == swept.state.keys() == {"encoder.1.output"} and whole.state.keys() == g.keys()
    assert default.evaluations == swept.evaluations < whole.evaluations


def test_complex_step_through_the_fixed_point():
    params, batch = parameters(3), random_batch(SMALL, 3)
    found = equilibrium(NETWORK, params, batch)
    g = cotangents(found.rates, 1)
    gradient = implicit_gradient(found.linearisation, g)
    rng = np.random.default_rng(0)
    for name in params:
        direction = rng.normal(size=params[name].shape)
        if name == "embeddings.word_embeddings.weight":
            direction[0] = 0
        moved = params | {name: params[name] + 1e-30j * direction}
        z = {"encoder.1.output": found.solution.state["encoder.1.output"].astype(complex)}
        for _ in range(60):  # the real part is at its fixed point; the imaginary part converges to the derivative
            rates, _ = sweep(NETWORK, moved, batch, z)
            z = {"encoder.1.output": rates["encoder.1.output"]}
        expected = sum((g[k] * rates[k].imag).sum() for k in g) / 1e-30
        ours = (gradient[name] * direction).sum()
        assert abs(ours - expected) <= 1e-9 * max(abs(expected), np.abs(gradient[name] * direction).sum()), name


def test_unrolled_differentiation_tends_to_the_implicit_gradient(solved):
    params, batch, found, g = solved
    reference = implicit_gradient(found.linearisation, g)
    errors = [largest_error(unrolled_gradient(NETWORK, params, batch, g, n), reference) for n in (2, 6, 40)]
    assert errors[0] > 10 * errors[1] and errors[2] < 1e-11


def test_one_step_comes_near_the_gradient_but_does_not_count_as_converged(solved):
    _, _, found, g = solved
    _, dparams, solution = adjoint(found.linearisation, g, Solve("one-step"))
    reference = implicit_gradient(found.linearisation, g)
    assert 1e-6 < largest_error(dparams, reference) < 1
    assert solution.residual.max() > 1e-8 and not solution.converged


def affine(seed, size=7, samples=3, radius=0.8):
    """a = a A + b θ: the adjoint equation has the closed form λ = g (I − Aᵀ)⁻¹."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(size, size))
    A *= radius / np.abs(np.linalg.eigvals(A)).max()
    return A, (lambda v: {"x": v["x"] @ A.T}), rng.normal(size=(samples, size))


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("method", [*KRYLOV, "neumann", "dense"])
def test_affine_network_in_closed_form(method, per_sample):
    A, transpose, g = affine(1)
    solution = solve_adjoint(transpose, {"x": g}, Solve(method, per_sample=per_sample))
    exact = np.linalg.solve(np.eye(7) - A, g.T).T  # (I − Jᵀ)λ = g with Jᵀ v = v Aᵀ, that is A v for column vectors
    np.testing.assert_allclose(solution.state["x"], exact, rtol=1e-10, atol=1e-11)
    wrong = np.linalg.solve(2 * np.eye(7) - A, g.T).T  # a known trap: iterating a map that solves (2I − Jᵀ)
    assert np.abs(solution.state["x"] - wrong).max() > 0.1
    transposed = np.linalg.solve(np.eye(7) - A.T, g.T).T
    assert np.abs(solution.state["x"] - transposed).max() > 0.01


def test_joint_and_per_sample_solves_are_equal(solved):
    _, _, found, g = solved
    joint, _, _ = adjoint(found.linearisation, g)
    single, _, solution = adjoint(found.linearisation, g, Solve(per_sample=True))
    assert largest_error(single, joint) < 1e-10
    assert solution.residual.shape == (3,)


def test_without_feedback_it_is_exactly_back_propagation_and_gmres_needs_the_depth():
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 1)
    rates, pullback = rate_map(network, params, batch)
    g = cotangents(rates)
    linearisation = equilibrium(network, params, batch).linearisation
    for name, gradient in implicit_gradient(linearisation, g).items():
        np.testing.assert_array_equal(gradient, pullback(g)[name])
    _, dparams, solution = adjoint(linearisation, g, whole=True)
    assert largest_error(dparams, pullback(g)) < 1e-10
    depth = len(network.populations)  # J is nilpotent: J^depth = 0
    assert solution.evaluations <= depth + 2  # one product for the start, one for the check
    assert spectral_radius(linearisation.transpose, g) == 0.0  # all eigenvalues of a nilpotent matrix are 0


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e20])
@pytest.mark.parametrize("method", ["gmres", "bicgstab", "neumann"])
def test_the_solution_scales_with_the_cotangent(scale, method):
    _, transpose, g = affine(2)
    one = solve_adjoint(transpose, {"x": g}, Solve(method)).state["x"]
    scaled = solve_adjoint(transpose, {"x": scale * g}, Solve(method))
    np.testing.assert_allclose(scaled.state["x"] / scale, one, rtol=1e-9)
    assert scaled.converged


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("method", [*KRYLOV, "neumann", "dense"])
def test_no_cotangent_is_too_small_or_too_large_for_a_norm(method, per_sample, dtype):
    """Squares of such numbers vanish or overflow; λ is a power of two times that of ordinary ones, bit for bit."""
    _, transpose, g = affine(2)
    g, low = g.astype(dtype), lambda v: {"x": transpose(v)["x"].astype(dtype)}
    one = solve_adjoint(low, {"x": g}, Solve(method, per_sample=per_sample))
    limit = np.finfo(dtype).maxexp
    exponents = np.array([[-0.9 * limit], [0.9 * limit], [-0.55 * limit]]).astype(int)  # in one batch
    powers = np.ldexp(dtype(1), exponents)
    found = solve_adjoint(low, {"x": g * powers}, Solve(method, per_sample=per_sample))
    assert one.converged and found.converged and found.state["x"].dtype == dtype
    assert np.abs(found.state["x"]).min(axis=1).all()
    np.testing.assert_array_equal(found.state["x"] / powers, one.state["x"])
    np.testing.assert_array_equal(found.residual, one.residual)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_gradients_of_tiny_and_huge_losses_are_solved_for_in_single_precision(solved, scale):
    params, batch, _, g = solved
    low = equilibrium(NETWORK, {k: v.astype(np.float32) for k, v in params.items()}, batch).linearisation
    g = {name: value.astype(np.float32) for name, value in g.items()}
    one, _, plain = adjoint(low, g)
    for whole in (False, True):
        lambda_, dparams, solution = adjoint(low, {k: v * np.float32(scale) for k, v in g.items()}, whole=whole)
        assert solution.converged and 0 < solution.residual.max() < 1e-5
        for name in one:
            assert np.abs(lambda_[name] / scale - one[name]).max() < 1e-4 * np.abs(one[name]).max()
        assert all(np.isfinite(value).all() for value in dparams.values())
    assert plain.residual.max() > 0


def test_residuals_of_an_equilibrium_of_hardly_any_rates_are_true():
    z, image = {"x": np.full((1, 3), 3e-30, np.float32)}, {"x": np.full((1, 3), 2e-30, np.float32)}
    assert _residual(z, image) == pytest.approx(0.5, rel=1e-6)
    assert _residual(image, image) == 0
    assert _residual(z, {"x": 0 * z["x"]}) == np.inf  # nothing is near silence but silence
    big = {"x": np.full((2, 3), 3e300)}
    assert Vectors.norms(big) == pytest.approx(3e300 * np.sqrt(3), rel=1e-15)
    assert Vectors.norms({"x": np.full((1, 4), 3e-300j)}) == pytest.approx(6e-300, rel=1e-15)


def test_an_adjoint_state_beyond_the_largest_number_is_refused():
    _, transpose, g = affine(2, radius=0.99)
    with pytest.raises(InputError, match="too large for float64"):
        solve_adjoint(transpose, {"x": g / np.abs(g).max() * 1.7e308})


def test_integer_cotangents_are_numbers_and_others_are_refused():
    _, transpose, _ = affine(2)
    whole = np.array([[1, 0, 2, -3, 0, 0, 5]])
    expected = solve_adjoint(transpose, {"x": whole.astype(float)}).state["x"]
    for numbers in (whole, whole.tolist()):
        for per_sample in (False, True):
            found = solve_adjoint(transpose, {"x": numbers}, Solve(per_sample=per_sample))
            np.testing.assert_array_equal(found.state["x"], expected)
    for bad in (whole > 0, whole.astype(str), whole.astype(object)):
        with pytest.raises(InputError, match=r"the cotangent g.* numbers were expected"):
            solve_adjoint(transpose, {"x": bad})


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_a_start_near_the_solution_is_only_corrected(scale):
    A, transpose, g = affine(5, size=40, radius=0.95)
    exact = np.linalg.solve(np.eye(40) - A, g.T).T
    noise = np.random.default_rng(1).normal(size=g.shape)
    start = {"x": scale * (exact + 1e-9 * noise)}
    cold = solve_adjoint(transpose, {"x": scale * g}, Solve("neumann", max_evaluations=2000))
    warm = solve_adjoint(transpose, {"x": scale * g}, Solve("neumann", max_evaluations=2000), start)
    assert warm.converged and 1 < warm.evaluations < 0.5 * cold.evaluations
    np.testing.assert_allclose(warm.state["x"] / scale, exact, rtol=1e-9)
    for method in (*KRYLOV, "dense"):
        assert solve_adjoint(transpose, {"x": scale * g}, Solve(method), start).converged
    done = solve_adjoint(transpose, {"x": scale * g}, Solve("neumann"), {"x": scale * exact})
    assert done.evaluations == 1  # the product that shows that nothing is left to do


def test_a_second_pass_corrects_the_samples_that_the_first_one_neglects():
    """What a solver left over in one sample alone, a small part of the whole, is solved for again."""
    rng = np.random.default_rng(0)
    A = 0.5 * np.linalg.qr(rng.normal(size=(7, 7)))[0]
    passes = []

    def careless(operator, b, tolerance):
        passes.append(np.linalg.norm(b.reshape(3, 7), axis=1))
        return np.linalg.solve(np.eye(21) - np.kron(np.eye(3), A), b) * np.repeat([1, 1 - 1e-8, 1], 7)

    g = rng.normal(size=(3, 7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOLVERS, "gmres", careless)
        solution = solve_adjoint(lambda v: {"x": v["x"] @ A.T}, {"x": g})
    assert len(passes) == 2 and solution.converged and solution.evaluations == 2
    np.testing.assert_allclose(passes[1][1], 1)  # scaled up again: the solver sees an error of ordinary size
    np.testing.assert_allclose(solution.state["x"], np.linalg.solve(np.eye(7) - A, g.T).T, rtol=1e-12)


def test_spectral_radius_of_the_smallest_equations():
    assert spectral_radius(lambda v: {"x": -0.7 * v["x"]}, {"x": np.ones((1, 1))}) == pytest.approx(0.7)
    assert spectral_radius(lambda v: v, {"x": np.ones((0, 1))}) == 0
    assert spectral_radius(lambda v: v, {}) == 0


def test_solvers_are_asked_for_a_tenth_of_the_tolerance():
    """Relative to what is left: so the residual of every sample is within the tolerance after one pass, as a rule."""
    _, transpose, g = affine(2)
    exact, asked = solve_adjoint(transpose, {"x": g}).state["x"], []

    def noted(operator, b, tolerance):
        asked.append(tolerance)
        return SOLVERS["dense"](operator, b, tolerance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOLVERS, "gmres", noted)
        solve_adjoint(transpose, {"x": g}, Solve(tolerance=1e-6))
        solve_adjoint(transpose, {"x": g}, Solve(tolerance=1e-6), {"x": 0.99 * exact})
    assert asked == [pytest.approx(1e-7), pytest.approx(1e-5)]  # what is left is a hundredth


def test_a_vector_that_the_derivative_maps_to_nearly_nothing_has_no_radius(monkeypatch):
    from scipy.sparse import linalg

    def refuse(*_, **__):
        raise linalg.ArpackError(-9)

    monkeypatch.setattr(linalg, "eigs", refuse)
    _, transpose, _ = affine(7, size=90, samples=1)
    assert spectral_radius(transpose, {"x": np.zeros((1, 90))}) == 0.0


def test_a_warning_points_at_who_called_and_a_solution_is_shown_without_its_trace():
    _, transpose, g = affine(6, radius=1.5)
    solve = Solve("neumann", max_evaluations=6, on_failure="warn")
    with pytest.warns(RuntimeWarning, match="not solved") as caught:
        solution = solve_adjoint(transpose, {"x": g}, solve)
    assert [warning.filename for warning in caught] == [__file__]
    assert "trace" not in repr(solution) and "evaluations=" in repr(solution)
    params, batch = parameters(0, feedback=3.0), random_batch(SMALL, 0)
    with pytest.warns(RuntimeWarning, match="not reached") as caught:
        equilibrium(NETWORK, params, batch, Search(max_evaluations=5, on_failure="warn"))
    assert [warning.filename for warning in caught] == [__file__]


def test_a_zero_cotangent_gives_zero_without_any_product():
    _, transpose, g = affine(2)
    solution = solve_adjoint(transpose, {"x": 0 * g})
    assert solution.converged and not solution.state["x"].any() and solution.evaluations == 0


@pytest.mark.parametrize("per_sample", [False, True])
def test_residuals_are_recomputed_and_belong_to_their_sample(per_sample):
    A, transpose, g = affine(4)
    g = g * np.array([[1.0], [0.0], [1e-9]])  # a strong, a silent and a faint sample
    solution = solve_adjoint(transpose, {"x": g}, Solve(tolerance=1e-6, per_sample=per_sample))
    assert solution.converged
    exact = np.linalg.solve(np.eye(7) - A, g.T).T
    for i in (0, 2):  # the faint sample is solved as well as the strong one
        assert np.abs(solution.state["x"][i] - exact[i]).max() < 1e-5 * np.abs(exact[i]).max()
    true = np.linalg.norm(g - solution.state["x"] + solution.state["x"] @ A.T, axis=1)
    for i in (0, 2):
        assert solution.residual[i] == pytest.approx(true[i] / np.linalg.norm(g[i]), rel=1e-3, abs=1e-14)
    assert solution.residual[1] == 0


def test_a_warm_start_and_a_preconditioner_save_products():
    A, transpose, g = affine(5, size=40, radius=0.95)
    cold = solve_adjoint(transpose, {"x": g})
    warm = solve_adjoint(transpose, {"x": g}, start=cold.state)
    assert warm.evaluations < 0.3 * cold.evaluations
    inverse = np.linalg.inv(np.eye(40) - A)
    helped = solve_adjoint(transpose, {"x": g}, preconditioner=lambda v: {"x": v["x"] @ inverse.T})
    assert helped.evaluations < 0.3 * cold.evaluations
    np.testing.assert_allclose(helped.state["x"], cold.state["x"], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", [*KRYLOV, "neumann"])
def test_history_shows_iterates_without_changing_the_solution(method):
    _, transpose, g = affine(5, size=40, radius=0.95)
    plain = solve_adjoint(transpose, {"x": g}, Solve(method, max_evaluations=2000))
    watched = solve_adjoint(transpose, {"x": g}, Solve(method, max_evaluations=2000, history=True))
    np.testing.assert_array_equal(plain.state["x"], watched.state["x"])
    assert watched.evaluations == plain.evaluations
    assert len(watched.trace) >= 2 and watched.trace[-1] < 1e-11
    if method in ("bicgstab", "tfqmr"):
        assert len(watched.trace) > len(plain.trace)


# --- Failures, whose asserted outcome is the failure -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["neumann", "gmres"])
def test_an_unstable_equilibrium_is_reported_with_its_spectral_radius(method):
    _, transpose, g = affine(6, radius=1.5)
    with pytest.raises(NotConverged, match=r"spectral radius of J is 1\.5.*unstable") as caught:
        solve_adjoint(transpose, {"x": g}, Solve(method, max_evaluations=6))
    assert np.isfinite(caught.value.solution.residual).all()
    with pytest.warns(RuntimeWarning, match="not solved"):
        solve = Solve(method, max_evaluations=6, on_failure="warn")
        assert not solve_adjoint(transpose, {"x": g}, solve).converged


def test_a_singular_equation_never_passes_for_solved():

    def transpose(v):
        return {"x": v["x"]}  # J = I: (I − Jᵀ)λ = 0 ≠ g

    for method in KRYLOV:
        with pytest.raises(NotConverged):
            solve_adjoint(transpose, {"x": np.ones((1, 4))}, Solve(method, max_evaluations=20))


def test_a_fully_clipped_network_has_no_gradient():
    params = parameters(0)
    for name in params:
        if name.endswith("LayerNorm.bias") or name.endswith(("key.bias", "value.bias", "intermediate.dense.bias")):
            params[name] = params[name] + 1e3
    batch = random_batch(SMALL, 0)
    found = equilibrium(NETWORK, params, batch)
    assert found.rates["encoder.1.output"].min() == 1.0
    dparams = implicit_gradient(found.linearisation, cotangents(found.rates))
    assert not any(gradient.any() for gradient in dparams.values())
    assert spectral_radius(found.linearisation.transpose, cotangents(found.rates)) == 0


def test_nonsense_is_refused():
    _, transpose, g = affine(0)
    with pytest.raises(InputError, match="method"):
        Solve("gauss")
    with pytest.raises(InputError, match="NaN"):
        solve_adjoint(transpose, {"x": g * np.nan})


# --- Properties over random networks, precision, norms ---------------------------------------------------------------


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 999), st.sampled_from([0.7, 1.0, 1.6]))
def test_random_networks(layers, heads, seed, vth):
    config = dataclasses.replace(
        SMALL, num_hidden_layers=layers, num_attention_heads=heads, hidden_size=heads * 3, intermediate_size=7
    )
    network = spiking_bert(config, Neuron(vth=vth), feedback=True)
    params, batch = parameters(seed, 0.02, config), random_batch(config, seed)
    found = equilibrium(network, params, batch, Search(max_evaluations=500))
    g = cotangents(found.rates, seed)
    lambda_, dparams, solution = adjoint(found.linearisation, g)
    assert solution.residual.max() < 1e-11
    product = found.linearisation.transpose(lambda_)
    size = max(np.abs(v).max() for v in lambda_.values())
    assert max(np.abs(g[k] - lambda_[k] + product[k]).max() for k in g) < 1e-10 * max(size, 1)
    assert set(dparams) == set(params)
    unrolled = unrolled_gradient(network, params, batch, g, found.solution.evaluations + 20)
    assert largest_error(dparams, unrolled) < 1e-8


def test_float32_agrees_with_float64_to_its_precision(solved):
    params, batch, found, g = solved
    low = equilibrium(NETWORK, {k: v.astype(np.float32) for k, v in params.items()}, batch)
    assert low.rates["encoder.1.output"].dtype == np.float32
    low_g = {k: v.astype(np.float32) for k, v in g.items()}
    ours = implicit_gradient(low.linearisation, low_g)
    reference = implicit_gradient(found.linearisation, g)
    # Relative to each gradient's norm. A rate within rounding of a clip edge may fall on the other side of it.
    errors = [np.linalg.norm(ours[k] - reference[k]) / np.linalg.norm(reference[k]) for k in reference]
    assert max(errors) < 1e-3
    assert all(v.dtype == np.float32 for v in ours.values())


def test_spectral_radius_by_arnoldi_equals_dense_eigenvalues():
    _, transpose, _ = affine(7, size=90, samples=1, radius=0.83)
    assert spectral_radius(transpose, {"x": np.zeros((1, 90))}) == pytest.approx(0.83, rel=1e-3)


def test_contraction_bound_is_a_bound(solved):
    params, batch, found, _ = solved
    product = feedback_product(found.linearisation)
    z = {"encoder.1.output": found.rates["encoder.1.output"]}
    size = z["encoder.1.output"].size
    columns = [
        product({"encoder.1.output": column.reshape(z["encoder.1.output"].shape)})["encoder.1.output"].reshape(-1)
        for column in np.eye(size)
    ]
    true_norm = np.linalg.norm(np.array(columns), 2)
    assert spectral_radius(product, z) <= true_norm * (1 + 1e-9)
    bound = contraction_bound(NETWORK, params, batch, found.rates)
    assert true_norm <= bound
    # Norms multiply along every path, and paths add: from what is fed back to every population, in their order.
    mask, network = attention_mask(batch, np.dtype(float)), spiking_bert(SMALL, Neuron(vth=1.6), feedback=True)
    reach = {"encoder.1.output": 1.0, INPUT: 0.0}
    for population in network.populations:
        reads = tuple(found.rates[name] for name in population.reads)
        norms = population.projection.norms(params, reads, mask)
        reach[population.name] = sum(n * reach[name] for n, name in zip(norms, population.reads, strict=True)) / 1.6
    expected = pytest.approx(reach["encoder.1.output"], rel=1e-12)
    assert contraction_bound(network, params, batch, found.rates) == expected
    assert contraction_bound(spiking_bert(SMALL), parameters(0) | {}, batch, found.rates) == 0
    halved = params | {"feedback.weight": params["feedback.weight"] / 2}
    assert contraction_bound(NETWORK, halved, batch, found.rates) == pytest.approx(bound / 2)


def test_projection_keeps_what_is_within_and_cuts_what_is_not():
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    cut = within_spectral_norm(matrix, 0.7)
    assert np.linalg.norm(cut, 2) == pytest.approx(0.7)
    assert within_spectral_norm(cut * 0.99, 0.7) is not matrix
    np.testing.assert_array_equal(within_spectral_norm(cut * 0.99, 0.7), cut * 0.99)


# --- The simulation reaches its equilibrium --------------------------------------------------------------------------


@pytest.mark.parametrize("feedback", [False, True])
def test_running_integration_converges_like_one_over_t_in_every_population(feedback):
    network = spiking_bert(SMALL, feedback=feedback)
    times = [50, 100, 200, 400, 800, 1600, 3200]
    distance = {p.name: np.zeros(len(times)) for p in network.populations}
    plateau = dict(distance)
    for seed in range(2):  # one sequence's error wobbles; many make a slope
        params = parameters(seed)
        params = params if feedback else {k: v for k, v in params.items() if k != "feedback.weight"}
        batch = random_batch(SMALL, seed, 16)
        target = equilibrium(network, params, batch).rates
        for rule, total in (("running", distance), ("inst", plateau)):
            if rule == "inst" and seed:
                continue
            for i, rates in enumerate(simulate(network, params, batch, times, rule, block=64).values()):
                for name in total:
                    total[name] = total[name] + np.eye(len(times))[i] * np.abs(rates[name] - target[name]).mean()
    for name, error in distance.items():
        slope = np.polyfit(np.log(times), np.log(error), 1)[0]
        assert -1.15 <= slope <= -0.85, (name, slope, error)
    for name in ("encoder.0.attention_output", "encoder.1.output"):
        assert plateau[name][-1] > 0.5 * plateau[name][0], "inst is expected to stop short of the rate map"


@pytest.mark.parametrize("leak", [0.9, 0.99])
def test_what_remains_for_leaky_neurons_is_the_potential_left_over(leak):
    # a[T] − I/V_th = −v[T]·(1 − λ)/(V_th·(1 − λ^T)) + v[0] λ^T (1 − λ)/(V_th (1 − λ^T)), v the charge after the reset.
    from refsnn.model.neurons import asr, fire

    current = np.random.default_rng(0).uniform(0.1, 0.9, 500)
    for t_conv, vth in ((50, 1.0), (2000, 0.8)):
        spikes, charge = fire(np.repeat(current[None] * vth, t_conv, axis=0), Neuron(vth=vth, leak=leak))
        error = asr(spikes, leak) - current
        np.testing.assert_allclose(error, -charge * (1 - leak) / (vth * (1 - leak**t_conv)), atol=1e-12)
        assert error.mean() == pytest.approx(
            -(1 - leak) / (1 - leak**t_conv) / 2, rel=0.25
        )  # it does not go away with T


def test_products_of_the_adjoint_compute_no_gradient_of_parameters(monkeypatch):
    """Weights' gradients are half of a pullback: they are computed once, after the solve."""
    network = spiking_bert(SMALL, feedback=True)
    params, batch = random_parameters(SMALL, 3, feedback=True), random_batch(SMALL, 4)
    params["feedback.weight"] *= 0.1
    found = equilibrium(network, params, batch)
    g = {"encoder.1.output": np.random.default_rng(0).normal(size=found.rates["encoder.1.output"].shape)}
    wanted, whole = adjoint(found.linearisation, g)[1], LinearPullback.parameters
    counted = []
    monkeypatch.setattr(LinearPullback, "parameters", lambda self, dy: counted.append(1) or whole(self, dy))
    _, dparams, solution = adjoint(found.linearisation, g)
    assert solution.evaluations > 3 and len(counted) == 2 * 6 + 1  # every linear map of two encoders, and the feedback
    assert all(np.array_equal(dparams[name], value) for name, value in wanted.items())
    lambda_, fed, nothing = found.linearisation.substitute(g, parameters=False)
    again = found.linearisation.substitute(g)
    assert not nothing and again[2].keys() <= dparams.keys()
    assert all(np.array_equal(lambda_[name], value) for name, value in again[0].items())
    assert all(np.array_equal(fed[name], value) for name, value in again[1].items())
