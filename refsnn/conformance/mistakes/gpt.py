"""Known mistakes of spiking GPTs: the right network on other settings or inputs, or one that is wired otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ...model.network import Network, Population
from ...model.projections import Add, Attention, Gelu, Linear, Norm
from ..cases import Case
from .networks import changed_inputs, changed_settings, exchanged

__all__ = ["GPT_MISTAKES", "GPT_WIRING_MISTAKES"]

#: (sentence, the case on which the right network gives the mistaken one's answer).
GPT_MISTAKES: list[tuple[str, Callable[[Case], Case]]] = [
    ("ε of LayerNorm is 1e-5", changed_settings(layer_norm_epsilon=1e-5)),
    ("V_th is taken to be 1", changed_settings(vth=1.0)),
    ("the neurons do not leak", changed_settings(leak=1.0)),
    ("the initial charge is left out", changed_settings(u0=0.0)),
    ("the polarity is ignored: spikes are unsigned", changed_settings(polarity="unsigned")),
    ("keys and values are exchanged", exchanged),
    ("padding is not masked", changed_inputs(lambda n, v: np.ones_like(v) if n.endswith("mask") else v)),
    ("positions are left out", changed_inputs(lambda n, v: 0 * v if "wpe." in n else v)),
    ("positions count from 1", changed_inputs(lambda n, v: np.roll(v, -1, axis=0) if "wpe." in n else v)),
    (
        "neurons' own thresholds are left out",
        changed_inputs(lambda n, v: np.ones_like(v) if n.endswith(".threshold") else v),
    ),
    (
        "the scale of the read-out is left out",
        changed_inputs(lambda n, v: np.full_like(v, n.endswith("weight")) if "readout." in n else v),
    ),
    ("the rule is inst", lambda case: replace(case, settings={**case.settings, "rule": "inst"})),
    ("the rule is running", lambda case: replace(case, settings={**case.settings, "rule": "running"})),
]


def _every(kind: type, change: Callable[[Population], Population]) -> Callable[[Network], Network]:
    """Change every population whose projection is of a kind."""
    return lambda network: replace(
        network,
        populations=tuple(change(p) if isinstance(p.projection, kind) else p for p in network.populations),
    )


def _with(kind: Any, **changes: Any) -> Callable[[Network], Network]:
    """Change the constants of every projection of a kind."""

    def change(population: Population) -> Population:
        projection: Any = population.projection
        return replace(population, projection=replace(projection, **changes))

    return _every(kind, change)


def _spiking(network: Network) -> Network:
    neuron = network.populations[-1].neuron
    return _every(Add, lambda p: replace(p, neuron=neuron))(network)


def _without_stream(population: Population) -> Population:
    assert isinstance(population.projection, Add)
    return replace(population, projection=Linear(population.projection.dense), reads=population.reads[:1])


#: (sentence, how the network is changed).
GPT_WIRING_MISTAKES: list[tuple[str, Callable[[Network], Network]]] = [
    ("a position sees later ones", _with(Attention, causal=False)),
    ("GELU is the exact form, not GPT-2's", _with(Gelu, tanh=False)),
    ("ε of LayerNorm is 1e-12", _with(Norm, eps=1e-12)),
    ("the residual stream is made of neurons", _spiking),
    ("the residual stream is left out: half-blocks do not add to it", _every(Add, _without_stream)),
]
