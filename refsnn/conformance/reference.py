"""The adapter of refsnn itself: the reference passes its own suite, and is where expected values come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import ops
from .._version import __version__
from ..equilibrium import equilibrium, scores
from ..network import Batch, attention_mask
from ..neurons import Neuron, fire, rate
from ..neurons import asr as average
from ..ops import Array
from ..optim import BertAdam
from ..records import network_from, record
from ..student import internal_gradients, prediction_gradients

__all__ = [
    "OPS",
    "asr",
    "current",
    "dtypes",
    "gradients",
    "name",
    "neurons",
    "op",
    "pullback",
    "rate_map",
    "simulate",
    "update",
]

name = f"refsnn {__version__}"
dtypes = ("float64", "float32")

#: Every operation of the contract: ``(arrays, constants) -> (y, pullback)``, and the arrays that it differentiates.
OPS: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = MappingProxyType(
    {
        "embedding": (lambda a, c: ops.embedding(a["ids"], a["table"], c["frozen_row"]), ("table",)),
        "linear": (lambda a, c: ops.linear(a["x"], a["weight"], a["bias"]), ("x", "weight", "bias")),
        "layer_norm": (
            lambda a, c: ops.layer_norm(a["x"], a["weight"], a["bias"], c["eps"]),
            ("x", "weight", "bias"),
        ),
        "gelu": (lambda a, c: ops.gelu(a["x"]), ("x",)),
        "relu": (lambda a, c: ops.relu(a["x"]), ("x",)),
        "tanh": (lambda a, c: ops.tanh(a["x"]), ("x",)),
        "rate": (lambda a, c: rate(a["current"], Neuron(c["vth"])), ("current",)),
        "attention_scores": (
            lambda a, c: ops.attention_scores(a["query"], a["key"], c["heads"], a["mask"]),
            ("query", "key"),
        ),
        "softmax": (lambda a, c: ops.softmax(a["x"]), ("x",)),
        "attention": (
            lambda a, c: ops.attention(a["query"], a["key"], a["value"], c["heads"], a["mask"]),
            ("query", "key", "value"),
        ),
        "mse": (lambda a, c: ops.mse(a["prediction"], a["target"]), ("prediction", "target")),
        "cross_entropy": (lambda a, c: ops.cross_entropy(a["logits"], a["labels"]), ("logits",)),
        "soft_cross_entropy": (
            lambda a, c: ops.soft_cross_entropy(a["student"], a["teacher"], c["temperature"]),
            ("student", "teacher"),
        ),
    }
)


def neurons(current, neuron, dtype):
    """Spikes of integrate-and-fire neurons."""
    return fire(current, Neuron(**neuron))[0]


def asr(spikes, leak, dtype):
    """Average spiking rate."""
    return average(spikes, leak)


def op(name, arrays, constants, dtype):
    """Operation by name."""
    return OPS[name][0](arrays, constants)[0]


def pullback(name, arrays, constants, cotangent, dtype):
    """Cotangents of an operation's real arrays."""
    function, differentiated = OPS[name]
    _, pull = function(arrays, constants)
    result = pull(cotangent)
    return dict(zip(differentiated, result if isinstance(result, tuple) else (result,), strict=True))


def _mask(mask: Array, dtype: np.dtype) -> Array:
    return attention_mask(Batch(mask, mask, mask), dtype)


def current(config, params, population, reads, mask, dtype):
    """Input current of one population."""
    network, _ = network_from(config)
    return network[population].projection(params, tuple(reads), _mask(mask, reads[0].dtype))[0]


#: Tolerances of the fixed-point search and of the adjoint solve: what they leave is less than rounding's share.
SEARCH = {"float64": 3e-15, "float32": 1e-6}
SOLVE = {"float64": 3e-15, "float32": 1e-6}


def rate_map(config, params, batch, dtype):
    """Equilibrium rates and attention scores."""
    network, _ = network_from(config)
    batch = Batch(**batch)
    rates = equilibrium(network, params, batch, tolerance=SEARCH[dtype]).rates
    observed, _ = scores(network, params, rates, batch)
    found = {population.name: rates[population.name] for population in network.populations}
    return found | {f"scores/{e}": score for e, score in enumerate(observed)}


def simulate(config, params, batch, t_conv, rule, dtype):
    """Spikes of every population."""
    network, _ = network_from(config)
    return record(network, params, Batch(**batch), t_conv, rule)


def solved(config, params, batch, targets, simulated, dtype):
    """Loss and gradients of a distillation step and, with feedback, what the solvers did."""
    network, _ = network_from(config)
    batch = Batch(**batch)
    limits: dict[str, Any] = {"search": {"tolerance": SEARCH[dtype]}, "solve": {"tolerance": SOLVE[dtype]}}
    found: dict[str, Any] = {}
    if "hidden" in targets:
        losses, gradient, statistics = internal_gradients(
            network, params, batch, targets["hidden"], targets["scores"], simulated=simulated, **limits
        )
        found |= losses
    else:

        def loss(z: Array):
            found["logits"] = z
            value, pull = ops.soft_cross_entropy(z, targets["logits"], targets["temperature"])
            return value, lambda dvalue: pull(dvalue)[0]

        losses, gradient, statistics = prediction_gradients(network, params, batch, loss, simulated=simulated, **limits)
    found["loss"] = np.sum(list(losses.values()))
    return found | {f"gradient/{name}": value for name, value in gradient.items()}, statistics


def gradients(config, params, batch, targets, simulated, dtype):
    """Loss and gradients of a distillation step."""
    return solved(config, params, batch, targets, simulated, dtype)[0]


def update(params, gradients, moments, settings, dtype):
    """One step of BertAdam."""
    settings = dict(settings)
    lr = settings.pop("lr")
    params = {name: value.copy() for name, value in params.items()}
    state = {f"{moment}/{name}": value.copy() for moment in "mv" for name, value in moments[moment].items()}
    BertAdam(**settings).step(params, gradients, state, lr)
    return {f"param/{name}": value for name, value in params.items()} | state
