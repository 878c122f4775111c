"""The truth of every operation: forward against 50 digits, pullback against the complex step.

The complex step needs no step size: for analytic f, Im f(x + ihv)/h = f'(x)v up to h², which vanishes for h = 1e-30,
and nothing is subtracted. A pullback therefore has to agree with it to rounding, not to finite-difference accuracy.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import to_float

from refsnn import ops
from refsnn.errors import InputError
from refsnn.ops import fast

# Relative to the norm of the quantity. Some thousand roundings of 1.1e-16 stay below it, any wrong formula far above.
EXACT = 1e-12
EPS32 = float(np.finfo(np.float32).eps)
# Relative, float32 against float64 at the same (float32) inputs: some hundred roundings of 6e-8.
SINGLE = 2e-5
# For quantities that are exactly 0 or 1 in exact arithmetic, relative to what cancels: some tens of roundings.
ROUNDING = 1e-14
# A quantity smaller than this, all inputs being of order one, is what a cancellation leaves: compared absolutely.
FLOOR = 1e-2
# The imaginary step: h² is far below the rounding of anything, h far above the smallest number of float64.
STEP = 1e-30
# What BERT adds to the scores of keys that must not be seen.
HIDDEN = -10000.0

quick = settings(max_examples=10, deadline=None, derandomize=True)
few = settings(max_examples=4, deadline=None, derandomize=True)

# Underflow to 0 is what masks live by; anything else is an error.
strict = partial(np.errstate, over="raise", invalid="raise", divide="raise")


# ---------------------------------------------------------------------------------------------------------------------
# Helpers


def norm(x):
    return float(np.linalg.norm(np.ravel(x)))


def assert_close(actual, expected, what, tolerance=EXACT, scale=FLOOR):
    """‖actual − expected‖ ≤ tolerance · max(‖expected‖, scale), same shape."""
    assert np.shape(actual) == np.shape(expected), f"{what}: shape {np.shape(actual)}, expected {np.shape(expected)}"
    error = norm(np.subtract(actual, expected))
    allowed = tolerance * max(norm(expected), scale)
    assert error <= allowed, f"{what}: off by {error:.2e}, {error / allowed:.3g} times the allowed {allowed:.2e}"


def as_tuple(gradients):
    return gradients if isinstance(gradients, tuple) else (gradients,)


def random_cotangent(y, rng):
    """A random array like y; a Python number where y is a scalar (a loss), as training passes it."""
    return np.asarray(rng.normal(size=np.shape(y)), dtype=y.dtype) if np.ndim(y) else float(rng.normal())


def complex_step(op, args, directions):
    """``(y, J v)``: value and directional derivative; an argument whose direction is None stays real."""
    y, _ = op(*(a if v is None else a + 1j * STEP * v for a, v in zip(args, directions, strict=True)))
    return np.real(y), np.imag(y) / STEP


def check_pullback(op, args, rng, name, scale=FLOOR):
    """Hold ``pullback`` of ``y, pullback = op(*args)`` to everything that the conventions of `refsnn.ops` promise.

    `scale` is the size of the entries of the Jacobian before they cancel, where that is far from one.
    """
    before = [a.copy() for a in args]
    y, pullback = op(*args)
    dy = random_cotangent(y, rng)
    dy_before = np.copy(dy)
    gradients = as_tuple(pullback(dy))

    # One cotangent per array argument, of its shape and dtype.
    assert len(gradients) == len(args), f"{name}: {len(gradients)} cotangents for {len(args)} arguments"
    for i, (a, g) in enumerate(zip(args, gradients, strict=True)):
        assert (g.shape, g.dtype) == (a.shape, a.dtype), f"{name}, argument {i}: {g.shape} {g.dtype}, not {a.shape}"

    # One argument at a time: Im <dy, op(x + ihv)>/h = <pullback(dy), v>.
    directions = [rng.normal(size=a.shape) for a in args]
    for i, (g, v) in enumerate(zip(gradients, directions, strict=True)):
        real, jv = complex_step(op, args, [v if j == i else None for j in range(len(args))])
        assert_close(real, y, f"{name}, argument {i}: real part of the complex value")
        size = norm(v) * max(norm(g), scale * norm(dy))
        assert_close(np.vdot(g, v), np.vdot(dy, jv), f"{name}, cotangent of argument {i}", scale=size)

    # All arguments together: <dy, J v> = <Jᵀ dy, v>.
    directions = [rng.normal(size=a.shape) for a in args]
    _, jv = complex_step(op, args, directions)
    size = norm(dy) * max(norm(jv), scale * sum(map(norm, directions)))
    inner = sum(np.vdot(g, v) for g, v in zip(gradients, directions, strict=True))
    assert_close(inner, np.vdot(dy, jv), f"{name}: adjoint identity", scale=size)

    # A second call answers the same, even after the first answer was overwritten: nothing is shared or consumed.
    first = [g.copy() for g in gradients]
    for g in gradients:
        g.fill(np.nan)
    for i, (g, again) in enumerate(zip(first, as_tuple(pullback(dy)), strict=True)):
        assert np.array_equal(g, again), f"{name}, argument {i}: the second call of pullback differs from the first"
    for i, (a, b) in enumerate(zip(args, before, strict=True)):
        assert np.array_equal(a, b), f"{name}, argument {i} was modified"
    assert np.array_equal(dy, dy_before), f"{name}: the cotangent was modified"


def read_only(x):
    """An array that nothing can write to, for the arguments without a cotangent: ids, labels, masks."""
    x.flags.writeable = False
    return x


# ---------------------------------------------------------------------------------------------------------------------
# One case per operation and variant, of any size


class Sizes(NamedTuple):
    lead: tuple[int, ...]  # leading axes: none, batch, time and batch
    n: int  # queries, classes
    s: int  # keys, rows of a table
    heads: int
    d: int  # width of a head, of a feature vector
    seed: int


class Case(NamedTuple):
    op: Callable  # of the array arguments only
    args: tuple[np.ndarray, ...]
    oracle: Callable
    scale: float = FLOOR


odd = st.integers(1, 5)
sizes = st.builds(
    Sizes,
    lead=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    n=st.integers(1, 4),
    s=odd,
    heads=st.integers(1, 3),
    d=odd,
    seed=st.integers(0, 2**32 - 1),
)


def embedding_case(z, rng):
    ids = read_only(rng.integers(z.s, size=(*z.lead, z.n)))  # often more ids than rows: repeated ids are the rule
    return Case(partial(ops.embedding, ids), (rng.normal(size=(z.s, z.d)),), partial(oracles.embedding, ids))


def linear_case(z, rng, bias=True):
    args = rng.normal(size=(*z.lead, z.d)), rng.normal(size=(z.s, z.d)), rng.normal(size=z.s)
    return Case(ops.linear, args if bias else args[:2], oracles.linear)


def layer_norm_case(z, rng):
    # Entries at least 0.2 apart: a variance that vanishes by accident would be ill-conditioned (see the tests below).
    x = rng.permuted(np.arange(z.d) + rng.uniform(-0.4, 0.4, size=(*z.lead, z.n, z.d)), axis=-1)
    weight = rng.normal(size=z.d)
    scale = max(FLOOR, np.abs(weight).max() / np.sqrt(x.var(axis=-1).min() + 1e-12))
    return Case(ops.layer_norm, (x, weight, rng.normal(size=z.d)), oracles.layer_norm, scale)


def entrywise_case(z, rng, name, **options):
    x = rng.normal(0.5, 1.5, size=(*z.lead, z.d))  # all branches of relu and clip
    low = {"low": options["low"]} if "low" in options else {}
    return Case(partial(getattr(ops, name), **options), (x,), partial(getattr(oracles, name), **low))


def scale_case(z, rng):
    return Case(ops.scale, (rng.normal(size=(*z.lead, z.d)), rng.normal(size=z.d)), oracles.scale)


def softmax_case(z, rng):
    return Case(ops.softmax, (rng.normal(0, 3, size=(*z.lead, z.s)),), oracles.softmax)


def causal(z, rng):
    """(N, S): key s is seen by the queries n ≥ s."""
    return np.where(np.arange(z.s) <= np.arange(z.n)[:, None], 0, HIDDEN)


def padding(z, rng):
    """(B, 1, 1, S), as BERT makes it: every sentence has its own length, at least 1."""
    lengths = rng.integers(1, z.s + 1, size=(z.lead[-1] if z.lead else 1, 1, 1, 1))
    return np.where(np.arange(z.s) < lengths, 0, HIDDEN)


def per_head(z, rng):
    """(h, 1, S) of arbitrary numbers."""
    return rng.normal(size=(z.heads, 1, z.s))


def leads(z, extra):
    """Leading axes of query and of key/value: `extra` says who has a time axis (of 3 steps), or a batch of one."""
    batch = z.lead[-1:] or (1,)
    return {
        "none": (z.lead, z.lead),
        "query": ((3, *batch), batch),
        "key": (batch, (3, *batch)),
        "one key": ((3, *batch), (1, *batch)),
        "one query": ((1, *batch), (3, *batch)),
        "batch of one": ((3, 2), (3, 1)),
    }[extra]


def query_key_value(z, rng, extra):
    to_query, to_key = leads(z, extra)
    shapes = (*to_query, z.n, z.heads * z.d), (*to_key, z.s, z.heads * z.d), (*to_key, z.s, z.heads * z.d)
    return tuple(rng.normal(size=shape) for shape in shapes)


def scores_case(z, rng, mask=None, extra="none"):
    if mask is padding:
        z = z._replace(lead=z.lead or (1,))  # a mask may not have axes that the scores lack
    options = {"heads": z.heads, "mask": mask and read_only(mask(z, rng))}
    args = query_key_value(z, rng, extra)[:2]
    return Case(partial(ops.attention_scores, **options), args, partial(oracles.attention_scores, **options))


def mix_case(z, rng, extra="none"):
    to_query, to_key = leads(z, extra)
    args = rng.normal(size=(*to_query, z.heads, z.n, z.s)), rng.normal(size=(*to_key, z.s, z.heads * z.d))
    return Case(ops.mix, args, oracles.mix)


def attention_case(z, rng, mask=None, extra="none"):
    if mask is padding:
        z = z._replace(lead=z.lead or (1,))
    options = {"heads": z.heads, "mask": mask and read_only(mask(z, rng))}
    args = query_key_value(z, rng, extra)
    return Case(partial(ops.attention, **options), args, partial(oracles.attention, **options))


def mse_case(z, rng):
    return Case(ops.mse, tuple(rng.normal(size=(2, *z.lead, z.d))), oracles.mse)


def cross_entropy_case(z, rng):
    labels = read_only(rng.integers(z.n, size=z.s))
    logits = rng.normal(0, 3, size=(z.s, z.n))
    return Case(partial(ops.cross_entropy, labels=labels), (logits,), partial(oracles.cross_entropy, labels=labels))


def soft_cross_entropy_case(z, rng):
    tau = {"temperature": float(rng.uniform(0.5, 4))}
    args = tuple(rng.normal(0, 3, size=(2, z.s, z.n)))
    return Case(partial(ops.soft_cross_entropy, **tau), args, partial(oracles.soft_cross_entropy, **tau))


CASES = {
    "embedding": embedding_case,
    "linear": linear_case,
    "linear without bias": partial(linear_case, bias=False),
    "layer_norm": layer_norm_case,
    "gelu": partial(entrywise_case, name="gelu"),
    "gelu_tanh": partial(entrywise_case, name="gelu_tanh"),
    "relu": partial(entrywise_case, name="relu"),
    "tanh": partial(entrywise_case, name="tanh"),
    "clip": partial(entrywise_case, name="clip"),
    "clip with edges": partial(entrywise_case, name="clip", edge_derivative=1.0),
    "clip from −1": partial(entrywise_case, name="clip", low=-1.0),
    "scale": scale_case,
    "softmax": softmax_case,
    "scores": scores_case,
    "scores, causal": partial(scores_case, mask=causal),
    "scores, padding": partial(scores_case, mask=padding),
    "scores, time in query": partial(scores_case, extra="query"),
    "scores, time in key": partial(scores_case, extra="key"),
    "mix": mix_case,
    "mix, time in weights": partial(mix_case, extra="query"),
    "mix, time in value": partial(mix_case, extra="key"),
    "mix, one value for all times": partial(mix_case, extra="one key"),
    "attention": attention_case,
    "attention, causal": partial(attention_case, mask=causal),
    "attention, padding": partial(attention_case, mask=padding),
    "attention, mask per head": partial(attention_case, mask=per_head),
    "attention, time in query": partial(attention_case, extra="query"),
    "attention, time in key": partial(attention_case, extra="key"),
    "attention, time in query, padding": partial(attention_case, mask=padding, extra="query"),
    "attention, one key for all times": partial(attention_case, extra="one key"),
    "attention, one query for all times": partial(attention_case, extra="one query"),
    "attention, one key for all sentences": partial(attention_case, extra="batch of one"),
    "mse": mse_case,
    "cross_entropy": cross_entropy_case,
    "soft_cross_entropy": soft_cross_entropy_case,
}
every_op = pytest.mark.parametrize("name", CASES)


def make(name, z):
    rng = np.random.default_rng(z.seed)
    return CASES[name](z, rng), rng


# ---------------------------------------------------------------------------------------------------------------------
# What holds for every operation at every size


def test_every_op_has_a_case():
    tested = {make(name, Sizes((), 1, 1, 1, 1, 0))[0].op for name in CASES}
    names = {getattr(op, "func", op).__name__ for op in tested}
    # Three functions have no pullback; their values are tested below.
    assert names == set(ops.__all__) - {"Array", "MASKED", "Rows", "causal_mask", "log_softmax", "split_heads"}


@every_op
@quick
@given(z=sizes)
def test_forward_is_the_textbook_formula(name, z):
    case, _ = make(name, z)
    y, _ = case.op(*case.args)
    assert_close(y, to_float(case.oracle(*case.args)), name)


@every_op
@quick
@given(z=sizes)
def test_pullback_is_the_derivative(name, z):
    case, rng = make(name, z)
    check_pullback(case.op, case.args, rng, name, case.scale)


@every_op
@few
@given(z=sizes)
def test_float32_stays_float32(name, z):
    case, rng = make(name, z)
    single = [a.astype(np.float32) for a in case.args]
    y, pullback = case.op(*single)
    reference, reference_pullback = case.op(*(a.astype(np.float64) for a in single))
    assert y.dtype == np.float32, f"{name}: {y.dtype} from float32"
    assert_close(y, reference, f"{name} in float32", SINGLE)

    dy = random_cotangent(y, rng)
    references = as_tuple(reference_pullback(dy if np.ndim(y) == 0 else dy.astype(np.float64)))
    for i, (g, expected) in enumerate(zip(as_tuple(pullback(dy)), references, strict=True)):
        assert g.dtype == np.float32, f"{name}, cotangent of argument {i}: {g.dtype} from float32"
        scale = max(case.scale, 0.1) * norm(dy)  # softmax and distillation cancel terms of order one
        assert_close(g, expected, f"{name} in float32, cotangent of argument {i}", SINGLE, scale)


@every_op
@few
@given(z=sizes)
def test_memory_order_is_of_no_consequence(name, z):
    """Transposed and strided views are where a reshape or an operation in place would go wrong."""
    case, rng = make(name, z)
    y, pullback = case.op(*case.args)
    dy = random_cotangent(y, rng)
    y_views, pullback_views = case.op(*(np.asfortranarray(a) for a in case.args))
    assert_close(y_views, y, f"{name} of transposed memory")
    dy_view = np.repeat(dy, 2, axis=-1)[..., ::2] if np.ndim(y) else dy
    for i, (g, expected) in enumerate(zip(as_tuple(pullback_views(dy_view)), as_tuple(pullback(dy)), strict=True)):
        assert_close(g, expected, f"{name} of transposed memory, argument {i}", scale=case.scale * norm(dy))


# ---------------------------------------------------------------------------------------------------------------------
# Embedding


def test_embedding_sums_the_cotangents_of_repeated_ids():
    rng = np.random.default_rng(0)
    ids = np.array([[4, 0, 4], [4, 1, 0]])
    _, pullback = ops.embedding(ids, rng.normal(size=(6, 3)))
    dy = rng.normal(size=(2, 3, 3))
    expected = np.zeros((6, 3))
    expected[0] = dy[0, 1] + dy[1, 2]
    expected[1] = dy[1, 1]
    expected[4] = dy[0, 0] + dy[0, 2] + dy[1, 0]
    assert_close(pullback(dy), expected, "embedding, repeated ids")


def test_rows_are_guarded_where_their_sums_are_small_or_huge_and_only_there():
    """The sums of exponentials decide; a sum of exactly 1 needs no maximum to be subtracted."""
    low = -np.inf
    rows = np.array([[0, low], [-1e-3, low], [1, 0], [60, 60], [70, low], [200, 0], [low, low]], np.float32)
    asked = []

    def plain(x):
        asked.extend(x.tolist())
        return np.full_like(x, 7)

    found = fast.softmax_float32(rows, plain)
    assert asked == rows[[1, 4, 5, 6]].tolist() and (found[[1, 4, 5, 6]] == 7).all()
    e = np.exp(np.float32(1))
    np.testing.assert_allclose(found[[0, 2, 3]], [[1, 0], [e / (e + 1), 1 / (e + 1)], [0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("frozen_row", [None, 0, 2])  # 0 is BERT's padding token, and false
def test_embedding_frozen_row_gets_no_gradient(frozen_row):
    rng = np.random.default_rng(1)
    ids, table = np.array([[0, 2, 2], [1, 0, 4]]), rng.normal(size=(5, 3))
    dy = rng.normal(size=(2, 3, 3))
    y, pullback = ops.embedding(ids, table, frozen_row=frozen_row)
    assert np.array_equal(y, table[ids])  # the row is frozen, not absent
    expected = ops.embedding(ids, table)[1](dy)
    assert np.all(np.any(expected != 0, axis=1) == [True, True, True, False, True])
    if frozen_row is not None:
        expected[frozen_row] = 0
    assert np.array_equal(pullback(dy), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("frozen_row", [None, 0, 3])
@pytest.mark.parametrize("count", [0, 1, 7, 60])
def test_rows_of_an_embedding_are_its_gradient_without_the_rows_that_are_0(dtype, frozen_row, count):
    rng = np.random.default_rng(count)
    ids, dy = rng.integers(0, 9, (count, 2)), rng.normal(size=(count, 2, 3)).astype(dtype)
    _, pullback = ops.embedding(ids, np.ones((9, 3), dtype), frozen_row)
    rows = pullback.rows(dy)
    assert rows.numbers.tolist() == sorted({*ids.reshape(-1).tolist()} - {frozen_row})
    assert rows.values.shape == (len(rows.numbers), 3) and rows.values.dtype == rows.dense().dtype == dtype
    expected = np.zeros((9, 3))
    for number, d in zip(ids.reshape(-1), dy.reshape(-1, 3), strict=True):
        expected[number] += d * (number != frozen_row)
    np.testing.assert_allclose(rows.dense(), expected, rtol=0, atol=50 * np.finfo(dtype).eps)
    assert np.array_equal(pullback(dy), rows.dense())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_add_up_and_scale_as_the_tables_do_bit_for_bit(dtype):
    rng = np.random.default_rng(0)
    found, expected = 0.1 * ops.Rows(np.arange(0), np.zeros((0, 3), dtype), 50), np.zeros((50, 3), dtype)
    for count in (5, 0, 50, 1, 20):
        numbers = np.sort(rng.permutation(50)[:count])
        rows = ops.Rows(numbers, rng.normal(size=(count, 3)).astype(dtype), 50)
        whole = rng.normal(size=(50, 3)).astype(dtype)
        assert np.array_equal(rows + whole, rows.dense() + whole) and np.array_equal(whole + rows, rows.dense() + whole)
        found, expected = found + rows * 0.7, expected + rows.dense() * 0.7
        assert np.array_equal(found.dense(), expected)
        assert (np.diff(found.numbers) > 0).all() and found.values.dtype == dtype
    assert np.array_equal((found * 3).dense(), expected * 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_embedding_of_an_empty_batch(dtype):
    y, pullback = ops.embedding(np.zeros((0, 4), dtype=int), np.ones((5, 3), dtype=dtype), frozen_row=0)
    assert y.shape == (0, 4, 3)
    gradient = pullback(y)
    assert gradient.dtype == dtype
    assert np.array_equal(gradient, np.zeros((5, 3)))


# ---------------------------------------------------------------------------------------------------------------------
# Layer norm, GELU, ReLU, clip


def test_layer_norm_of_width_one_is_its_bias():
    """One number has no variance: y = β whatever x, and no gradient reaches x or γ, exactly."""
    rng = np.random.default_rng(2)
    x, weight, bias = rng.normal(size=(3, 2, 1)), rng.normal(size=1), rng.normal(size=1)
    y, pullback = ops.layer_norm(x, weight, bias)
    dy = rng.normal(size=y.shape)
    dx, dweight, dbias = pullback(dy)
    assert np.all(y == bias)
    assert np.all(dx == 0)
    assert np.all(dweight == 0)
    assert_close(dbias, [dy.sum()], "layer_norm of width 1, bias")


def test_layer_norm_of_near_constant_rows():
    """A variance of the order of ε = 1e-12 and below: here ε decides the result, and the gradient is of order 1e6.

    Dyadic rows, so that the mean and the deviations from it are exact: else they are known to 1e-10 only.
    """
    rng = np.random.default_rng(3)
    x = 1 + rng.integers(-3, 4, size=(8, 4)) * 2.0 ** np.arange(-18, -26, -1)[:, None]
    x[-1] = 1  # exactly constant
    args = x, rng.normal(size=4), rng.normal(size=4)
    y, _ = ops.layer_norm(*args)
    assert_close(y, to_float(oracles.layer_norm(*args)), "layer_norm, near-constant rows")
    assert np.all(y[-1] == args[2])
    check_pullback(ops.layer_norm, args, rng, "layer_norm, near-constant rows", scale=1e6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layer_norm_of_constant_rows_is_its_bias(dtype):
    """Equal entries, of which the mean may be off by a rounding that 1/√ε makes a number of order one in float32."""
    rng = np.random.default_rng(18)
    x = np.repeat(10.0 ** np.arange(-3, 6)[:, None] * rng.uniform(1, 10, size=(9, 1)), 100, axis=1).astype(dtype)
    weight, bias = rng.normal(size=(2, 100)).astype(dtype)
    y, _ = ops.layer_norm(x, weight, bias)
    assert np.array_equal(y, np.broadcast_to(bias, x.shape))


@pytest.mark.parametrize("eps", [1e-5, 1e-12])
def test_layer_norm_takes_another_epsilon(eps):
    rng = np.random.default_rng(4)
    args = rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=5)
    y, _ = ops.layer_norm(*args, eps=eps)
    assert_close(y, to_float(oracles.layer_norm(*args, eps=eps)), f"layer_norm, eps={eps}")
    check_pullback(partial(ops.layer_norm, eps=eps), args, rng, f"layer_norm, eps={eps}")


@strict()
@pytest.mark.parametrize("form", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("value", [-1e30, -1e4, -40.0, -8.0, -1.0, 0.0, 1.0, 8.0, 40.0, 1e4, 1e30])
def test_gelu_from_tail_to_tail(value, form):
    x, op = np.array([value]), getattr(ops, form)
    y, pullback = op(x)
    assert_close(y, to_float(getattr(oracles, form)(x)), f"{form}({value})")
    check_pullback(op, (x,), np.random.default_rng(5), f"{form}({value})")
    if abs(value) > 10:
        assert pullback(x) == (x if value > 0 else 0)  # a derivative of exactly 1 or 0


@strict()
def test_gelu_keeps_the_digits_of_its_lower_tail():
    """In float64, entry by entry: the tail is off by some x² units, where ½(1 + erf) has lost all digits at −8.3."""
    x = -np.geomspace(1, 37, 50)
    y, pullback = ops.gelu(x)
    assert np.allclose(y, to_float(oracles.gelu(x)), rtol=EXACT, atol=0)
    dy = np.random.default_rng(19).normal(size=x.size)
    assert np.allclose(pullback(dy), to_float(oracles.gelu_pullback(dy, x)), rtol=1e-11, atol=0)  # a zero at −0.75


@strict()
@pytest.mark.parametrize("form", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_of_infinite_and_huge_numbers(dtype, form):
    op, largest = getattr(ops, form), np.finfo(dtype).max
    x = np.array([-np.inf, -largest, largest, np.inf], dtype=dtype)
    y, pullback = op(x)
    assert_close(y[:2], [0, 0], f"{form}(−∞)", scale=1e-20)
    assert np.array_equal(y[2:], x[2:])
    assert_close(pullback(np.ones_like(x)), [0, 0, 1, 1], f"slope of {form} at ±∞")
    assert np.isnan(op(np.array([np.nan], dtype=dtype))[0])


def test_the_forms_of_gelu_differ_by_less_than_5e_4():
    x = np.linspace(-6, 6, 2001)
    apart = np.abs(ops.gelu(x)[0] - ops.gelu_tanh(x)[0]).max()
    assert 4e-4 < apart < 5e-4


@strict()
@pytest.mark.parametrize("form", ["gelu", "gelu_tanh"])
def test_gelu_in_float32_from_tail_to_tail(form):
    """The float32 form may be another algorithm: it has to be right at every x, in long and in strided arrays too."""
    op = getattr(ops, form)
    # 1 − tanh² has absolute precision only, and a slope of w' x = 20 multiplies it where it is nearly 0.
    allowed = {"gelu": 3e-7, "gelu_tanh": 2e-6}[form]
    x = np.linspace(-40, 40, 80002, dtype=np.float32)
    x[[0, -1]] = -1e4, 1e4
    x = x.reshape(-1, 2).T
    dy = np.random.default_rng(16).normal(size=x.shape).astype(np.float32)
    y, pullback = op(x)
    reference, reference_pullback = op(x.astype(np.float64))
    dx = pullback(dy)
    assert y.dtype == dx.dtype == np.float32
    error = np.abs(y - reference) / np.maximum(1, np.abs(x))
    assert error.max() <= 2e-7, (
        f"{form} in float32: off by {error.max():.2e}·max(1, |x|) at x = {x.flat[error.argmax()]}"
    )
    error = np.abs(dx - reference_pullback(dy.astype(np.float64))) / np.maximum(1, np.abs(dy))
    assert error.max() <= allowed, (
        f"{form} in float32, cotangent: off by {error.max():.2e} at x = {x.flat[error.argmax()]}"
    )


@strict()
def test_softmax_in_float32_whatever_the_scores():
    """Rows of every height are those of float64, and each is computed as if it were alone."""
    rng = np.random.default_rng(18)
    x = rng.normal(0, 3, size=(60, 9)) + rng.choice([-1e4, -200, -90, -1, 0, 1, 60, 90, 1e4], size=(60, 1))
    x[::3, 4:] -= 1e4
    x = x.astype(np.float32)
    p, _ = ops.softmax(x)
    assert p.dtype == np.float32
    exact = to_float(oracles.softmax(x.astype(np.float64)))
    assert np.all(np.abs(p - exact) <= 20 * EPS32 * exact + 1e-37)
    alone = np.concatenate([ops.softmax(row[None])[0] for row in x])
    assert np.all(np.abs(p - alone) <= 4 * EPS32 * exact + 1e-37)
    assert np.isnan(ops.softmax(np.array([[0, np.nan], [1, 2]], np.float32))[0]).any(axis=-1).tolist() == [True, False]


def test_relu_at_the_edge():
    x = np.array([-np.nextafter(0, 1), -0.0, 0.0, np.nextafter(0, 1), -1.0, 1.0])
    dy = np.random.default_rng(6).normal(size=6)
    y, pullback = ops.relu(x)
    assert np.array_equal(y, [0, 0, 0, x[3], 0, 1])
    assert np.array_equal(pullback(dy), dy * [0, 0, 0, 1, 0, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("edge", [None, 0.0, 1.0])
def test_clip_at_the_edges(edge, dtype):
    zero, one = dtype(0), dtype(1)
    around_0 = np.nextafter(zero, -one), -zero, zero, np.nextafter(zero, one)
    around_1 = np.nextafter(one, zero), one, np.nextafter(one, 2 * one)
    x = np.array([-2, *around_0, 0.5, *around_1, 2], dtype=dtype)
    dy = np.random.default_rng(7).normal(size=x.size).astype(dtype)
    y, pullback = ops.clip(x) if edge is None else ops.clip(x, edge_derivative=edge)
    e = edge or 0.0
    dx = pullback(dy)
    assert np.array_equal(y, [0, 0, 0, 0, x[4], 0.5, x[6], 1, 1, 1])
    assert np.array_equal(dx, dy * np.array([0, 0, e, e, 1, 1, 1, e, 0, 0], dtype=dtype))
    assert y.dtype == dx.dtype == dtype


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_clip_from_minus_one_at_its_edges(edge):
    x = np.array([-2, np.nextafter(-1, -2), -1, np.nextafter(-1, 0), -0.5, 0, 1, 2])
    y, pullback = ops.clip(x, edge, low=-1.0)
    assert np.array_equal(y, [-1, -1, -1, x[3], -0.5, 0, 1, 1])
    assert np.array_equal(pullback(np.ones(8)), [0, 0, edge, 1, 1, 1, edge, 0])


# ---------------------------------------------------------------------------------------------------------------------
# Softmax and attention: large scores, masks, structural ties


def dyadic(rng, *shape):
    """Multiples of 1/4: their products and sums are exact, so that a score of −10000 + s loses no digits of s."""
    return rng.integers(-6, 7, size=shape) / 4


@strict()
def test_softmax_of_large_scores():
    rng = np.random.default_rng(8)
    x = rng.choice([-1e4, 1e4], size=(6, 5)) + dyadic(rng, 6, 5)
    x[0], x[1] = 1e4, -1e4
    p, _ = ops.softmax(x)
    assert_close(p, to_float(oracles.softmax(x)), "softmax at ±1e4")
    assert_close(ops.log_softmax(x), to_float(oracles.log_softmax(x)), "log_softmax at ±1e4")
    check_pullback(ops.softmax, (x,), rng, "softmax at ±1e4")


@quick
@given(z=sizes)
def test_log_softmax(z):
    case, _ = make("softmax", z)
    x = case.args[0]
    assert_close(ops.log_softmax(x), to_float(oracles.log_softmax(x)), "log_softmax")
    assert ops.log_softmax(x.astype(np.float32)).dtype == np.float32


def test_split_heads_gives_every_head_neighbouring_features():
    x = np.random.default_rng(17).normal(size=(2, 5, 6))
    split = ops.split_heads(x, 3)
    assert split.shape == (2, 3, 5, 2)
    for head in range(3):
        assert np.array_equal(split[:, head], x[..., 2 * head : 2 * head + 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (4, 4), (1, 5), (3, 5)])
def test_causal_mask_shows_each_query_what_is_not_later(queries, keys, dtype):
    """The queries are the last positions: query n is the position n + keys − queries."""
    mask = ops.causal_mask(queries, keys, dtype)
    assert mask.dtype == dtype and mask.shape == (queries, keys)
    for n, s in np.ndindex(mask.shape):
        assert mask[n, s] == (0 if s <= n + keys - queries else HIDDEN)
    assert np.array_equal(mask, ops.causal_mask(keys, keys, dtype)[-queries:])


def test_softmax_of_a_fully_masked_row():
    """−10000 at every key is no mask at all: softmax does not see a common shift."""
    rng = np.random.default_rng(9)
    x = dyadic(rng, 4, 5)
    p, pullback = ops.softmax(x)
    hidden, hidden_pullback = ops.softmax(x + HIDDEN)
    dp = rng.normal(size=p.shape)
    assert np.array_equal(hidden, p)
    assert np.array_equal(hidden_pullback(dp), pullback(dp))
    assert_close(hidden.sum(axis=-1), np.ones(4), "softmax, fully masked", ROUNDING)
    check_pullback(ops.softmax, (x + HIDDEN,), rng, "softmax, fully masked")


@strict()
def test_attention_with_scores_of_ten_thousand():
    rng = np.random.default_rng(10)
    # Heads of width 4: every score is a multiple of 1e4, equal ones among them, so that softmax is not all 0 and 1.
    query, key = rng.choice([-100.0, 100.0], size=(2, 3, 8)), rng.choice([-100.0, 100.0], size=(2, 5, 8))
    args = query, key, rng.normal(size=(2, 5, 8))
    scores, _ = ops.attention_scores(query, key, 2)
    assert np.abs(scores).max() >= 1e4
    op = partial(ops.attention, heads=2)
    assert_close(op(*args)[0], to_float(oracles.attention(*args, heads=2)), "attention at ±1e4")
    assert norm(op(*args)[1](rng.normal(size=query.shape))[0]) > 1  # something to differentiate
    check_pullback(op, args, rng, "attention at ±1e4", scale=100)


def test_attention_of_a_fully_masked_sentence():
    """The second sentence is all padding: it attends as if there were no mask, and nothing becomes NaN."""
    rng = np.random.default_rng(11)
    args = dyadic(rng, 2, 3, 8), dyadic(rng, 2, 5, 8), rng.normal(size=(2, 5, 8))
    mask = read_only(np.array([[0, 0, HIDDEN, 0, HIDDEN], [HIDDEN] * 5])[:, None, None, :])
    masked, unmasked = partial(ops.attention, heads=2, mask=mask), partial(ops.attention, heads=2)
    y, pullback = masked(*args)
    reference, reference_pullback = unmasked(*args)
    dy = rng.normal(size=y.shape)
    assert_close(y, to_float(oracles.attention(*args, heads=2, mask=mask)), "attention, a sentence fully masked")
    assert_close(y[1], reference[1], "attention, the fully masked sentence")
    for i, (g, expected) in enumerate(zip(pullback(dy), reference_pullback(dy), strict=True)):
        assert_close(g[1], expected[1], f"attention, the fully masked sentence, argument {i}")
        assert norm(g[0] - expected[0]) > 0.01 * norm(expected[0])  # while the first sentence does feel the mask
    check_pullback(masked, args, rng, "attention, a sentence fully masked")


def test_masked_keys_have_no_influence():
    """Beside a visible key, e^−10000 is exactly 0: neither value nor gradient passes a masked place."""
    rng = np.random.default_rng(12)
    mask = read_only(np.array([0, HIDDEN, 0, HIDDEN]))
    query, key, value = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 6))
    y, pullback = ops.attention(query, key, value, 3, mask)
    _, dkey, dvalue = pullback(rng.normal(size=y.shape))
    hidden = mask < 0
    for name, g in (("key", dkey), ("value", dvalue)):
        assert np.all(g[:, hidden] == 0), f"attention: gradient to a masked {name}"
        assert np.all(np.any(g[:, ~hidden] != 0, axis=-1)), f"attention: no gradient to a visible {name}"
    shorter, _ = ops.attention(query, key[:, ~hidden], value[:, ~hidden], 3)
    assert_close(y, shorter, "attention without the masked keys")


def test_a_value_feature_of_one_ties_context_and_gradients():
    """The weights sum to 1: where a value feature is 1 at all keys, so is the context, and scores have no say in it."""
    rng = np.random.default_rng(13)
    heads, feature = 2, 4  # the second feature of the second head
    query, key, value = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 5, 6)), rng.normal(size=(2, 5, 6))
    value[..., feature] = 1
    y, pullback = ops.attention(query, key, value, heads)
    assert_close(y[..., feature], np.ones((2, 3)), "context of a feature that is 1", ROUNDING)

    dy = np.zeros_like(y)
    dy[..., feature] = rng.normal(size=(2, 3))
    dquery, dkey, dvalue = pullback(dy)
    assert_close(dquery, np.zeros_like(query), "gradient to the query", ROUNDING, scale=norm(dy))
    assert_close(dkey, np.zeros_like(key), "gradient to the key", ROUNDING, scale=norm(dy))
    assert norm(dvalue) > 0.1 * norm(dy)

    weights, softmax_pullback = ops.softmax(ops.attention_scores(query, key, heads)[0])
    dscores = softmax_pullback(ops.mix(weights, value)[1](dy)[0])
    assert_close(dscores, np.zeros_like(dscores), "gradient to the scores", ROUNDING, scale=norm(dy))

    # Any other feature does reach query and key: the zeros above are the tie's, not the operation's.
    assert norm(pullback(rng.normal(size=y.shape))[0]) > 0.01


# ---------------------------------------------------------------------------------------------------------------------
# Losses


@strict()
def test_losses_of_large_logits():
    rng = np.random.default_rng(14)
    student, teacher = rng.choice([-1e4, 1e4], size=(2, 4, 3)) + dyadic(rng, 2, 4, 3)
    labels = read_only(np.array([0, 2, 1, 1]))
    hard = partial(ops.cross_entropy, labels=labels)
    soft = partial(ops.soft_cross_entropy, temperature=2.0)
    assert_close(hard(student)[0], to_float(oracles.cross_entropy(student, labels)), "cross_entropy at ±1e4")
    assert_close(
        soft(student, teacher)[0], to_float(oracles.soft_cross_entropy(student, teacher, 2)), "distillation at ±1e4"
    )
    check_pullback(hard, (student,), rng, "cross_entropy at ±1e4")
    check_pullback(soft, (student, teacher), rng, "distillation at ±1e4", scale=1e4)


def test_the_temperature_is_one_unless_said():
    rng = np.random.default_rng(15)
    student, teacher = rng.normal(size=(2, 4, 3))
    expected = to_float(oracles.soft_cross_entropy(student, teacher, 1))
    assert_close(ops.soft_cross_entropy(student, teacher)[0], expected, "soft_cross_entropy at τ = 1")


@pytest.mark.parametrize("name", ["mse", "cross_entropy", "soft_cross_entropy"])
def test_the_cotangent_of_a_loss_does_not_change_the_precision(name):
    """In NumPy 2 a float64 scalar, which sums and losses come as, would turn a float32 gradient into float64."""
    case, _ = make(name, Sizes((), 3, 4, 1, 2, 16))
    single = [a.astype(np.float32) for a in case.args]
    _, pullback = case.op(*single)
    for plain, *others in zip(*(as_tuple(pullback(kind(0.7))) for kind in (float, np.float64, np.array)), strict=True):
        for g in others:
            assert g.dtype == np.float32
            assert np.array_equal(g, plain)


# ---------------------------------------------------------------------------------------------------------------------
# Input that NumPy would accept and misread


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.embedding(np.array([0, -1]), np.ones((3, 2))), r"ids lie between -1 and 0, .* in \[0, 3\)"),
        (lambda: ops.embedding(np.array([3]), np.ones((3, 2))), r"ids lie between 3 and 3, .* in \[0, 3\)"),
        (lambda: ops.split_heads(np.ones((2, 5)), 3), "3 heads cannot share a width of 5"),
        (lambda: ops.attention_scores(np.ones((2, 2)), np.ones((2, 2)), 3), "3 heads cannot share a width of 2"),
        (lambda: ops.mse(np.ones((2, 1)), np.ones((2, 3))), r"prediction and target have shapes \(2, 1\) and \(2, 3\)"),
        (lambda: ops.cross_entropy(np.ones((2, 3)), np.array([0, -1])), r"labels lie between -1 and 0"),
        (lambda: ops.cross_entropy(np.ones((2, 3)), np.array([0])), r"rows of logits and labels have shapes \(2,\)"),
        (
            lambda: ops.soft_cross_entropy(np.ones((2, 3)), np.ones((1, 3))),
            "student's and teacher's logits have shapes",
        ),
    ],
)
def test_input_that_would_be_misread_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
