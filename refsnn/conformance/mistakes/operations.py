"""Known mistakes of single operations, each a wrong operation in the form of `refsnn.conformance.reference.OPS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ... import ops
from ...model.neurons import Neuron, rate
from ...ops import Array
from ...ops.rounding import cut
from .. import reference
from ..cases import Arrays

__all__ = [
    "OP_MISTAKES",
]

Op = Callable[[Arrays, Mapping[str, Any]], tuple[Any, Callable[[Any], Any]]]


def _right(name: str) -> Op:
    return reference.OPS[name][0]


def _with(name: str, **changes: Callable[[Arrays, Mapping[str, Any]], Any]) -> Op:
    """Apply the right operation to changed arrays or constants."""

    def wrong(a: Arrays, c: Mapping[str, Any]):
        new = {key: change(a, c) for key, change in changes.items()}
        return _right(name)({**a, **new}, {**c, **new})

    return wrong


def _times(name: str, factor: Callable[[Arrays, Mapping[str, Any]], float]) -> Op:
    """Return the right operation times a number."""

    def wrong(a: Arrays, c: Mapping[str, Any]):
        y, pullback = _right(name)(a, c)
        k = factor(a, c)
        return k * y, lambda dy: pullback(k * dy)

    return wrong


def _scaled_argument(name: str, argument: str, factor: Callable[[Arrays, Mapping[str, Any]], float]) -> Op:
    """Return the right operation of an argument times a number."""

    def wrong(a: Arrays, c: Mapping[str, Any]):
        k = factor(a, c)
        y, pullback = _right(name)({**a, argument: k * a[argument]}, c)
        index = reference.OPS[name][1].index(argument)
        return y, lambda dy: tuple(k * d if i == index else d for i, d in enumerate(pullback(dy)))

    return wrong


def _elementwise(value: Callable[[Array], Array], slope: Callable[[Array], Array], argument: str = "x") -> Op:
    return lambda a, c: (value(a[argument]), lambda dy: dy * slope(a[argument]))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _tanh_gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _tanh_gelu_slope(x: Array) -> Array:
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


#: What is said of products whose inputs are rounded, by the unit round-off.
SHORT = {
    2.0**-11: "TF32 was used: what enters matrix products is rounded to 11 bits",
    2.0**-8: "what enters matrix products is rounded to bfloat16",
}


def _truncated(x: Array, unit: float) -> Array:
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.trunc(mantissa / unit) * unit, exponent)


def _entering(unit: float, rounded: Callable[[Array, float], Array]) -> Op:
    return _with("linear", **{name: lambda a, c, name=name: rounded(a[name], unit) for name in ("x", "weight")})


def _last_wins(a: Arrays, c: Mapping[str, Any]):
    y, _ = _right("embedding")(a, c)

    def pullback(dy: Array) -> Array:
        dtable = np.zeros_like(a["table"])
        dtable[a["ids"]] = dy
        if c["frozen_row"] is not None:
            dtable[c["frozen_row"]] = 0
        return dtable

    return y, pullback


def _outside_the_root(a: Arrays, c: Mapping[str, Any]) -> Array:
    """Return the ε inside the root that gives the same values: (s + ε)² − s²."""
    return c["eps"] * (2 * a["x"].std(axis=-1, keepdims=True) + c["eps"])


def _over_queries(x: Array):
    y, pullback = ops.softmax(np.swapaxes(x, -1, -2))
    return np.swapaxes(y, -1, -2), lambda dy: np.swapaxes(pullback(np.swapaxes(dy, -1, -2)), -1, -2)


def _masked_afterwards(a: Arrays, c: Mapping[str, Any]):
    seen = a["mask"] == 0

    def weights(x: Array):
        y, pullback = ops.softmax(x - a["mask"])
        return y * seen, lambda dy: pullback(dy * seen)

    return _attention(weights)(a, c)


def _attention(softmax: Callable[[Array], tuple[Array, Callable[[Array], Array]]]) -> Op:
    def wrong(a: Arrays, c: Mapping[str, Any]):
        raw, scores_pullback = ops.attention_scores(a["query"], a["key"], c["heads"], a["mask"])
        weights, softmax_pullback = softmax(raw)
        y, mix_pullback = ops.mix(weights, a["value"])

        def pullback(dy: Array):
            dweights, dvalue = mix_pullback(dy)
            return *scores_pullback(softmax_pullback(dweights)), dvalue

        return y, pullback

    return wrong


def _viewed(x: Array, heads: int) -> Array:
    """Put (…, N, D) in the order in which its numbers are, if they are taken for (…, h, N, d) without transposing."""
    split = x.reshape(*x.shape[:-2], heads, x.shape[-2], x.shape[-1] // heads)
    return np.swapaxes(split, -3, -2).reshape(x.shape)


def _unviewed(x: Array, heads: int) -> Array:
    return ops.split_heads(x, heads).reshape(x.shape)


def _split_by_view(name: str) -> Op:
    def wrong(a: Arrays, c: Mapping[str, Any]):
        heads = c["heads"]
        y, pullback = _right(name)({k: v if k == "mask" else _viewed(v, heads) for k, v in a.items()}, c)
        return y, lambda dy: tuple(_unviewed(d, heads) for d in pullback(dy))

    return wrong


def _merged_by_view(a: Arrays, c: Mapping[str, Any]):
    y, pullback = _right("attention")(a, c)
    return _unviewed(y, c["heads"]), lambda dy: pullback(_viewed(dy, c["heads"]))


def _softmax_twice(a: Arrays, c: Mapping[str, Any]):
    p, softmax_pullback = ops.softmax(a["logits"])
    loss, pullback = ops.cross_entropy(p, a["labels"])
    return loss, lambda dloss: softmax_pullback(pullback(dloss))


def _later(a: Arrays, first: int) -> Array:
    """Mask of padding and of the keys that lie `first` positions and more behind the query's."""
    queries, keys = a["query"].shape[-2], a["key"].shape[-2]
    return np.minimum(a["mask"], np.triu(np.full((queries, keys), ops.MASKED), k=first + keys - queries))


def _from_the_first(a: Arrays, c: Mapping[str, Any]) -> Array:
    return np.minimum(a["mask"], np.triu(np.full((a["query"].shape[-2], a["key"].shape[-2]), ops.MASKED), k=1))


def _per_head(a: Arrays, c: Mapping[str, Any]) -> float:
    return math.sqrt(a["query"].shape[-1] // c["heads"])


_UNMASKED = ("ignores the mask", {"mask": lambda a, c: np.zeros_like(a["mask"])})

_SIGN = ("adds +10000 to padded keys", {"mask": lambda a, c: -a["mask"]})

_SCALES: list[tuple[str, Callable[[Arrays, Mapping[str, Any]], float]]] = [
    ("scores are not divided by √d", _per_head),
    ("scores are divided by √D of all heads together", lambda a, c: 1 / math.sqrt(c["heads"])),
    ("scores are divided by d, not by √d", lambda a, c: 1 / _per_head(a, c)),
]

#: Operation -> (sentence, wrong operation).
OP_MISTAKES: dict[str, list[tuple[str, Op]]] = {
    "embedding": [
        ("the padding row gets a gradient", _with("embedding", frozen_row=lambda a, c: None)),
        ("gradients of repeated ids overwrite each other", _last_wins),
    ],
    "linear": [
        ("the bias is missing", _with("linear", bias=lambda a, c: np.zeros_like(a["bias"]))),
        *((SHORT[unit], _entering(unit, cut)) for unit in SHORT),
        *((SHORT[unit], _entering(unit, _truncated)) for unit in SHORT),
    ],
    "layer_norm": [
        ("ε is 1e-5", _with("layer_norm", eps=lambda a, c: 1e-5)),
        ("ε is 1e-6", _with("layer_norm", eps=lambda a, c: 1e-6)),
        ("ε is added outside the root", _with("layer_norm", eps=_outside_the_root)),
        (
            "the variance is the unbiased one, over D − 1",
            _scaled_argument("layer_norm", "weight", lambda a, c: math.sqrt(1 - 1 / a["x"].shape[-1])),
        ),
    ],
    "gelu": [
        ("GELU is the tanh approximation", _elementwise(_tanh_gelu, _tanh_gelu_slope)),
        (
            "GELU is x·sigmoid(1.702x)",
            _elementwise(
                lambda x: x * _sigmoid(1.702 * x),
                lambda x: _sigmoid(1.702 * x) * (1 + 1.702 * x * (1 - _sigmoid(1.702 * x))),
            ),
        ),
        ("ReLU stands in for GELU", _elementwise(lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0)),
    ],
    "gelu_tanh": [("GELU is the exact form", lambda a, c: ops.gelu(a["x"]))],
    "relu": [("ReLU's derivative at 0 is 1", _elementwise(lambda x: np.maximum(x, 0), lambda x: (x >= 0) * 1.0))],
    "rate": [
        ("V_th is missing in the rate map", lambda a, c: rate(a["current"], Neuron())),
        ("rates are cut at 0, not at −1", lambda a, c: rate(a["current"], Neuron(c["vth"]))),
        (
            "the derivative of the clip is 1 outside as well",
            lambda a, c: (rate(a["current"], Neuron(c["vth"]))[0], lambda dy: dy / c["vth"]),
        ),
        (
            "V_th is missing in the derivative",
            lambda a, c: (
                rate(a["current"], Neuron(c["vth"]))[0],
                lambda dy: c["vth"] * rate(a["current"], Neuron(c["vth"]))[1](dy),
            ),
        ),
    ],
    "softmax": [
        ("the softmax runs over queries, not keys", lambda a, c: _over_queries(a["x"])),
    ],
    "mse": [
        ("squares are summed, not averaged", _times("mse", lambda a, c: a["target"].size)),
        ("it is half the mean", _times("mse", lambda a, c: 0.5)),
        ("rows are summed, then averaged", _times("mse", lambda a, c: a["target"].shape[-1])),
    ],
    "cross_entropy": [
        ("the batch is summed", _times("cross_entropy", lambda a, c: len(a["logits"]))),
        ("a softmax is applied before the cross-entropy, which applies one itself", _softmax_twice),
    ],
    "soft_cross_entropy": [
        ("classes are summed, not averaged", _times("soft_cross_entropy", lambda a, c: a["student"].shape[1])),
        ("it is multiplied by τ²", _times("soft_cross_entropy", lambda a, c: c["temperature"] ** 2)),
        ("everything is summed", _times("soft_cross_entropy", lambda a, c: a["student"].size)),
        ("the temperature is left out", _with("soft_cross_entropy", temperature=lambda a, c: 1.0)),
    ],
}
OP_MISTAKES["causal_attention"] = [
    ("a query sees later keys", _right("attention")),
    ("a query does not see its own key", _with("attention", mask=lambda a, c: _later(a, 0))),
    ("a query sees the next key", _with("attention", mask=lambda a, c: _later(a, 2))),
    ("positions of queries count from the first key", _with("attention", mask=_from_the_first)),
]
for _name in ("attention_scores", "attention"):
    OP_MISTAKES[_name] = [
        *((sentence, _with(_name, **changes)) for sentence, changes in (_UNMASKED, _SIGN)),
        *((sentence, _scaled_argument(_name, "query", factor)) for sentence, factor in _SCALES),
        ("heads are split without transposing", _split_by_view(_name)),
    ]
OP_MISTAKES["attention"] += [
    ("the softmax runs over queries, not keys", _attention(_over_queries)),
    ("weights are masked after the softmax", _masked_afterwards),
    ("heads are merged without transposing", _merged_by_view),
]
