"""The adapter of refsnn itself: the reference passes its own suite, and is where expected values come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import ops
from .._version import __version__
from ..distillation.language import next_token_logits
from ..distillation.optim import BertAdam, linear_warmup
from ..distillation.student import Direct, Scheme, internal_direct, prediction_direct, through
from ..errors import NotConverged
from ..model.batch import Batch, attention_mask
from ..model.gpt import FINAL, described
from ..model.network import Network
from ..model.neurons import Neuron, fire, rate
from ..model.neurons import asr as average
from ..ops import Array
from ..readings.adjoint import AdjointMethod, Solve
from ..readings.equilibrium import Search, equilibrium
from ..readings.rate_map import scores, sweep
from ..storage.records import record

__all__ = [
    "OPS",
    "Reference",
    "asr",
    "current",
    "dtypes",
    "gradients",
    "linearised",
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
        "gelu_tanh": (lambda a, c: ops.gelu_tanh(a["x"]), ("x",)),
        "relu": (lambda a, c: ops.relu(a["x"]), ("x",)),
        "tanh": (lambda a, c: ops.tanh(a["x"]), ("x",)),
        "rate": (
            lambda a, c: rate(a["current"], Neuron(c["vth"], polarity=c.get("polarity", "unsigned"))),
            ("current",),
        ),
        "attention_scores": (
            lambda a, c: ops.attention_scores(a["query"], a["key"], c["heads"], a["mask"]),
            ("query", "key"),
        ),
        "softmax": (lambda a, c: ops.softmax(a["x"]), ("x",)),
        "attention": (
            lambda a, c: ops.attention(a["query"], a["key"], a["value"], c["heads"], a["mask"]),
            ("query", "key", "value"),
        ),
        "causal_attention": (
            lambda a, c: ops.attention(
                a["query"],
                a["key"],
                a["value"],
                c["heads"],
                np.minimum(a["mask"], ops.causal_mask(a["query"].shape[-2], a["key"].shape[-2], a["mask"].dtype)),
            ),
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


#: Tolerances of the fixed-point search and of the adjoint solve: what they leave is less than rounding's share.
SEARCH = {"float64": 3e-15, "float32": 1e-6}
SOLVE = {"float64": 3e-15, "float32": 1e-6}


#: How much more is left where rounding keeps a network moving by that much for ever.
UNREST = 10


def _settled(found: Callable[[Search], Any], dtype: str) -> Any:
    """Return what a search finds, as near to the equilibrium as rounding lets it come."""
    try:
        return found(Search(tolerance=SEARCH[dtype]))
    except NotConverged:
        return found(Search(tolerance=UNREST * SEARCH[dtype]))


@dataclass(frozen=True)
class Reference:
    """The adapter; with changes, that of a mistaken network.

    Attributes
    ----------
    change : callable
        What is done to every network before it is read.
    method : str
        Of the adjoint solve.
    """

    change: Callable[[Network], Network] = lambda network: network
    method: AdjointMethod = "gmres"

    def network(self, config) -> Network:
        """Return the network that a configuration describes."""
        return self.change(described(config).network)

    def neurons(self, current, neuron, dtype):
        """Spikes of integrate-and-fire neurons."""
        return fire(current, Neuron(**neuron))[0]

    def asr(self, spikes, leak, dtype):
        """Average spiking rate."""
        return average(spikes, leak)

    def op(self, name, arrays, constants, dtype):
        """Operation by name."""
        return OPS[name][0](arrays, constants)[0]

    def pullback(self, name, arrays, constants, cotangent, dtype):
        """Cotangents of an operation's real arrays."""
        function, differentiated = OPS[name]
        _, pull = function(arrays, constants)
        result = pull(cotangent)
        return dict(zip(differentiated, result if isinstance(result, tuple) else (result,), strict=True))

    def current(self, config, params, population, reads, mask, dtype):
        """Input current of one population."""
        network = self.network(config)
        return network[population].projection(
            params, tuple(reads), attention_mask(Batch(mask, mask, mask), reads[0].dtype)
        )[0]

    def rate_map(self, config, params, batch, dtype):
        """Equilibrium rates and attention scores."""
        network = self.network(config)
        batch = Batch(**batch)
        rates = _settled(lambda search: equilibrium(network, params, batch, search).rates, dtype)
        observed, _ = scores(network, params, rates, batch)
        found = {population.name: rates[population.name] for population in network.populations}
        return found | {f"scores/{e}": score for e, score in enumerate(observed)}

    def simulate(self, config, params, batch, t_conv, rule, dtype):
        """Spikes of every population."""
        network = self.network(config)
        return record(network, params, Batch(**batch), t_conv, rule)

    def solved(self, config, params, batch, targets, simulated, dtype):
        """Loss, gradients and cotangents of a distillation step and, with feedback, what the solvers did."""
        return _settled(partial(self._solved, config, params, batch, targets, simulated, dtype), dtype)

    def _solved(self, config, params, batch, targets, simulated, dtype, search):
        found, direct = self._directly(config, params, batch, targets, simulated, dtype, search)
        gradient, cotangents, statistics = through(direct, Solve(self.method, SOLVE[dtype]))
        found |= {f"gradient/{name}": value for name, value in gradient.items()}
        return found | {f"cotangent/{name}": value for name, value in cotangents.items()}, statistics

    def linearised(self, config, params, batch, targets, simulated, dtype) -> Direct:
        """How the losses of a distillation step depend on the rates themselves, and the rates on each other."""
        return _settled(partial(self._directly, config, params, batch, targets, simulated, dtype), dtype)[1]

    def _directly(self, config, params, batch, targets, simulated, dtype, search) -> tuple[dict[str, Any], Direct]:
        network = self.network(config)
        batch = Batch(**batch)
        scheme = Scheme(search=search)
        found: dict[str, Any] = {}
        if "labels" in targets:
            found["logits"], direct = _next_tokens(network, params, batch, targets["labels"])
        elif "hidden" in targets:
            direct = internal_direct(network, params, batch, targets["hidden"], targets["scores"], simulated, scheme)
            found |= direct.losses
        else:

            def loss(z: Array):
                found["logits"] = z
                value, pull = ops.soft_cross_entropy(z, targets["logits"], targets["temperature"])
                return value, lambda dvalue: pull(dvalue)[0]

            direct = prediction_direct(network, params, batch, loss, simulated, scheme)
        found["loss"] = np.sum(list(direct.losses.values()))
        return found, direct

    def gradients(self, config, params, batch, targets, simulated, dtype):
        """Loss, gradients and cotangents of a distillation step."""
        return self.solved(config, params, batch, targets, simulated, dtype)[0]

    def update(self, params, gradients, moments, settings, dtype):
        """One step of BertAdam."""
        settings = dict(settings)
        lr = settings.pop("lr")
        if "steps" in settings:
            done = settings.pop("step") / settings.pop("steps")
            lr *= linear_warmup(done, settings.pop("warmup"))
        params = {name: value.copy() for name, value in params.items()}
        state = {f"{moment}/{name}": value.copy() for moment in "mv" for name, value in moments[moment].items()}
        BertAdam(**settings).step(params, gradients, state, lr)
        return {f"param/{name}": value for name, value in params.items()} | state


def _next_tokens(network: Network, params: Mapping[str, Array], batch: Batch, labels: Array) -> tuple[Array, Direct]:
    """Logits of a spiking GPT, and how the cross-entropy of the next tokens depends on its last rates."""
    rates, linearisation = sweep(network, params, batch)
    logits, logits_pullback = next_token_logits(params, rates[FINAL])
    asked = labels >= 0
    loss, loss_pullback = ops.cross_entropy(logits[asked], labels[asked])
    dlogits = np.zeros_like(logits)
    dlogits[asked] = loss_pullback(1.0)
    dfinal, gradients = logits_pullback(dlogits)
    return logits, Direct({"next": loss}, {FINAL: dfinal}, gradients, rates, linearisation, {})


REFERENCE = Reference()
neurons, asr, op = REFERENCE.neurons, REFERENCE.asr, REFERENCE.op
pullback, current = REFERENCE.pullback, REFERENCE.current
rate_map, simulate, solved = REFERENCE.rate_map, REFERENCE.simulate, REFERENCE.solved
gradients, linearised, update = REFERENCE.gradients, REFERENCE.linearised, REFERENCE.update
