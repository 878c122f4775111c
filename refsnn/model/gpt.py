"""The family `gpt`: GPT-2 as populations of analogue units, and a student of it whose units spike.

GPT-2 normalises *before* each half-block and adds what the half-block finds to a *residual stream* that nothing
normalises until the end:

    x ← x + W_o·attention(LayerNorm(x))        x ← x + W_2·GELU(W_1·LayerNorm(x))        logits = W_e·LayerNorm(x)

What drives a matrix product should be spikes, so the results of the LayerNorms spike, and so do keys, values, contexts
and the inner units: six populations a block, as in BERT. The stream itself drives no matrix product. It only gathers
what spikes bring, and stays what it is in GPT-2, a sum: a population of *analogue* units, which pass their current on.
In rates it is the mean of these currents, without limits and without a scale of its own; ``docs/gpt.md`` derives it.

A block has eight populations:

    block.E.attention_norm     x                           LayerNorm(x)
    block.E.key, .value        attention_norm              W a + b
    block.E.context            attention_norm, key, value  softmax((W_Q a + b)·keyᵀ/√d + causal mask)·value
    block.E.attention_output   context, x                  W context + b + x         analogue: the stream
    block.E.intermediate_norm  attention_output            LayerNorm(x)
    block.E.intermediate       intermediate_norm           GELU(W a + b), tanh form
    block.E.output             intermediate, attention_output   W intermediate + b + x    analogue: the stream
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import InputError, shown
from ..schema import checked
from .network import INPUT, Network, Population
from .neurons import Neuron
from .parameters import Params, initial_parameters
from .projections import Add, Attention, Drive, Gelu, Linear, Norm, Projection, TokenEmbeddings
from .shapes import check_file, check_fractions, check_sizes
from .student import CONSTANTS, StudentConfig

__all__ = [
    "FINAL",
    "GptConfig",
    "SpikingGptConfig",
    "described",
    "gpt",
    "gpt_shapes",
    "initial_gpt",
    "spiking_gpt",
    "spiking_gpt_shapes",
]

#: The population that next tokens are read from.
FINAL = "final_norm"

#: Largest sizes that are believed, as of a BERT; `n_inner` may be None.
LARGEST = {
    "vocab_size": 1 << 24,
    "n_positions": 1 << 20,
    "n_embd": 1 << 16,
    "n_layer": 1 << 10,
    "n_head": 1 << 12,
    "n_inner": 1 << 20,
}

#: Keys of GPT-2's `config.json` that change what is computed, and the values of them that refsnn computes.
COMPUTED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}


@dataclass(frozen=True)
class GptConfig:
    """Sizes and constants of a GPT-2, under the names of Hugging Face's `config.json`.

    Attributes
    ----------
    vocab_size, n_positions, n_embd, n_layer, n_head : int
    n_inner : int or None
        Width of the inner units; 4·n_embd where None.
    layer_norm_epsilon, initializer_range : float

    Raises
    ------
    InputError
        A size is no positive integer, or the width is not divisible by the heads.

    Examples
    --------
    >>> GptConfig(n_embd=192, n_layer=4, n_head=6).inner
    768
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        largest = {name: most for name, most in LARGEST.items() if getattr(self, name) is not None or name != "n_inner"}
        check_sizes(self, largest, "n_embd", "n_head", "GPT-2")
        check_fractions(self, ("layer_norm_epsilon", "initializer_range"))

    @property
    def inner(self) -> int:
        """Width of the inner units."""
        return self.n_inner or 4 * self.n_embd

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GptConfig:
        """Take what is known from the contents of a `config.json`, ignoring keys that do not change the computation.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        config : GptConfig

        Raises
        ------
        InputError
            A required size is absent, or the file asks for something refsnn does not compute.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"the configuration is a {type(values).__name__}, but a table was expected")
        if (kind := values.get("model_type", "gpt2")) not in ("gpt2", "spiking_gpt"):
            raise InputError(f"model_type is {shown(kind)}, but a GPT-2 was expected ('gpt2')")
        check_file(values, ("vocab_size", "n_embd", "n_layer", "n_head"), COMPUTED, "GPT-2's")
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """All fields, for `config.json`, with what Hugging Face's reader wants to know.

        Returns
        -------
        values : dict
        """
        return {"model_type": "gpt2", "activation_function": "gelu_new", **asdict(self)}


def gpt_shapes(config: GptConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of GPT-2's parameters: Hugging Face's, but for query, key and value, which stand by themselves.

    Parameters
    ----------
    config : GptConfig

    Returns
    -------
    shapes : dict
        Parameter name -> shape; matrices are (out, in). Next tokens are read off with ``wte.weight`` (tied).
    """
    d, m = config.n_embd, config.inner
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (config.vocab_size, d), "wpe.weight": (config.n_positions, d)}
    matrices = {"attn.query": (d, d), "attn.key": (d, d), "attn.value": (d, d), "attn.c_proj": (d, d)}
    inner = {"mlp.c_fc": (m, d), "mlp.c_proj": (d, m)}
    for e in range(config.n_layer):
        for norm, group in (("ln_1", matrices), ("ln_2", inner)):
            shapes |= {f"h.{e}.{norm}.weight": (d,), f"h.{e}.{norm}.bias": (d,)}
            for name, shape in group.items():
                shapes |= {f"h.{e}.{name}.weight": shape, f"h.{e}.{name}.bias": shape[:1]}
    return shapes | {"ln_f.weight": (d,), "ln_f.bias": (d,)}


def spiking_gpt_shapes(config: GptConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a spiking GPT's parameters: GPT-2's, neurons' own thresholds, and the read-out's scale.

    Parameters
    ----------
    config : GptConfig

    Returns
    -------
    shapes : dict
        ``readout.weight`` and ``readout.bias``, (D,), turn the rates of `FINAL` into what GPT-2 has there.
    """
    d = config.n_embd
    shapes = gpt_shapes(config)
    for e in range(config.n_layer):
        shapes |= {f"h.{e}.attn.threshold": (d,), f"h.{e}.mlp.threshold": (config.inner,)}
    return shapes | {"readout.weight": (d,), "readout.bias": (d,)}


def initial_gpt(config: GptConfig, rng: np.random.Generator, dtype: np.dtype[Any] | type = np.float32) -> Params:
    """Draw GPT-2's initialisation: as BERT's, but what is added to the stream is smaller by √(2·blocks).

    Parameters
    ----------
    config : GptConfig
    rng : numpy.random.Generator
    dtype : dtype

    Returns
    -------
    params : dict
    """
    params = initial_parameters(gpt_shapes(config), rng, config.initializer_range, dtype)
    factor = np.asarray((2 * config.n_layer) ** -0.5, dtype)
    return {name: value * factor if name.endswith("c_proj.weight") else value for name, value in params.items()}


def _network(config: GptConfig, neuron: Neuron | None, own: Mapping[str, Neuron]) -> Network:
    d, eps = config.n_embd, config.layer_norm_epsilon
    populations = [Population("embeddings", Drive(), (INPUT,), d, None)]

    def add(name: str, projection: Projection, reads: tuple[str, ...], width: int = d, spikes: bool = True) -> str:
        populations.append(Population(name, projection, reads, width, own.get(name, neuron) if spikes else None))
        return name

    def threshold(name: str) -> str | None:
        return None if neuron is None else f"{name}.threshold"

    x = "embeddings"
    for e in range(config.n_layer):
        layer, block = f"h.{e}", f"block.{e}"
        h = add(f"{block}.attention_norm", Norm(f"{layer}.ln_1", eps), (x,))
        key = add(f"{block}.key", Linear(f"{layer}.attn.key"), (h,))
        value = add(f"{block}.value", Linear(f"{layer}.attn.value"), (h,))
        attention = Attention(f"{layer}.attn.query", config.n_head, threshold(f"{layer}.attn"), causal=True)
        context = add(f"{block}.context", attention, (h, key, value))
        x = add(f"{block}.attention_output", Add(f"{layer}.attn.c_proj"), (context, x), spikes=False)
        h = add(f"{block}.intermediate_norm", Norm(f"{layer}.ln_2", eps), (x,))
        gelu = Gelu(f"{layer}.mlp.c_fc", threshold(f"{layer}.mlp"), tanh=True)
        inner = add(f"{block}.intermediate", gelu, (h,), config.inner)
        x = add(f"{block}.output", Add(f"{layer}.mlp.c_proj"), (inner, x), spikes=False)
    add(FINAL, Norm("ln_f", eps), (x,))
    spiking = [p.name for p in populations if p.neuron is not None]
    if unknown := sorted(own.keys() - set(spiking)):
        raise InputError(f"there are constants for {', '.join(unknown)}, but no such population of neurons")
    return Network(
        drive=TokenEmbeddings(),
        populations=tuple(populations),
        readouts=("embeddings", *(f"block.{e}.output" for e in range(config.n_layer))),
        contexts=tuple(f"block.{e}.context" for e in range(config.n_layer)),
    )


def gpt(config: GptConfig) -> Network:
    """GPT-2, its last LayerNorm included: populations of units that pass their current on.

    Parameters
    ----------
    config : GptConfig

    Returns
    -------
    network : Network

    Examples
    --------
    >>> network = gpt(GptConfig(n_layer=2))
    >>> len(network.populations), network.populations[-1].name, network.readouts
    (18, 'final_norm', ('embeddings', 'block.0.output', 'block.1.output'))
    """
    return _network(config, None, {})


def spiking_gpt(
    config: GptConfig, neuron: Neuron = Neuron(), own: Mapping[str, Neuron] = MappingProxyType({})
) -> Network:
    """GPT-2's student: the same populations, of neurons but for the residual stream.

    Parameters
    ----------
    config : GptConfig
    neuron : Neuron
        The constants of every population of neurons, ...
    own : mapping
        ... but for these, by name.

    Returns
    -------
    network : Network

    Examples
    --------
    >>> network = spiking_gpt(GptConfig(n_layer=1))
    >>> [p.name for p in network.populations if p.neuron is None]
    ['embeddings', 'block.0.attention_output', 'block.0.output']
    """
    return _network(config, neuron, own)


@dataclass(frozen=True)
class SpikingGptConfig:
    """All that a spiking GPT's `config.json` says.

    Attributes
    ----------
    gpt : GptConfig
    neuron : Neuron
        The constants of every population of neurons.
    populations : mapping
        Population -> the constants of its own.

    Examples
    --------
    >>> config = SpikingGptConfig(GptConfig(n_layer=1), Neuron(polarity="ternary"))
    >>> SpikingGptConfig.from_dict(config.to_dict()) == config
    True
    """

    gpt: GptConfig
    neuron: Neuron = field(default_factory=Neuron)
    populations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.gpt, GptConfig) or not isinstance(self.neuron, Neuron):
            raise InputError(
                f"the configuration is made of {shown(self.gpt)} and {shown(self.neuron)}, but a GptConfig and a "
                "Neuron were expected"
            )
        for name, constants in self.populations.items():
            checked("the student", constants, CONSTANTS, f"populations.{name}")
        self.network  # noqa: B018 - refuses populations that the network does not have

    @property
    def network(self) -> Network:
        """The network that these numbers describe."""
        own = {name: replace(self.neuron, **constants) for name, constants in self.populations.items()}
        return spiking_gpt(self.gpt, self.neuron, own)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all parameters."""
        return spiking_gpt_shapes(self.gpt)

    def to_dict(self) -> dict[str, Any]:
        """One flat table: GPT-2's keys and the neurons' constants.

        Returns
        -------
        values : dict
        """
        values = {**self.gpt.to_dict(), **asdict(self.neuron), "model_type": "spiking_gpt"}
        return values | {"populations": {name: dict(constants) for name, constants in self.populations.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: object = "the configuration") -> SpikingGptConfig:
        """Undo `to_dict`.

        Parameters
        ----------
        values : mapping
        source : object
            Where it was read, for messages.

        Returns
        -------
        config : SpikingGptConfig

        Raises
        ------
        InputError
            Something is missing, of another type, or out of its range.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{source} is a {type(values).__name__}, but a table was expected")
        if (kind := values.get("model_type")) != "spiking_gpt":
            raise InputError(f"{source}: model_type is {shown(kind)}, but 'spiking_gpt' was expected")
        known = [
            *CONSTANTS,
            "populations",
            "model_type",
            "activation_function",
            *(one.name for one in fields(GptConfig)),
        ]
        if unknown := [name for name in values if name not in known]:
            raise InputError(f"{source}: the key {shown(unknown[0])} is not known; there are {', '.join(known)}")
        values = checked(source, dict(values), CONSTANTS | {"populations": dict[str, dict]}, closed=False)  # type: ignore[type-arg]
        own = {
            name: checked(source, one, CONSTANTS, f"populations.{name}")
            for name, one in values.get("populations", {}).items()
        }
        try:
            neuron = Neuron(**{name: values[name] for name in CONSTANTS if name in values})
            return cls(GptConfig.from_dict(values), neuron, own)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None


def described(values: Mapping[str, Any], source: object = "the configuration") -> StudentConfig | SpikingGptConfig:
    """Read the description of a spiking network, whichever family it is of.

    Parameters
    ----------
    values : mapping
        As the families' ``to_dict`` write it; ``model_type`` says which, and is a student of BERT's where it is absent.
    source : object
        Where it was read, for messages.

    Returns
    -------
    config : StudentConfig or SpikingGptConfig

    Raises
    ------
    InputError
        It is of neither family, or damaged.
    """
    kind = values.get("model_type", "spiking_bert")
    if kind == "spiking_gpt":
        return SpikingGptConfig.from_dict(values, source)
    if kind not in ("spiking_bert", "bert"):
        raise InputError(f"{source}: model_type is {shown(kind)}, but 'spiking_bert' or 'spiking_gpt' was expected")
    return StudentConfig.from_dict(values, source)
