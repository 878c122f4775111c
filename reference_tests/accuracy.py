"""Errors of every operation, forward and backward, in units in the last place, against the 50 digits of `oracles`.

    python reference_tests/accuracy.py            print the table
    python reference_tests/accuracy.py --write    put it into docs/accuracy.md

The inputs are numbers of the precision under test, so that operation and oracle see the same ones; cotangents are
random. An entry's error is divided by the spacing of floating-point numbers at two places:

ulp       at the exact entry itself: the wrong units in the last place of what is returned. Where terms cancel it may be
          anything, for any program.
of scale  at the entry's *scale*: the sizes of all that was rounded on the way, each as it reaches the entry, added up:
          Σ |t_k| |∂y/∂t_k| over the intermediate results t_k. For a sum the t_k are its terms; a score t enters a
          softmax as |t| p, since the exponential turns an error of t into a relative one. Nothing can cancel here.

If every t_k is off by at most n roundings of u = eps/2 relative to its size, the entry is off by less than n units of
its scale, to first order. n is the fan-in and a few more: the `bound` of each measurement, known before any is made.
"""

import argparse
import platform
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import oracles
import scipy
from oracles import MP, to_float

from refsnn import ops
from refsnn.model.neurons import Neuron, rate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "accuracy.md"
BEGIN, END = "<!-- table: made by reference_tests/accuracy.py --write -->", "<!-- end of table -->"
DTYPES = (np.float64, np.float32)

#: What exp, log, erfc, tanh may be off by, in roundings: 4 ulp, the promise of vector libraries.
FUNCTION = 8
#: Roundings that are no term of a sum: a constant (1/√d, τ, V_th) and its product, a mean's division, a last product.
FEW = 4

HEADS, HIDDEN, VTH = 3, -10000.0, 0.7


class Measured(NamedTuple):
    """What one quantity of one operation came to."""

    quantity: str
    ulp: float
    of_scale: float
    bound: int  # of `of_scale`


def _spacing(size: np.ndarray, dtype: type) -> np.ndarray:
    """Spacing of the numbers at `size`; below the smallest normal number, which may be flushed to 0, that number."""
    tiny = np.finfo(dtype).tiny
    size = np.abs(size)
    return np.where(size < tiny, tiny, np.spacing(np.maximum(size, tiny).astype(dtype)).astype(np.float64))


def _compare(quantity: str, computed: Any, exact: Any, scale: Any, bound: int, dtype: type) -> Measured:
    computed, exact = np.asarray(computed), np.asarray(exact, dtype=object)
    assert computed.dtype == dtype, f"{quantity} is {computed.dtype} where the inputs are {dtype.__name__}"
    assert computed.shape == exact.shape == np.shape(scale), f"{quantity}: shapes differ"
    if not np.isfinite(computed).all():
        return Measured(quantity, np.inf, np.inf, bound)
    error = to_float([abs(MP.mpf(float(c)) - e) for c, e in zip(computed.flat, exact.flat, strict=True)])
    ulp, of_scale = ((error / _spacing(size, dtype).ravel()).max() for size in (to_float(exact), scale))
    return Measured(quantity, ulp, of_scale, bound)


# ---------------------------------------------------------------------------------------------------------------------
# The scales. Arguments are float64 copies of the inputs; p, q are probabilities, t = x − max x, g = γ·dy.


def _mean(x):
    return x.mean(axis=-1, keepdims=True)


def _total(x):
    return x.sum(axis=-1, keepdims=True)


def _softmax(x):
    t = x - x.max(axis=-1, keepdims=True)
    return t, np.exp(t) / _total(np.exp(t))


def softmax_scale(x, score=0):
    """`score` is the scale of x where x is itself computed: e^t is as uncertain, relatively, as t is absolutely."""
    t, p = _softmax(x)
    relative = 1 + np.abs(t) + score
    return p * (relative + _total(p * relative))


def softmax_pullback_scale(x, cotangent, score=0):
    """p (dp − Σ p dp): p is uncertain wherever it stands; `cotangent` is the scale of dp."""
    p, uncertain = _softmax(x)[1], softmax_scale(x, score)
    return uncertain * (cotangent + _total(p * cotangent)) + p * _total(uncertain * cotangent)


def log_softmax_scale(x, score=0):
    """t − log Σ e^t: a relative error of the sum is an absolute one of its logarithm, hence the 1."""
    t, p = _softmax(x)
    return np.abs(t) + score + np.log(_total(np.exp(t))) + 1 + _total(p * (np.abs(t) + score))


def layer_norm_scales(dy, x, weight, bias, unit):
    """Scales of y, dx, dγ, dβ.

    The rounding of the mean, up to D·u·mean|x|, counts as a number to be taken off again (`off` below), not as one that
    stays in x̂: this is stricter than what the usual x − mean keeps, where a row of equal numbers comes out as noise.
    """
    x, weight, bias, dy = (a.astype(np.float64) for a in (x, weight, bias, dy))
    c = x - _mean(x)
    off = x.shape[-1] * unit * _mean(np.abs(x))
    centred = np.abs(c) + _mean(np.abs(c)) + off
    inverse = 1 / np.sqrt(_mean(c * c) + 1e-12)
    inverse_relative = 1 + inverse**2 * _mean(np.abs(c) * centred)  # of 1/√(var + ε), through the variance
    hat = np.abs(c) * inverse
    hat_scale = centred * inverse + hat * inverse_relative
    g = np.abs(dy * weight)
    dx = g + _mean(g) + hat_scale * _mean(g * hat) + hat * _mean(g * hat_scale)
    leading = tuple(range(x.ndim - 1))
    return (
        np.abs(weight) * hat_scale + np.abs(bias),
        dx * inverse * inverse_relative,
        (np.abs(dy) * hat_scale).sum(axis=leading),
        np.abs(dy).sum(axis=leading),
    )


def _split(x):
    """(B, N, h·d) -> (B, h, N, d), sizes only."""
    return np.abs(x).astype(np.float64).reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)


def _joined(x):
    """(B, h, N, d) -> (B, N, h·d)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


# ---------------------------------------------------------------------------------------------------------------------
# One measurement per operation: yields quantity, computed, exact, scale, bound. `draw` makes the random cotangent.


def embedding(draw, dtype, ids, table):
    y, pullback = ops.embedding(ids, table)
    dy = draw(y)
    sizes = np.zeros(table.shape)
    np.add.at(sizes, ids, np.abs(dy).astype(np.float64))
    yield "y", y, oracles.embedding(ids, table), np.abs(table[ids]), 0
    yield "dtable", pullback(dy), oracles.embedding_pullback(dy, ids, table), sizes, np.bincount(ids.flat).max()


def linear(draw, dtype, x, weight, bias):
    y, pullback = ops.linear(x, weight, bias)
    dy = draw(y)
    dx, dweight, dbias = pullback(dy)
    exact = oracles.linear_pullback(dy, x, weight, bias)
    x_size, w_size, b_size, d_size = (np.abs(a).astype(np.float64) for a in (x, weight, bias, dy))
    yield "y", y, oracles.linear(x, weight, bias), x_size @ w_size.T + b_size, x.shape[-1] + 1
    yield "dx", dx, exact[0], d_size @ w_size, len(weight)
    yield "dW", dweight, exact[1], d_size.T @ x_size, len(x)
    yield "db", dbias, exact[2], d_size.sum(axis=0), len(x)


def layer_norm(draw, dtype, x, weight, bias):
    y, pullback = ops.layer_norm(x, weight, bias)
    dy = draw(y)
    scales = layer_norm_scales(dy, x, weight, bias, np.finfo(dtype).eps / 2)
    exact = oracles.layer_norm(x, weight, bias), *oracles.layer_norm_pullback(dy, x, weight, bias)
    bound = max(x.shape) + FEW
    bounds = bound, bound, bound, len(x)
    yield from zip(("y", "dx", "dγ", "dβ"), (y, *pullback(dy)), exact, scales, bounds, strict=True)


def gelu(draw, dtype, x):
    y, pullback = ops.gelu(x)
    dy = draw(y)
    size = np.abs(x).astype(np.float64)
    phi = np.exp(-(np.minimum(size, 1e3) ** 2) / 2) / np.sqrt(2 * np.pi)
    # In float64 Φ is as good, relatively, as its argument allows; the polynomial of float32 is right absolutely, so
    # that Φ counts as the 1 that it is in the upper tail. An argument off by u·x moves Φ by u·x·φ, and φ by u·x²·φ.
    cdf = to_float([MP.ncdf(MP.mpf(float(v))) for v in x.flat]).reshape(x.shape) if dtype == np.float64 else 1
    d_scale = np.abs(dy) * (cdf + np.where(phi > 0, size * phi * (2 + size**2), 0))
    yield "y", y, oracles.gelu(x), size * (cdf + size * phi), FUNCTION
    yield "dx", pullback(dy), oracles.gelu_pullback(dy, x), d_scale, FUNCTION


def gelu_tanh(draw, dtype, x):
    y, pullback = ops.gelu_tanh(x)
    dy = draw(y)
    # 1 + tanh and 1 − tanh² are right absolutely, as differences of numbers up to 1; beyond 40 they are 2 or 0, and 0.
    size = np.abs(x).astype(np.float64)
    z = np.minimum(size, 40)
    slope = np.sqrt(2 / np.pi) * z * (1 + 3 * 0.044715 * z**2)
    yield "y", y, oracles.gelu_tanh(x), size, FUNCTION
    yield "dx", pullback(dy), oracles.gelu_tanh_pullback(dy, x), np.abs(dy) * (1 + slope), FUNCTION


def relu(draw, dtype, x):
    y, pullback = ops.relu(x)
    dy = draw(y)
    yield "y", y, oracles.relu(x), np.abs(y), 0
    yield "dx", pullback(dy), oracles.relu_pullback(dy, x), np.abs(dy), 0


def tanh(draw, dtype, x):
    y, pullback = ops.tanh(x)
    dy = draw(y)
    size = np.abs(np.tanh(x.astype(np.float64)))
    yield "y", y, oracles.tanh(x), size, FUNCTION
    yield "dx", pullback(dy), oracles.tanh_pullback(dy, x), np.abs(dy) * (1 + 3 * size**2), FUNCTION


def clip(draw, dtype, x):
    y, pullback = ops.clip(x)
    dy = draw(y)
    yield "y", y, oracles.clip(x), np.abs(y), 0
    yield "dx", pullback(dy), oracles.clip_pullback(dy, x), np.abs(dy), 0


def scale(draw, dtype, x, weight, bias):
    y, pullback = ops.scale(x, weight[0])
    dy = draw(y)
    dx, dweight = pullback(dy)
    exact = oracles.scale_pullback(dy, x, weight[0])
    x_size, w_size, d_size = (np.abs(a).astype(np.float64) for a in (x, weight[0], dy))
    yield "y", y, oracles.scale(x, weight[0]), x_size * w_size, 1
    yield "dx", dx, exact[0], d_size * w_size, 1
    yield "dw", dweight, exact[1], (d_size * x_size).sum(axis=0), len(x) + 1


def firing_rate(draw, dtype, x):
    y, pullback = rate(x, Neuron(vth=VTH))
    dy = draw(y)
    yield "a", y, oracles.rate(x, VTH), np.clip(np.abs(x) / VTH, 0, 1), FEW
    yield "dI", pullback(dy), oracles.rate_pullback(dy, x, VTH), np.abs(dy) / VTH, FEW


def attention_scores(draw, dtype, query, key, mask):
    scores, pullback = ops.attention_scores(query, key, HEADS, mask)
    ds = draw(scores)
    exact = oracles.attention_scores_pullback(ds, query, key, HEADS)
    q, k, d = _split(query), _split(key), np.abs(ds).astype(np.float64)
    width = q.shape[-1]
    names, sums = ("dQ", "dK"), (d @ k, d.swapaxes(-1, -2) @ q)
    scale = q @ k.swapaxes(-1, -2) / np.sqrt(width) + np.abs(mask)
    yield "S", scores, oracles.attention_scores(query, key, HEADS, mask), scale, width + FEW
    for name, computed, e, s, terms in zip(names, pullback(ds), exact, sums, (k.shape[2], q.shape[2]), strict=True):
        yield name, computed, e, _joined(s) / np.sqrt(width), terms + FEW


def softmax(draw, dtype, x):
    p, pullback = ops.softmax(x)
    dp = draw(p)
    wide, bound = x.astype(np.float64), x.shape[-1] + FUNCTION
    yield "p", p, oracles.softmax(x), softmax_scale(wide), bound
    yield "dx", pullback(dp), oracles.softmax_pullback(dp, x), softmax_pullback_scale(wide, np.abs(dp)), bound


def mix(draw, dtype, weights, value):
    y, pullback = ops.mix(weights, value)
    dy = draw(y)
    dweights, dvalue = pullback(dy)
    exact = oracles.mix_pullback(dy, weights, value)
    w, v, d = np.abs(weights).astype(np.float64), _split(value), _split(dy)
    yield "Y", y, oracles.mix(weights, value), _joined(w @ v), w.shape[-1]
    yield "dP", dweights, exact[0], d @ v.swapaxes(-1, -2), v.shape[-1]
    yield "dV", dvalue, exact[1], _joined(w.swapaxes(-1, -2) @ d), w.shape[-2]


def attention(draw, dtype, query, key, value, mask):
    y, pullback = ops.attention(query, key, value, HEADS, mask)
    dy = draw(y)
    computed = y, *pullback(dy)
    exact = (
        oracles.attention(query, key, value, HEADS, mask),
        *oracles.attention_pullback(dy, query, key, value, HEADS, mask),
    )
    q, k, v, d = map(_split, (query, key, value, dy))
    root = np.sqrt(q.shape[-1])
    x = to_float(oracles.attention_scores(query, key, HEADS, mask))
    score = q @ k.swapaxes(-1, -2) / root + np.abs(mask)
    p = softmax_scale(x, score)
    dx = softmax_pullback_scale(x, d @ v.swapaxes(-1, -2), score)
    scales = p @ v, dx @ k / root, dx.swapaxes(-1, -2) @ q / root, p.swapaxes(-1, -2) @ d
    bound = max(q.shape[-1] + FEW, k.shape[2] + FUNCTION, q.shape[2] + FEW)
    for name, c, e, s in zip(("Y", "dQ", "dK", "dV"), computed, exact, scales, strict=True):
        yield name, c, e, _joined(s), bound


def mse(draw, dtype, prediction, target):
    loss, pullback = ops.mse(prediction, target)
    dloss = float(draw(loss))
    dprediction, dtarget = pullback(dloss)
    exact = oracles.mse_pullback(dloss, prediction, target)
    yield "L", loss, oracles.mse(prediction, target), to_float(oracles.mse(prediction, target)), prediction.size + FEW
    yield "dp", dprediction, exact[0], np.abs(to_float(exact[0])), FEW
    yield "dt", dtarget, exact[1], np.abs(to_float(exact[1])), FEW


def log_softmax(draw, dtype, x):
    scale = log_softmax_scale(x.astype(np.float64))
    yield "y", ops.log_softmax(x), oracles.log_softmax(x), scale, x.shape[-1] + FUNCTION


def cross_entropy(draw, dtype, logits, labels):
    loss, pullback = ops.cross_entropy(logits, labels)
    dloss = float(draw(loss))
    z, rows = logits.astype(np.float64), np.arange(len(labels))
    scale, bound = log_softmax_scale(z), max(logits.shape) + FUNCTION
    d_scale = _softmax(z)[1] * (1 + scale)
    d_scale[rows, labels] += 1
    exact = oracles.cross_entropy_pullback(dloss, logits, labels)
    yield "L", loss, oracles.cross_entropy(logits, labels), scale[rows, labels].mean(), bound
    yield "dz", pullback(dloss), exact, d_scale * abs(dloss) / len(labels), bound


def soft_cross_entropy(draw, dtype, student, teacher, temperature):
    loss, pullback = ops.soft_cross_entropy(student, teacher, temperature)
    dloss = float(draw(loss))
    s, t = student.astype(np.float64) / temperature, teacher.astype(np.float64) / temperature
    log_q = to_float(oracles.log_softmax(s))
    uncertain, log_scale = softmax_scale(t, np.abs(t)), log_softmax_scale(s, np.abs(s))
    weight = abs(dloss) / (s.size * temperature)
    scales = (
        (uncertain * np.abs(log_q) + _softmax(t)[1] * log_scale).mean(),
        (np.exp(log_q) * (1 + log_scale) + uncertain) * weight,
        softmax_pullback_scale(t, log_scale, np.abs(t)) * weight,
    )
    computed = loss, *pullback(dloss)
    exact = (
        oracles.soft_cross_entropy(student, teacher, temperature),
        *oracles.soft_cross_entropy_pullback(dloss, student, teacher, temperature),
    )
    # The loss is a mean over batch and classes, the cotangents are sums over classes.
    bounds = s.size + FEW, s.shape[-1] + FUNCTION, s.shape[-1] + FUNCTION
    yield from zip(("L", "dz_S", "dz_T"), computed, exact, scales, bounds, strict=True)


# ---------------------------------------------------------------------------------------------------------------------
# The inputs: arguments of the measurements above, after `dtype`, from a random generator, a kind and the dtype's eps.


def powers(rng, low, high, *shape):
    """Random signs, sizes spread evenly over the powers of ten."""
    return rng.choice([-1, 1], size=shape) * 10 ** rng.uniform(low, high, size=shape)


def near(rng, x, eps):
    """Within a few units in the last place of x."""
    return x * (1 + eps * rng.integers(-8, 9, size=np.shape(x)))


def embedding_inputs(rng, kind, eps):
    return rng.integers(5, size=(8, 10)), rng.normal(size=(7, 4))


def linear_inputs(rng, kind, eps):
    x, weight, bias = rng.normal(size=(8, 24)), rng.normal(size=(16, 24)), rng.normal(size=16)
    if kind == "cancelling":  # the second half of a sum takes off the first but for its last digits
        x[:, 12:], weight[:, 12:], bias = near(rng, -x[:, :12], eps), near(rng, weight[:, :12], eps), bias * eps
    elif kind == "1e−6 … 1e6":
        x, weight = powers(rng, -6, 6, 8, 24), powers(rng, -6, 6, 16, 24)
    return x, weight, bias


def layer_norm_inputs(rng, kind, eps):
    x, level = rng.normal(size=(10, 24)), np.repeat(powers(rng, -1, 3, 10, 1), 24, axis=1)
    if kind == "one entry of 1e3":
        x[:, 5] = 1e3
    elif kind == "mean 1e4, deviation 1":
        x += 1e4
    elif kind == "constant to 8 ulp":
        x = near(rng, level, eps)
    elif kind == "constant":
        x = level
    elif kind == "variance below ε":
        x *= powers(rng, -9, -7, 10, 1)
    return x, rng.normal(size=24), rng.normal(size=24)


def entrywise_inputs(rng, kind, eps):
    n = 240
    lowest = -37 if eps < 1e-10 else -13  # where x Φ(x) leaves the normal numbers
    edges = np.array([-2, -0.0, 0.0, 0.5, 1 - eps, 1, 1 + eps, 2, -eps, eps])
    x = {
        "normal": lambda: rng.normal(0, 2, size=n),
        "rates": lambda: rng.normal(0.5, 1, size=n),
        "with edges": lambda: np.concatenate([edges, rng.normal(0.5, 1, size=n)]),
        "lower tail": lambda: rng.uniform(lowest, -3, size=n),
        "zero of the slope": lambda: -0.7518 + 1e-3 * rng.normal(size=n),
        "saturated": lambda: rng.choice([-1, 1], size=n) * rng.uniform(5, 40, size=n),
        "1e−30 … 1e−4": lambda: powers(rng, -30, -4, n),
        "100 … 1e30": lambda: powers(rng, 2, 30, n),
    }[kind]()
    return (x,)


def score_inputs(rng, kind, eps, shape=(20, 12)):
    """Rows of scores or logits."""
    x = rng.normal(0, 3, size=shape)
    if kind.startswith("±1e4"):
        x += rng.choice([-1e4, 1e4], size=shape)
    elif kind.startswith("saturated"):
        x[..., 1] += rng.uniform(20, 60, size=shape[:-1])
    elif kind == "three −10000":
        x[..., -3:] += HIDDEN
    elif kind == "all −10000":
        x += HIDDEN
    return (x,)


def query_key_inputs(rng, kind, eps):
    query, key = rng.normal(size=(2, 5, 12)), rng.normal(size=(2, 6, 12))
    mask = np.zeros((2, HEADS, 5, 6))
    if kind == "±1e4":
        # Multiples of 50, nearly: many scores are about the same, so that not every weight is 0 or 1.
        query, key = (
            50.0 * rng.integers(-3, 4, size=query.shape),
            50.0 * rng.integers(-3, 4, size=key.shape) + key / 100,
        )
    elif kind == "three −10000":
        mask[..., 3:] = HIDDEN
    elif kind == "all −10000":
        mask[:] = HIDDEN
    return query, key, mask


def attention_inputs(rng, kind, eps):
    query, key, mask = query_key_inputs(rng, kind, eps)
    return query, key, rng.normal(size=key.shape), mask


def mix_inputs(rng, kind, eps):
    (x,) = score_inputs(rng, kind, eps, (2, HEADS, 5, 6))
    return (x if kind == "signed weights" else _softmax(x)[1]), rng.normal(size=(2, 6, 12))


def mse_inputs(rng, kind, eps):
    prediction, target = rng.normal(size=(2, 12, 20))
    return prediction, near(rng, prediction, eps) if kind == "nearly equal" else target


def cross_entropy_inputs(rng, kind, eps):
    (logits,) = score_inputs(rng, kind, eps, (30, 8))
    return logits, np.full(30, 1) if kind == "saturated, right" else rng.integers(2, 8, size=30)


def soft_cross_entropy_inputs(rng, kind, eps):
    (teacher,), (student,) = (score_inputs(rng, kind, eps, (20, 6)) for _ in range(2))
    if kind == "student = teacher to 8 ulp":
        student = near(rng, teacher, eps)
    return student, teacher, 1.7 if kind == "±1e4, τ = 1.7" else 1.0


ROWS = "normal", "±1e4", "saturated", "three −10000", "all −10000"
MASKS = "normal", "±1e4", "three −10000", "all −10000"
SIZES = "1e−30 … 1e−4", "100 … 1e30"
NORMS = "normal", "one entry of 1e3", "mean 1e4, deviation 1", "constant to 8 ulp", "constant", "variance below ε"

#: Operation -> how it is measured, what makes its inputs, and the kinds of them.
CASES: dict[str, tuple[Callable[..., Iterator], Callable[..., tuple], tuple[str, ...]]] = {
    "embedding": (embedding, embedding_inputs, ("repeated ids",)),
    "linear": (linear, linear_inputs, ("normal", "cancelling", "1e−6 … 1e6")),
    "layer_norm": (layer_norm, layer_norm_inputs, NORMS),
    "gelu": (gelu, entrywise_inputs, ("normal", "lower tail", "zero of the slope", *SIZES)),
    "gelu_tanh": (gelu_tanh, entrywise_inputs, ("normal", "lower tail", *SIZES)),
    "relu": (relu, entrywise_inputs, ("with edges", *SIZES)),
    "tanh": (tanh, entrywise_inputs, ("normal", "saturated", *SIZES)),
    "clip": (clip, entrywise_inputs, ("with edges", *SIZES)),
    "scale": (scale, linear_inputs, ("normal", "1e−6 … 1e6")),
    "rate": (firing_rate, entrywise_inputs, ("rates", *SIZES)),
    "attention_scores": (attention_scores, query_key_inputs, MASKS),
    "softmax": (softmax, score_inputs, ROWS),
    "mix": (mix, mix_inputs, ("normal", "saturated", "signed weights")),
    "attention": (attention, attention_inputs, MASKS),
    "mse": (mse, mse_inputs, ("normal", "nearly equal")),
    "log_softmax": (log_softmax, score_inputs, ROWS),
    "cross_entropy": (cross_entropy, cross_entropy_inputs, ("normal", "±1e4", "saturated, right", "saturated, wrong")),
    "soft_cross_entropy": (
        soft_cross_entropy,
        soft_cross_entropy_inputs,
        ("normal", "±1e4, τ = 1.7", "saturated", "student = teacher to 8 ulp"),
    ),
}


@cache
def measure(op: str, condition: str, dtype: type) -> list[Measured]:
    """All quantities of one operation for one kind of input: seeds are fixed, so the answer is the same every time."""
    rng = np.random.default_rng(list(f"{op} {condition}".encode()))

    def draw(y):
        return np.asarray(rng.normal(size=np.shape(y))).astype(dtype)

    run, make, _ = CASES[op]
    args = make(rng, condition, float(np.finfo(dtype).eps))
    args = (a.astype(dtype) if getattr(a, "dtype", None) == np.float64 else a for a in args)  # ids and τ stay
    # What overflows or is not a number in the operation shall be seen, not hidden; underflow is what masks live by.
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        return [_compare(*row, dtype) for row in run(draw, dtype, *args)]


def cases() -> Iterator[tuple[str, str]]:
    for op, (_, _, conditions) in CASES.items():
        for condition in conditions:
            yield op, condition


# ---------------------------------------------------------------------------------------------------------------------
# The table


def shown(ulp: float, dtype: type) -> str:
    """Two digits at most are of interest; from 1/eps on, the error is larger than the entry: "all" digits are wrong."""
    if ulp == 0:
        return "0"
    if ulp >= 1 / np.finfo(dtype).eps:
        return "all"
    if ulp < 9.95:
        return f"{max(ulp, 0.1):.1f}"
    return f"{ulp:.0f}" if ulp < 9999.5 else f"{ulp:.0e}".replace("e+0", "e").replace("e+", "e")


def table() -> Iterator[tuple[str, ...]]:
    """Rows of strings: operation, result, inputs; both errors in float64, then in float32; bound."""
    for op, condition in cases():
        for both in zip(*(measure(op, condition, dtype) for dtype in DTYPES), strict=True):
            errors = (shown(u, d) for m, d in zip(both, DTYPES, strict=True) for u in (m.ulp, m.of_scale))
            yield op, both[0].quantity, condition, *errors, str(both[0].bound)


def markdown() -> str:
    made = f"NumPy {np.__version__}, SciPy {scipy.__version__}, {platform.system()} on {platform.machine()}.\n"
    head = "operation", "result", "inputs", "float64: ulp", "of scale", "float32: ulp", "of scale", "bound"
    rule = "---", "---", "---", "--:", "--:", "--:", "--:", "--:"
    return "\n".join([made, *("| " + " | ".join(row) + " |" for row in (head, rule, *table()))])


def main() -> None:
    parser = argparse.ArgumentParser(description="errors of all operations in units in the last place")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    made = markdown()
    if not parser.parse_args().write:
        print(made)
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
