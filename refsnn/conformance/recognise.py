"""Naming the likely mistake: known mistakes are made on purpose, and their answers compared with the backend's.

`mistakes.neurons` does this for neurons. Here are the operations' mistakes, each a wrong operation in the
form of `refsnn.conformance.reference.OPS`; the networks', each the right network on other settings or inputs, or a
network that is wired otherwise; and those of simulations, losses and the optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import ops
from ..errors import InputError
from ..model.batch import Batch, attention_mask
from ..model.network import INPUT, Network, Population
from ..model.neurons import Neuron, fire, rate
from ..model.parameters import Params
from ..model.projections import Attention, Drive
from ..model.student import network_from
from ..ops import Array
from ..ops.rounding import PRECISIONS
from . import reference
from .cases import VANISHING, Arrays, Case, call, eight_bits, parts
from .mistakes.neurons import recognise_neuron

__all__ = [
    "ADJOINT_MISTAKES",
    "NETWORK_MISTAKES",
    "OP_MISTAKES",
    "SIMULATION_MISTAKES",
    "UPDATE_MISTAKES",
    "WIRING_MISTAKES",
    "recognise",
]

#: How near the answer must be to a mistake's, relative to the largest entry, to be taken for it ...
NEAR = 1e-3
#: ... and how many times nearer to it than to the right answer.
NEARER = 100.0
#: The same of spikes, by the fraction that differs: a tie that rounding decides changes others after it.
NEAR_SPIKES, NEARER_SPIKES = 1e-2, 10.0
#: So many timesteps are compared: mistakes show early, and long simulations take long.
STEPS = 16

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
        if c["frozen_row"] is not None:
            dtable[c["frozen_row"]] = 0
        return dtable

    return y, pullback


def _outside_the_root(a: Arrays, c: Mapping[str, Any]) -> Array:
    """Give the ε inside the root that gives the same values: (s + ε)² − s²."""
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


def _settings(**changes: Any) -> Callable[[Case], Case]:
    return lambda case: replace(case, settings={**case.settings, "config": {**case.settings["config"], **changes}})


def _inputs(change: Callable[[str, Array], Array]) -> Callable[[Case], Case]:
    return lambda case: replace(case, inputs={name: change(name, value) for name, value in case.inputs.items()})


def _masks(change: Callable[[Array], Array]) -> Callable[[Case], Case]:
    return _inputs(lambda name, value: change(value) if name in ("mask", "batch/attention_mask") else value)


def _without_residual(case: Case) -> Case:
    normed = str(case.settings.get("population")).endswith("output")  # of the attention, or of the encoder
    return _inputs(lambda name, value: 0 * value if normed and name == "read/1" else value)(case)


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
    ("padding is not masked", _masks(np.ones_like)),
    ("tokens are masked and padding is not", _masks(lambda mask: 1 - mask)),
    ("padded keys are given +10000", _masks(lambda mask: 2 - mask)),
    ("attention scores are not divided by √d", _unscaled),
    ("feedback is left out", _inputs(lambda n, v: 0 * v if "feedback." in n else v)),
    ("token types are left out", _inputs(lambda n, v: 0 * v if "token_type_embeddings" in n else v)),
    ("token types are taken to be 0", _inputs(lambda n, v: 0 * v if n == "batch/token_type_ids" else v)),
    ("positions are left out", _inputs(lambda n, v: 0 * v if "position_embeddings" in n else v)),
    ("positions count from 1", _inputs(lambda n, v: np.roll(v, -1, axis=0) if "position_embeddings" in n else v)),
    ("the residual is missing", _without_residual),
    ("the temperature is left out", lambda case: replace(case, settings={**case.settings, "temperature": 1.0})),
    (
        "simulated values are ignored",
        lambda case: replace(case, inputs={k: v for k, v in case.inputs.items() if not k.startswith("simulated/")}),
    ),
    (
        "gradients pass where a simulated rate is 0: the ReLU is missing, or sees other values",
        _inputs(lambda n, v: np.maximum(v, 1e-300) if n.startswith("simulated/") else v),
    ),
    ("the rule is inst", lambda case: replace(case, settings={**case.settings, "rule": "inst"})),
    ("the rule is running", lambda case: replace(case, settings={**case.settings, "rule": "running"})),
]


def _each(kind: str, change: Callable[[Population, Network], Population]) -> Callable[[Network], Network]:
    """Change every population of a kind."""
    return lambda network: replace(
        network,
        populations=tuple(change(p, network) if p.name.rpartition(".")[2] == kind else p for p in network.populations),
    )


def _reads_input(place: int) -> Callable[[Population, Network], Population]:
    """Let a population of an encoder read the encoder's input at this place."""

    def change(population: Population, network: Network) -> Population:
        reads = list(population.reads)
        reads[place] = network[population.name.rpartition(".")[0] + ".key"].reads[0]
        return replace(population, reads=tuple(reads))

    return change


@dataclass(frozen=True)
class _CutQuery(Attention):
    """Attention whose query has a rate; of its values alone, without a pullback."""

    vth: float = 1.0

    def scores(self, params, reads, mask):
        query, _ = ops.linear(reads[0], params[f"{self.query}.weight"], params[f"{self.query}.bias"])
        return ops.attention_scores(rate(query, Neuron(self.vth))[0], reads[1], self.heads, mask)


def _cut_query(population: Population, network: Network) -> Population:
    attention, neuron = population.projection, population.neuron
    assert isinstance(attention, Attention) and neuron is not None
    return replace(population, projection=_CutQuery(attention.query, attention.heads, neuron.vth))


@dataclass(frozen=True)
class _Returned(Drive):
    """Feedback that passes only a share of its cotangent back."""

    share: float = 0.0

    def __call__(self, params, reads, mask):
        y, pullback = super().__call__(params, reads, mask)

        def shared(dy: Array):
            (dx, *da), dparams = pullback(dy)
            return (dx, *(self.share * d for d in da)), dparams

        return y, shared


def _returned(share: float) -> Callable[[Population, Network], Population]:
    def change(population: Population, network: Network) -> Population:
        assert isinstance(population.projection, Drive)
        return replace(population, projection=_Returned(population.projection.feedback, share))

    return change


#: (sentence, how the network is changed), of currents, rates and spikes.
WIRING_MISTAKES: list[tuple[str, Callable[[Network], Network]]] = [
    ("the query is cut to [0, 1], as if it had neurons", _each("context", _cut_query)),
    ("the intermediate population reads the encoder's input", _each("intermediate", _reads_input(0))),
    ("the residual of the encoder's output is the encoder's input", _each("output", _reads_input(1))),
]
#: (sentence, how the network is changed, options of the solver), of gradients.
ADJOINT_MISTAKES: list[tuple[str, Callable[[Network], Network], dict[str, Any]]] = [
    ("what is fed back is detached", _each("embeddings", _returned(0.0)), {}),
    ("one step of the iteration stands in for the solution", lambda network: network, {"method": "one-step"}),
    # Solving w = ½·Uᵀ S (g + w) is solving (2I − Uᵀ S) w = Uᵀ S g.
    ("(2I − Jᵀ) is solved instead of (I − Jᵀ)", _each("embeddings", _returned(0.5)), {}),
]


#: What is read at step t of a population that has fired so far, from step 0 on, as this list says.
Seen = Callable[[list[Array], int], Array]


def _last_first(network: Network) -> Network:
    first, *others = network.populations
    return replace(network, populations=(*others, first))


def _means(trains: list[Array], t: int) -> Array:
    return np.sum(trains, axis=0) / t


#: (sentence, what is read, how the network is changed).
SIMULATION_MISTAKES: list[tuple[str, Seen, Callable[[Network], Network]]] = [
    ("every population reads the spikes of the step before", lambda train, t: train[t - 1], lambda network: network),
    ("the embeddings fire last", lambda train, t: train[-1], _last_first),
    (
        "what is fed back comes two steps late",
        lambda train, t: train[-1 if len(train) > t else max(t - 2, 0)],
        lambda network: network,
    ),
    ("running means of the spikes are fed to the map", _means, lambda network: network),
    *((sentence, lambda train, t: train[-1], change) for sentence, change in WIRING_MISTAKES),
]


def _simulated(case: Case, seen: Seen, change: Callable[[Network], Network]) -> dict[str, Array]:
    """Simulate by the rule inst, step by step."""
    network = change(network_from(case.settings["config"])[0])
    params, batch = parts(case.inputs, "param"), Batch(**parts(case.inputs, "batch"))
    x, _ = network.drive(params, batch)
    mask = attention_mask(batch, x.dtype)
    trains = {p.name: [np.zeros((*x.shape[:-1], p.width))] for p in network.populations}
    charge: Params = {}
    for t in range(1, case.settings["t_conv"] + 1):
        for p in network.populations:
            assert p.neuron is not None
            reads = tuple(x if read == INPUT else seen(trains[read], t) for read in p.reads)
            current, _ = p.projection(params, reads, mask)
            (spikes,), charge[p.name] = fire(current[None], p.neuron, charge.get(p.name))
            trains[p.name].append(spikes)
    return {name: np.stack(train[1:]) for name, train in trains.items()}


def _score_mistakes(case: Case) -> Iterator[tuple[str, Arrays]]:
    """Give wrong attention scores of a rate map."""
    batch = parts(case.inputs, "batch")
    rates = reference.rate_map(case.settings["config"], parts(case.inputs, "param"), batch, "float64")
    raw = {name: value for name, value in rates.items() if name.startswith("scores/")}
    mask = attention_mask(Batch(**batch), np.dtype(float))
    yield "scores are taken after the softmax", {name: ops.softmax(value)[0] for name, value in raw.items()}
    yield "the mask is left out of the scores", {name: value - mask for name, value in raw.items()}


def _loss_mistakes(case: Case) -> Iterator[tuple[str, Arrays]]:
    """Give wrong losses and logits; their gradients are not needed to know them."""
    config, params, inputs = case.settings["config"], parts(case.inputs, "param"), case.inputs
    rates = reference.rate_map(config, params, parts(inputs, "batch"), "float64")
    values = rates | parts(inputs, "simulated")
    last = [values[name] for name in network_from(config)[0].readouts]
    if "logits" in inputs:
        weight, bias = params["classifier.weight"], params["classifier.bias"]
        yield "positions are averaged instead of taking [CLS]", {"logits": last[-1].mean(axis=1) @ weight.T + bias}
        yield "tanh stands in for ReLU", {"logits": np.tanh(last[-1][:, 0]) @ weight.T + bias}
        return
    off = [
        (read @ params["fit.weight"].T + params["fit.bias"] - target) ** 2
        for read, target in zip(last, parts(inputs, "hidden").values(), strict=True)
    ]
    pairs = [(rates[f"scores/{e}"], target) for e, target in enumerate(parts(inputs, "scores").values())]
    tokens = inputs["batch/attention_mask"] == 1
    yield "padding is left out of the hidden loss", {"hidden": np.sum([d[tokens].mean() for d in off])}
    kept = np.sum([((score - target) ** 2).mean() for score, target in pairs])
    yield "masked scores are kept in the attention loss", {"attention": kept}
    seen = np.sum([((score - target)[target > -100] ** 2).mean() for score, target in pairs])
    yield "the attention loss is averaged over what is not masked", {"attention": seen}
    yield "losses are averaged over layers", {"hidden": np.mean([d.mean() for d in off])}


#: (sentence, what is changed of the step).
UPDATE_MISTAKES: list[tuple[str, dict[str, bool]]] = [
    ("moments are corrected for bias, as after the first step", {"corrected": True}),
    ("one norm of all gradients together is clipped", {"together": True}),
    ("gradients are not clipped", {"clips": False}),
    ("biases and LayerNorm weights decay too", {"everything": True}),
    ("the decay is added to the gradient", {"coupled": True}),
    ("ε is inside the root", {"inside": True}),
]


def _updated(
    case: Case,
    clips: bool = True,
    together: bool = False,
    everything: bool = False,
    coupled: bool = False,
    corrected: bool = False,
    inside: bool = False,
) -> Arrays:
    """Give a step of BertAdam, changed."""
    s, a = case.settings["optimiser"], case.inputs
    gradients = parts(a, "gradient")
    norms = {name: float(np.linalg.norm(g)) for name, g in gradients.items()}
    whole = math.hypot(*norms.values())
    found: Arrays = {}
    for name, g in gradients.items():
        norm = whole if together else norms[name]
        if clips and norm > s["max_norm"]:
            g = g * (s["max_norm"] / (norm + 1e-6))
        decay = s["weight_decay"] * (everything or not name.endswith(("bias", "LayerNorm.weight"))) * a[f"param/{name}"]
        g = g + decay if coupled else g
        m = s["beta1"] * a[f"m/{name}"] + (1 - s["beta1"]) * g
        v = s["beta2"] * a[f"v/{name}"] + (1 - s["beta2"]) * g * g
        first, second = (m / (1 - s["beta1"]), v / (1 - s["beta2"])) if corrected else (m, v)
        root = np.sqrt(second + s["eps"]) if inside else np.sqrt(second) + s["eps"]
        step = first / root + (0 if coupled else decay)
        found |= {f"param/{name}": a[f"param/{name}"] - s["lr"] * step, f"m/{name}": m, f"v/{name}": v}
    return found


def _asr_mistakes(case: Case) -> Iterator[tuple[str, Any]]:
    spikes, leak = case.inputs["spikes"], case.settings["leak"]
    t = len(spikes)
    yield "divided by T + 1", spikes.sum(axis=0) / (t + 1)
    yield "divided by T − 1", spikes.sum(axis=0) / (t - 1)
    yield "the first step is left out of the average", spikes[1:].mean(axis=0)
    yield "the plain mean is taken, not the leak-weighted one", spikes.mean(axis=0)
    yield "weights are in reverse: λ^(t−1)", reference.asr(spikes[::-1], leak, "float64")
    yield (
        "weights λ^(T−t) are not divided by their sum but by T",
        (np.tensordot(leak ** np.arange(t - 1, -1, -1.0), spikes, axes=(0, 0)) / t),
    )


def _mistaken(case: Case) -> Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]:
    """Give known mistakes and, each when it is called, its answer to a case."""
    inputs = case.inputs
    match case.function:
        case "asr":
            for sentence, value in _asr_mistakes(case):
                yield sentence, partial(dict, asr=value)
        case "op" | "pullback":
            for sentence, wrong in OP_MISTAKES.get(case.settings["op"], ()):
                yield sentence, partial(call, _mistaken_op(case.settings["op"], wrong), case, inputs, "float64")
        case "current" | "rate_map" | "simulate" | "gradients":
            for sentence, change in NETWORK_MISTAKES:
                changed = change(case)
                yield sentence, partial(call, reference, changed, changed.inputs, "float64")
            if case.function == "simulate":
                for sentence, seen, rewired in SIMULATION_MISTAKES:
                    yield sentence, partial(_simulated, case, seen, rewired)
            elif case.function == "gradients":
                for sentence, losses in _loss_mistakes(case):
                    yield sentence, partial(dict, losses)
                for sentence, rewired, solve in ADJOINT_MISTAKES:
                    yield sentence, partial(call, reference.Reference(rewired, solve), case, inputs, "float64")
            else:
                for sentence, rewired in WIRING_MISTAKES:
                    yield sentence, partial(call, reference.Reference(rewired), case, inputs, "float64")
                for sentence, found in _score_mistakes(case) if case.function == "rate_map" else ():
                    yield sentence, partial(dict, found)
        case "update":
            for sentence, changes in UPDATE_MISTAKES:
                yield sentence, partial(_updated, case, **changes)


def _mistaken_op(name: str, wrong: Op) -> Any:
    """Make an adapter of one wrong operation."""

    def pullback(_, arrays, constants, cotangent, dtype):
        found = wrong(arrays, constants)[1](cotangent)
        return dict(zip(reference.OPS[name][1], found if isinstance(found, tuple) else (found,), strict=False))

    return SimpleNamespace(op=lambda _, arrays, constants, dtype: wrong(arrays, constants)[0], pullback=pullback)


def _distance(one: Mapping[str, Any], other: Mapping[str, Any], names: list[str]) -> float:
    """Give the largest difference, relative to each quantity's largest entry; infinite where shapes differ."""
    sizes = {name: float(np.abs(other[name]).max(initial=0)) for name in names}
    floor = VANISHING * max((size for name, size in sizes.items() if name.startswith("gradient/")), default=0.0)
    worst = 0.0
    for name in names:
        a, b = np.asarray(one[name], np.float64), np.asarray(other[name], np.float64)
        if a.shape != b.shape or not np.isfinite(a).all():
            return np.inf
        scale = max(sizes[name], floor if name.startswith("gradient/") else 0.0) or 1.0
        worst = max(worst, float(np.abs(a - b).max(initial=0)) / scale)
    return worst


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], names: list[str]) -> float:
    """Give the fraction of spikes that differ."""
    pairs = [(np.asarray(one[name]), np.asarray(other[name])) for name in names]
    if any(a.shape != b.shape for a, b in pairs):
        return np.inf
    return sum(np.count_nonzero(a != b) for a, b in pairs) / sum(a.size for a, _ in pairs)


def recognise(
    case: Case, answer: Mapping[str, Any], expected: Mapping[str, Array], dtype: str | None = None
) -> str | None:
    """Name the mistake that a wrong answer shows.

    Parameters
    ----------
    case : Case
    answer : mapping
        The backend's.
    expected : mapping
        The right one.
    dtype : str, optional
        The precision that the backend claims. Without it, numbers of less are recognised in float64 arrays alone.

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
        spikes = case.function == "simulate"
        if spikes:
            settings = {**case.settings, "t_conv": min(case.settings["t_conv"], STEPS)}
            case = replace(case, settings=settings)
            answer, expected = ({name: np.asarray(d[name])[:STEPS] for name in names} for d in (answer, expected))
        distance, near, nearer = (_differing, NEAR_SPIKES, NEARER_SPIKES) if spikes else (_distance, NEAR, NEARER)
        right = distance(answer, expected, names)
        if not names or not np.isfinite(right):
            return None
        for sentence, answered in _mistaken(case):
            try:
                wrong = answered()
            except (InputError, KeyError):
                continue  # made like this, it has no equilibrium, say
            known = [name for name in names if name in wrong]
            off = distance(answer, wrong, known)
            if off <= near and off * nearer < distance(answer, expected, known):
                return sentence
        if spikes:
            return None
        return _lower_precision(answer, expected, names, right, dtype) or _factor(answer, expected, names)
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return None  # an answer so malformed that no mistake can be recognised in it


def _flat(values: Mapping[str, Any], names: list[str]) -> Array:
    """Put all entries of some quantities end to end."""
    return np.concatenate([np.ravel(np.asarray(values[name], float)) for name in names])


#: Precision -> its nearest numbers to others.
_HELD: dict[str, Callable[[Array], Array]] = {
    "bfloat16": eight_bits,
    "float16": lambda x: x.astype(np.float16).astype(float),
    "float32": lambda x: x.astype(np.float32).astype(float),
}


def _lower_precision(
    answer: Mapping[str, Any], expected: Mapping[str, Array], names: list[str], right: float, dtype: str | None
) -> str | None:
    """Recognise numbers of a lower precision than is claimed, about as far off as it explains."""
    if dtype is None and all(np.asarray(answer[name]).dtype == np.float64 for name in names):
        dtype = "float64"
    found, wanted = _flat(answer, names), _flat(expected, names)
    for name, held in _HELD.items():
        if dtype is None or PRECISIONS[name].unit <= PRECISIONS[dtype].unit or right > 256 * PRECISIONS[name].unit:
            continue
        with np.errstate(over="ignore"):
            if np.array_equal(held(found), found) and not np.array_equal(held(wanted), wanted):
                return f"numbers are rounded to {name}"
    return None


def _factor(answer: Mapping[str, Any], expected: Mapping[str, Array], names: list[str]) -> str | None:
    """Recognise an answer that is a multiple of the right one throughout, losses and gradients apart."""
    names = [name for name in names if name != "logits"]
    found, right = _flat(answer, names), _flat(expected, names)
    k = float(found @ right) / float(right @ right)
    if abs(k - 1) > NEAR and np.abs(found - k * right).max() <= NEAR * abs(k) * np.abs(right).max():
        return f"everything is multiplied by {k:.6g}"
    return None
