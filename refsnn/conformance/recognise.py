"""Naming the likely mistake: known mistakes are made on purpose, and their answers compared with the backend's.

`refsnn.conformance.mistakes` does this for neurons. Here are the operations' mistakes, each a wrong operation in the
form of `refsnn.conformance.reference.OPS`, and the networks', each the right network on other settings or inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import ops
from ..neurons import Neuron, rate
from ..ops import Array
from . import reference
from .cases import Arrays, Case, call
from .mistakes import recognise_neuron

__all__ = ["NETWORK_MISTAKES", "OP_MISTAKES", "recognise"]

#: How near the answer must be to a mistake's, relative to the largest entry, to be taken for it ...
NEAR = 1e-3
#: ... and how many times nearer to it than to the right answer.
NEARER = 100.0

Op = Callable[[Arrays, Mapping[str, Any]], tuple[Any, Callable[[Any], Any]]]


def _right(name: str) -> Op:
    return reference.OPS[name][0]


def _with(name: str, **changes: Callable[[Arrays, Mapping[str, Any]], Any]) -> Op:
    """Give the right operation on changed arrays or constants."""

    def wrong(a: Arrays, c: Mapping[str, Any]):
        new = {key: change(a, c) for key, change in changes.items()}
        return _right(name)({**a, **new}, {**c, **new})

    return wrong


def _times(name: str, factor: Callable[[Arrays, Mapping[str, Any]], float]) -> Op:
    """Give the right operation times a number."""

    def wrong(a: Arrays, c: Mapping[str, Any]):
        y, pullback = _right(name)(a, c)
        k = factor(a, c)
        return k * y, lambda dy: pullback(k * dy)

    return wrong


def _scaled_argument(name: str, argument: str, factor: Callable[[Arrays, Mapping[str, Any]], float]) -> Op:
    """Give the right operation of an argument times a number."""

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


def _last_wins(a: Arrays, c: Mapping[str, Any]):
    y, _ = _right("embedding")(a, c)

    def pullback(dy: Array) -> Array:
        dtable = np.zeros_like(a["table"])
        dtable[a["ids"]] = dy
        return dtable

    return y, pullback


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
    "linear": [("the bias is missing", _with("linear", bias=lambda a, c: np.zeros_like(a["bias"])))],
    "layer_norm": [
        ("ε is 1e-5", _with("layer_norm", eps=lambda a, c: 1e-5)),
        ("ε is 1e-6", _with("layer_norm", eps=lambda a, c: 1e-6)),
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
    "relu": [("ReLU's derivative at 0 is 1", _elementwise(lambda x: np.maximum(x, 0), lambda x: (x >= 0) * 1.0))],
    "rate": [
        ("V_th is missing in the rate map", lambda a, c: rate(a["current"], Neuron())),
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
        (
            "the softmax runs over queries, not keys",
            lambda a, c: (np.swapaxes(ops.softmax(np.swapaxes(a["x"], -1, -2))[0], -1, -2), lambda dy: dy),
        )
    ],
    "mse": [
        ("squares are summed, not averaged", _times("mse", lambda a, c: a["target"].size)),
        ("it is half the mean", _times("mse", lambda a, c: 0.5)),
        ("rows are summed, then averaged", _times("mse", lambda a, c: a["target"].shape[-1])),
    ],
    "cross_entropy": [("the batch is summed", _times("cross_entropy", lambda a, c: len(a["logits"])))],
    "soft_cross_entropy": [
        ("classes are summed, not averaged", _times("soft_cross_entropy", lambda a, c: a["student"].shape[1])),
        ("it is multiplied by τ²", _times("soft_cross_entropy", lambda a, c: c["temperature"] ** 2)),
        ("everything is summed", _times("soft_cross_entropy", lambda a, c: a["student"].size)),
        ("the temperature is left out", _with("soft_cross_entropy", temperature=lambda a, c: 1.0)),
    ],
    "asr": [],
}
for _name in ("attention_scores", "attention"):
    OP_MISTAKES[_name] = [
        *((sentence, _with(_name, **changes)) for sentence, changes in (_UNMASKED, _SIGN)),
        *((sentence, _scaled_argument(_name, "query", factor)) for sentence, factor in _SCALES),
    ]


def _settings(**changes: Any) -> Callable[[Case], Case]:
    return lambda case: replace(case, settings={**case.settings, "config": {**case.settings["config"], **changes}})


def _inputs(change: Callable[[str, Array], Array]) -> Callable[[Case], Case]:
    return lambda case: replace(case, inputs={name: change(name, value) for name, value in case.inputs.items()})


def _exchanged(case: Case) -> Case:
    def other(name: str) -> str:
        return name.replace(".key.", ".?.").replace(".value.", ".key.").replace(".?.", ".value.")

    return replace(case, inputs={other(name): value for name, value in case.inputs.items()})


def _unscaled(case: Case) -> Case:
    config = case.settings["config"]
    factor = math.sqrt(config["hidden_size"] // config["num_attention_heads"])
    return _inputs(lambda name, value: factor * value if ".query." in name else value)(case)


#: (sentence, the case on which the right network gives the mistaken one's answer).
NETWORK_MISTAKES: list[tuple[str, Callable[[Case], Case]]] = [
    ("ε of LayerNorm is 1e-5", _settings(layer_norm_eps=1e-5)),
    ("V_th is taken to be 1", _settings(vth=1.0)),
    ("the neurons do not leak", _settings(leak=1.0)),
    ("the initial charge is left out", _settings(u0=0.0)),
    ("keys and values are exchanged", _exchanged),
    ("padding is not masked", _inputs(lambda n, v: np.ones_like(v) if n in ("mask", "batch/attention_mask") else v)),
    ("attention scores are not divided by √d", _unscaled),
    ("feedback is left out", _inputs(lambda n, v: 0 * v if "feedback." in n else v)),
    ("token types are left out", _inputs(lambda n, v: 0 * v if "token_type_embeddings" in n else v)),
    ("positions are left out", _inputs(lambda n, v: 0 * v if "position_embeddings" in n else v)),
    ("the temperature is left out", lambda case: replace(case, settings={**case.settings, "temperature": 1.0})),
]


def _asr_mistakes(case: Case) -> Iterator[tuple[str, Any]]:
    spikes, leak = case.inputs["spikes"], case.settings["leak"]
    t = len(spikes)
    yield "divided by T + 1", spikes.sum(axis=0) / (t + 1)
    yield "divided by T − 1", spikes.sum(axis=0) / (t - 1)
    yield "the plain mean is taken, not the leak-weighted one", spikes.mean(axis=0)
    yield "weights are in reverse: λ^(t−1)", reference.asr(spikes[::-1], leak, "float64")
    yield (
        "weights λ^(T−t) are not divided by their sum but by T",
        (np.tensordot(leak ** np.arange(t - 1, -1, -1.0), spikes, axes=(0, 0)) / t),
    )


def _mistaken(case: Case) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give answers of known mistakes to a case, one after the other."""
    match case.function:
        case "asr":
            yield from ((sentence, {"asr": value}) for sentence, value in _asr_mistakes(case))
        case "op" | "pullback":
            name = case.settings["op"]
            for sentence, wrong in OP_MISTAKES.get(name, ()):
                yield sentence, call(_mistaken_op(name, wrong), case, case.inputs, "float64")
        case "current" | "rate_map" | "gradients":
            for sentence, change in NETWORK_MISTAKES:
                changed = change(case)
                yield sentence, call(reference, changed, changed.inputs, "float64")


def _mistaken_op(name: str, wrong: Op) -> Any:
    """Make an adapter of one wrong operation."""

    def pullback(_, arrays, constants, cotangent, dtype):
        found = wrong(arrays, constants)[1](cotangent)
        return dict(zip(reference.OPS[name][1], found if isinstance(found, tuple) else (found,), strict=False))

    return SimpleNamespace(op=lambda _, arrays, constants, dtype: wrong(arrays, constants)[0], pullback=pullback)


def _distance(one: Mapping[str, Any], other: Mapping[str, Any], names: list[str]) -> float:
    worst = 0.0
    for name in names:
        a, b = np.asarray(one[name], np.float64), np.asarray(other[name], np.float64)
        if a.shape != b.shape or not np.isfinite(a).all():
            return np.inf
        worst = max(worst, float(np.abs(a - b).max(initial=0)) / (float(np.abs(b).max(initial=0)) or 1.0))
    return worst


def recognise(case: Case, answer: Mapping[str, Any], expected: Mapping[str, Array]) -> str | None:
    """Name the mistake that a wrong answer shows.

    Parameters
    ----------
    case : Case
    answer : mapping
        The backend's.
    expected : mapping
        The right one.

    Returns
    -------
    sentence : str or None
        Reads after "this is what a backend answers where". None if no known mistake gives this answer.
    """
    try:
        if case.function == "neurons":
            found = recognise_neuron(case.inputs["current"], answer["spikes"], case.settings["neuron"])
            return found and f"the neuron {found}"
        names = [name for name in expected if name in answer and name != "padding row"]
        right = _distance(answer, expected, names)
        if not names or case.function == "simulate":
            return None
        for sentence, wrong in _mistaken(case):
            off = _distance(answer, {name: wrong[name] for name in names}, names)
            if off <= NEAR and off * NEARER <= right:
                return sentence
        return _factor(answer, expected, names)
    except (ValueError, TypeError, KeyError, FloatingPointError):
        return None  # an answer so malformed that no mistake can be recognised in it


def _factor(answer: Mapping[str, Any], expected: Mapping[str, Array], names: list[str]) -> str | None:
    """Recognise an answer that is a multiple of the right one throughout, losses and gradients apart."""
    flat = [
        np.concatenate([np.ravel(np.asarray(d[n], float)) for n in names if n != "logits"]) for d in (answer, expected)
    ]
    found, right = flat
    k = float(found @ right) / float(right @ right)
    if abs(k - 1) > NEAR and np.abs(found - k * right).max() <= NEAR * abs(k) * np.abs(right).max():
        return f"everything is multiplied by {k:.6g}"
    return None
