"""Known mistakes of networks: the right network on other settings or inputs, or one that is wired otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ... import ops
from ...model.batch import Batch, attention_mask
from ...model.network import INPUT, Network, Population, encoder_of
from ...model.neurons import Neuron, fire, rate
from ...model.parameters import Params
from ...model.projections import Attention, Drive
from ...model.student import StudentConfig
from ...ops import Array
from ...readings.adjoint import AdjointMethod
from .. import reference
from ..cases import Arrays, Case, parts

__all__ = [
    "ADJOINT_MISTAKES",
    "NETWORK_MISTAKES",
    "SIMULATION_MISTAKES",
    "WIRING_MISTAKES",
    "changed_inputs",
    "changed_settings",
    "exchanged",
]


def changed_settings(**changes: Any) -> Callable[[Case], Case]:
    """Make a function that gives a case other numbers in its configuration.

    Parameters
    ----------
    **changes : object

    Returns
    -------
    change : callable
    """
    return lambda case: replace(case, settings={**case.settings, "config": {**case.settings["config"], **changes}})


def _without(setting: str) -> Callable[[Case], Case]:
    def change(case: Case) -> Case:
        config = {name: value for name, value in case.settings["config"].items() if name != setting}
        return replace(case, settings={**case.settings, "config": config})

    return change


def changed_inputs(change: Callable[[str, Array], Array]) -> Callable[[Case], Case]:
    """Make a function that gives a case other arrays.

    Parameters
    ----------
    change : callable
        From the name and value of each to its new value.

    Returns
    -------
    change : callable
    """
    return lambda case: replace(case, inputs={name: change(name, value) for name, value in case.inputs.items()})


def _masks(change: Callable[[Array], Array]) -> Callable[[Case], Case]:
    return changed_inputs(lambda name, value: change(value) if name in ("mask", "batch/attention_mask") else value)


def _without_residual(case: Case) -> Case:
    normed = str(case.settings.get("population")).endswith("output")  # of the attention, or of the encoder
    return changed_inputs(lambda name, value: 0 * value if normed and name == "read/1" else value)(case)


def exchanged(case: Case) -> Case:
    """Exchange the parameters of keys and values.

    Parameters
    ----------
    case : Case

    Returns
    -------
    case : Case
    """

    def other(name: str) -> str:
        return name.replace(".key.", ".?.").replace(".value.", ".key.").replace(".?.", ".value.")

    return replace(case, inputs={other(name): value for name, value in case.inputs.items()})


def _unscaled(case: Case) -> Case:
    config = case.settings["config"]
    factor = math.sqrt(config["hidden_size"] // config["num_attention_heads"])
    return changed_inputs(lambda name, value: factor * value if ".query." in name else value)(case)


#: (sentence, the case on which the right network gives the mistaken one's answer).
NETWORK_MISTAKES: list[tuple[str, Callable[[Case], Case]]] = [
    ("ε of LayerNorm is 1e-5", changed_settings(layer_norm_eps=1e-5)),
    ("V_th is taken to be 1", changed_settings(vth=1.0)),
    ("the neurons do not leak", changed_settings(leak=1.0)),
    ("the initial charge is left out", changed_settings(u0=0.0)),
    ("keys and values are exchanged", exchanged),
    ("padding is not masked", _masks(np.ones_like)),
    ("tokens are masked and padding is not", _masks(lambda mask: 1 - mask)),
    ("padded keys are given +10000", _masks(lambda mask: 2 - mask)),
    ("attention scores are not divided by √d", _unscaled),
    ("feedback is left out", changed_inputs(lambda n, v: 0 * v if "feedback." in n else v)),
    ("token types are left out", changed_inputs(lambda n, v: 0 * v if "token_type_embeddings" in n else v)),
    ("token types are taken to be 0", changed_inputs(lambda n, v: 0 * v if n == "batch/token_type_ids" else v)),
    ("positions are left out", changed_inputs(lambda n, v: 0 * v if "position_embeddings" in n else v)),
    (
        "positions count from 1",
        changed_inputs(lambda n, v: np.roll(v, -1, axis=0) if "position_embeddings" in n else v),
    ),
    ("the residual is missing", _without_residual),
    ("the temperature is left out", lambda case: replace(case, settings={**case.settings, "temperature": 1.0})),
    (
        "simulated values are ignored",
        lambda case: replace(case, inputs={k: v for k, v in case.inputs.items() if not k.startswith("simulated/")}),
    ),
    (
        "gradients pass where a simulated rate is 0: the ReLU is missing, or sees other values",
        changed_inputs(lambda n, v: np.maximum(v, 1e-300) if n.startswith("simulated/") else v),
    ),
    ("the polarity is ignored: spikes are unsigned", _without("polarity")),
    (
        "the synapses of the residuals are left out",
        changed_inputs(lambda n, v: np.ones_like(v) if n.endswith("residual.weight") else v),
    ),
    (
        "neurons' own thresholds are left out",
        changed_inputs(lambda n, v: np.ones_like(v) if n.endswith(".threshold") else v),
    ),
    (
        "currents are multiplied by neurons' own thresholds, not divided",
        changed_inputs(lambda n, v: 1 / v if n.endswith(".threshold") else v),
    ),
    ("the rule is inst", lambda case: replace(case, settings={**case.settings, "rule": "inst"})),
    ("the rule is running", lambda case: replace(case, settings={**case.settings, "rule": "running"})),
]


def _each(kind: str, change: Callable[[Population, Network], Population]) -> Callable[[Network], Network]:
    """Change every population of a kind."""
    return lambda network: replace(
        network,
        populations=tuple(change(p, network) if p.kind == kind else p for p in network.populations),
    )


def _reads_input(place: int) -> Callable[[Population, Network], Population]:
    """Let a population of an encoder read the encoder's input at this place."""

    def change(population: Population, network: Network) -> Population:
        reads = list(population.reads)
        reads[place] = network[f"encoder.{encoder_of(population.name)}.key"].reads[0]
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
    return replace(
        population, projection=_CutQuery(attention.query, attention.heads, attention.threshold, vth=neuron.vth)
    )


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

#: (sentence, how the network is changed, method of the solver), of gradients.
ADJOINT_MISTAKES: list[tuple[str, Callable[[Network], Network], AdjointMethod]] = [
    ("what is fed back is detached", _each("embeddings", _returned(0.0)), "gmres"),
    ("one step of the iteration stands in for the solution", lambda network: network, "one-step"),
    # Solving w = ½·Uᵀ S (g + w) is solving (2I − Uᵀ S) w = Uᵀ S g.
    ("(2I − Jᵀ) is solved instead of (I − Jᵀ)", _each("embeddings", _returned(0.5)), "gmres"),
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


def simulated(case: Case, seen: Seen, change: Callable[[Network], Network]) -> dict[str, Array]:
    """Simulate by the rule inst, step by step."""
    network = change(StudentConfig.from_dict(case.settings["config"]).network)
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


def score_mistakes(case: Case) -> Iterator[tuple[str, Arrays]]:
    """Return wrong attention scores of a rate map."""
    batch = parts(case.inputs, "batch")
    rates = reference.rate_map(case.settings["config"], parts(case.inputs, "param"), batch, "float64")
    raw = {name: value for name, value in rates.items() if name.startswith("scores/")}
    mask = attention_mask(Batch(**batch), np.dtype(float))
    yield "scores are taken after the softmax", {name: ops.softmax(value)[0] for name, value in raw.items()}
    yield "the mask is left out of the scores", {name: value - mask for name, value in raw.items()}
