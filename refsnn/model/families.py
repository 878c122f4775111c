"""The families of networks: SpikingBERT's student, and BERT as the same populations of analogue units."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..errors import InputError, shown
from .network import INPUT, Network, Population
from .neurons import Neuron
from .projections import AddNorm, Attention, Drive, Embeddings, Gelu, Linear, Projection
from .shapes import BertConfig

__all__ = [
    "bert",
    "spiking_bert",
]


def _transformer(
    config: BertConfig,
    neuron: Neuron | None,
    feedback: bool = False,
    own: Mapping[str, Neuron] = MappingProxyType({}),
    per_feature: bool = False,
) -> Network:
    for what, given, kind in (
        ("config", config, BertConfig),
        ("feedback", feedback, bool),
        ("own", own, Mapping),
        ("per_feature", per_feature, bool),
    ):
        if not isinstance(given, kind):
            raise InputError(f"`{what}` is {shown(given)}, but a {kind.__name__} was expected")
    if not all(isinstance(one, Neuron | None) for one in (neuron, *own.values())):
        raise InputError(f"the constants are {shown(neuron)} and {shown(dict(own))}, but a Neuron was expected of each")
    d, eps = config.hidden_size, config.layer_norm_eps
    outputs = tuple(f"encoder.{e}.output" for e in range(config.num_hidden_layers))
    drive = Drive("feedback.weight") if feedback else Drive()

    populations = [Population("embeddings", drive, (INPUT, *outputs[-1:] * feedback), d, own.get("embeddings", neuron))]
    h = "embeddings"
    for e in range(config.num_hidden_layers):
        prefix = f"encoder.layer.{e}"

        def add(name: str, projection: Projection, reads: tuple[str, ...], width: int = d, e: int = e) -> str:
            full = f"encoder.{e}.{name}"
            populations.append(Population(full, projection, reads, width, own.get(full, neuron)))
            return full

        def add_norm(name: str, prefix: str = prefix) -> AddNorm:
            synapses = f"{prefix}.{name}.residual.weight" if per_feature else None
            return AddNorm(f"{prefix}.{name}.dense", f"{prefix}.{name}.LayerNorm", eps, synapses)

        def threshold(name: str, prefix: str = prefix) -> str | None:
            return f"{prefix}.{name}.threshold" if per_feature else None

        key = add("key", Linear(f"{prefix}.attention.self.key"), (h,))
        value = add("value", Linear(f"{prefix}.attention.self.value"), (h,))
        query = f"{prefix}.attention.self.query"
        attention = Attention(query, config.num_attention_heads, threshold("attention.self"))
        context = add("context", attention, (h, key, value))
        attended = add("attention_output", add_norm("attention.output"), (context, h))
        gelu = Gelu(f"{prefix}.intermediate.dense", threshold("intermediate"))
        inner = add("intermediate", gelu, (attended,), config.intermediate_size)
        h = add("output", add_norm("output"), (inner, attended))
    if unknown := sorted(own.keys() - {p.name for p in populations}):
        raise InputError(f"there are constants for {', '.join(unknown)}, but the network has no such population")
    return Network(
        drive=Embeddings(eps, config.pad_token_id),
        populations=tuple(populations),
        readouts=("embeddings", *outputs),
        contexts=tuple(f"encoder.{e}.context" for e in range(config.num_hidden_layers)),
    )


def spiking_bert(
    config: BertConfig,
    neuron: Neuron = Neuron(),
    feedback: bool = False,
    own: Mapping[str, Neuron] = MappingProxyType({}),
    per_feature: bool = False,
) -> Network:
    """SpikingBERT's student: an embedding population and six populations of neurons per encoder.

    Parameters
    ----------
    config : BertConfig
    neuron : Neuron
        The constants of every population, ...
    feedback : bool
        Whether the last population is fed back to the embeddings by ``feedback.weight``, (D, D), without bias.
    own : mapping
        ... but for these, by name.
    per_feature : bool
        Whether residuals come through one synapse per feature, and context and intermediate neurons have thresholds of
        their own: parameters, which are 1 throughout in the paper's network; see
        `refsnn.model.shapes.feature_shapes`.

    Returns
    -------
    network : Network

    Examples
    --------
    >>> network = spiking_bert(BertConfig(num_hidden_layers=4))
    >>> len(network.populations), network.populations[3].name, network.populations[3].reads
    (25, 'encoder.0.context', ('embeddings', 'encoder.0.key', 'encoder.0.value'))
    """
    return _transformer(config, neuron, feedback, own, per_feature)


def bert(config: BertConfig) -> Network:
    """BERT's encoder: the same populations, of units that pass their current on instead of spiking.

    Parameters
    ----------
    config : BertConfig

    Returns
    -------
    network : Network
    """
    return _transformer(config, None)
