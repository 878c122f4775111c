"""The network as data: populations of neurons, the projections that drive them, and the families built from both.

A network is an ordered tuple of *populations*. Each names the populations whose spikes it reads and the *projection*
that turns what it reads into its input current. Simulation, equilibrium, gradient, certificate and operation count are
readings of this one description (see ``docs/architecture.md``), so each map below is written once.

The order means: within a time step populations fire in order, so a population that reads an earlier one sees this
step's spikes; one that reads a later one (feedback) sees the previous step's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from . import ops
from .config import BertConfig, embedding_shapes, encoder_shapes
from .errors import InputError
from .neurons import Neuron
from .ops import Array, rounding
from .ops.rounding import Enclosed, Precision

__all__ = [
    "INPUT",
    "AddNorm",
    "Attention",
    "Batch",
    "Drive",
    "Embeddings",
    "FirstPosition",
    "Gelu",
    "Linear",
    "Network",
    "Operations",
    "Params",
    "Population",
    "Projection",
    "accumulate",
    "attention_mask",
    "bert",
    "checked_batch",
    "dropout_masks",
    "first_position",
    "initial_parameters",
    "network_shapes",
    "spiking_bert",
]

Params = dict[str, Array]
#: What a projection's pullback returns: the cotangents of what it read, in order, and of its parameters, by name.
Cotangents = tuple[tuple[Array, ...], Params]

#: Scalar operations: what they are for, their kind (a field of `refsnn.energy.Energies`), how many.
Operations = list[tuple[str, str, float]]

#: Names of the embeddings' five parameters.
EMBEDDINGS = tuple(embedding_shapes(BertConfig()))

#: The name under which a population reads the constant embedding current.
INPUT = "input"


class Batch(NamedTuple):
    """Token ids of B sequences padded to N positions; three (B, N) integer arrays."""

    input_ids: Array
    token_type_ids: Array
    attention_mask: Array  # 1 on tokens, 0 on padding


def attention_mask(batch: Batch, dtype: np.dtype) -> Array:
    """Give what is added to attention scores: 0 on tokens, −10000 on padded keys.

    Parameters
    ----------
    batch : Batch
    dtype : dtype

    Returns
    -------
    mask : (B, 1, 1, N) array
        Broadcasts over heads and queries.
    """
    return ((1 - batch.attention_mask[:, None, None, :]) * -10000.0).astype(dtype)


def checked_batch(batch: Batch, config: BertConfig) -> Batch:
    """Return a batch whose shapes and ids fit a configuration, or say what does not.

    Parameters
    ----------
    batch : Batch
    config : BertConfig

    Returns
    -------
    batch : Batch

    Raises
    ------
    InputError
        They do not.
    """
    if len({a.shape for a in batch}) != 1 or batch.input_ids.ndim != 2 or not batch.input_ids.size:
        raise InputError(f"input_ids, token_type_ids and attention_mask have shapes {[a.shape for a in batch]}, "
                         "but one shape (batch, positions) was expected")  # fmt: skip
    limits = (config.vocab_size, config.type_vocab_size, 2)
    for name, ids, limit in zip(Batch._fields, batch, limits, strict=True):
        if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= limit:
            raise InputError(f"{name} must hold integers in [0, {limit}), but it holds {ids.min()} … {ids.max()}")
    if batch.input_ids.shape[1] > config.max_position_embeddings:
        raise InputError(f"there are {batch.input_ids.shape[1]} positions, but only "
                         f"{config.max_position_embeddings} are embedded")  # fmt: skip
    return batch


class Projection(Protocol):
    """A map from what a population reads to its input current.

    `reads` are arrays (..., B, N, width); leading axes (time) are carried along. ``affine`` says that the map is affine
    in all it reads together, so that the mean of its currents is the current of the means. ``linear`` says of each read
    whether it is first weighted and summed, so that spikes can drive it even where a running mean is integrated.
    """

    @property
    def affine(self) -> bool:
        """Whether the map is affine."""

    @property
    def linear(self) -> tuple[bool, ...]:
        """Which reads are weighted and summed first."""

    def __call__(
        self, params: Mapping[str, Array], reads: tuple[Array, ...], mask: Array
    ) -> tuple[Array, Callable[[Array], Cotangents]]:
        """Return the current and its pullback."""

    def norms(self, params: Mapping[str, Array], reads: tuple[Array, ...], mask: Array) -> tuple[float, ...]:
        """Bounds of the spectral norm of the derivative with respect to each read, at these reads."""

    def synapses(self, widths: tuple[int, ...], width: int, tokens: float) -> tuple[float, ...]:
        """Synaptic operations that one token causes if each neuron of each read population fires once, per read."""

    def operations(
        self, widths: tuple[int, ...], width: int, tokens: float, rates: tuple[float | None, ...]
    ) -> Operations:
        """All scalar operations of one token and one evaluation, a term of the formula after the other.

        `rates` says how each read arrives: as spikes, so many per neuron, or, where it is None, as real numbers.
        ``docs/energy.md`` derives every number.
        """

    def enclose(
        self, params: Mapping[str, Array], reads: tuple[Enclosed, ...], mask: Array, precision: Precision
    ) -> Enclosed:
        """Return the current with an a-priori bound of how far a correct program's may lie from it."""


def _dropped(params: Mapping[str, Array], mask: str, x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Apply the dropout mask of that name, if there is one, to the positions that x has; and its pullback."""
    if mask not in params:
        return x, lambda dy: dy
    kept = params[mask][..., : x.shape[-2], :]
    return x * kept, lambda dy: dy * kept


def _spectral_norm(x: Array) -> float:
    """Largest singular value of the matrices in the last two axes, over all others."""
    return float(np.linalg.norm(x, 2, axis=(-2, -1)).max())


def _products(term: str, count: float, rate: float | None) -> Operations:
    """Products with what is read, each fetching one word that a spike adds to a sum and a real number multiplies."""
    kind, count = ("multiply_accumulate", count) if rate is None else ("accumulate", count * rate)
    return [(term, kind, count), (term, "read", count)]


def _affine(term: str, inputs: int, outputs: int, rate: float | None) -> Operations:
    """``W a + b``: the sums start at the biases."""
    return [*_products(term, inputs * outputs, rate), (term, "read", outputs)]


def _layer_norm(term: str, width: int) -> Operations:
    """Mean and centring, variance + ε, 1/√, scaling to x̂, γ·x̂ + β."""
    numbers = {"add": 2 * width + 1, "multiply": width + 2, "multiply_accumulate": 2 * width}
    return [(term, kind, n) for kind, n in {**numbers, "square_root": 1, "divide": 1, "read": 2 * width}.items()]


@dataclass(frozen=True)
class Drive:
    """Embedding population: ``I = x + W_fb a``: the constant embedding current plus, with feedback, a linear map.

    Reads the input and, with `feedback` (the name of W_fb, without bias), the last population.
    """

    feedback: str | None = None
    affine = True
    linear: ClassVar[tuple[bool, ...]] = (True, True)

    def __call__(self, params, reads, mask):
        weight = self.feedback
        if weight is None:
            return reads[0], lambda dy: ((dy,), {})
        y, pullback = ops.linear(reads[1], params[weight])

        def drive_pullback(dy: Array) -> Cotangents:
            da, dweight = pullback(dy)
            return (dy, da), {weight: dweight}

        return reads[0] + y, drive_pullback

    def norms(self, params, reads, mask):
        return (1.0,) if self.feedback is None else (1.0, _spectral_norm(params[self.feedback]))

    def synapses(self, widths, width, tokens):
        return (0, *(w * width for w in widths[1:]))

    def operations(self, widths, width, tokens, rates):
        returned = [] if self.feedback is None else _products("linear", widths[1] * width, rates[1])
        return [("linear", "read", width), *returned]  # the sums start at x

    def enclose(self, params, reads, mask, precision):
        if self.feedback is None:
            return reads[0]
        returned = rounding.linear(reads[1], params[self.feedback], None, precision)
        return rounding.add(reads[0], returned, precision=precision)


@dataclass(frozen=True)
class Linear:
    """Key and value populations: ``I = W a + b``. `name` is the parameters' common prefix."""

    name: str
    affine = True
    linear: ClassVar[tuple[bool, ...]] = (True,)

    def __call__(self, params, reads, mask):
        y, pullback = ops.linear(reads[0], params[f"{self.name}.weight"], params[f"{self.name}.bias"])

        def linear_pullback(dy: Array) -> Cotangents:
            da, dweight, dbias = pullback(dy)
            return (da,), {f"{self.name}.weight": dweight, f"{self.name}.bias": dbias}

        return y, linear_pullback

    def norms(self, params, reads, mask):
        return (_spectral_norm(params[f"{self.name}.weight"]),)

    def synapses(self, widths, width, tokens):
        return (widths[0] * width,)

    def operations(self, widths, width, tokens, rates):
        return _affine("linear", widths[0], width, rates[0])

    def enclose(self, params, reads, mask, precision):
        return rounding.linear(reads[0], params[f"{self.name}.weight"], params[f"{self.name}.bias"], precision)


@dataclass(frozen=True)
class Attention:
    """Spiking attention: ``I = softmax((W_Q h + b)·keyᵀ/√d + mask)·value``; reads h, key, value.

    Keys and values are spikes (or rates); the query is a real-valued linear map and has no neurons.
    """

    query: str
    heads: int
    affine = False
    linear: ClassVar[tuple[bool, ...]] = (True, False, False)

    @property
    def dropout(self) -> str:
        """Name of the mask of the attention weights, (B, heads, N, N)."""
        return f"{self.query}.dropout"

    def scores(self, params, reads, mask):
        """Raw attention scores before the softmax, mask included: the observable that distillation compares.

        ``pullback(dscores)`` returns the same cotangents as the projection's own.
        """
        h, key, value = reads
        weight, bias = f"{self.query}.weight", f"{self.query}.bias"
        query, query_pullback = ops.linear(h, params[weight], params[bias])
        scores, scores_pullback = ops.attention_scores(query, key, self.heads, mask)  # (..., B, heads, N, N)

        def pullback(dscores: Array) -> Cotangents:
            dquery, dkey = scores_pullback(dscores)
            dh, dweight, dbias = query_pullback(dquery)
            return (dh, dkey, np.zeros_like(value)), {weight: dweight, bias: dbias}

        return scores, pullback

    def __call__(self, params, reads, mask):
        scores, scores_pullback = self.scores(params, reads, mask)
        weights, softmax_pullback = ops.softmax(scores)
        seen, dropout_pullback = _dropped(params, self.dropout, weights)
        y, mix_pullback = ops.mix(seen, reads[2])

        def pullback(dy: Array) -> Cotangents:
            dweights, dvalue = mix_pullback(dy)
            (dh, dkey, _), dparams = scores_pullback(softmax_pullback(dropout_pullback(dweights)))
            return (dh, dkey, dvalue), dparams

        return y, pullback

    def norms(self, params, reads, mask):
        h, key, value = reads
        query, _ = ops.linear(h, params[f"{self.query}.weight"], params[f"{self.query}.bias"])
        weights, _ = ops.softmax(self.scores(params, reads, mask)[0])
        q, k, v = (_spectral_norm(ops.split_heads(x, self.heads)) for x in (query, key, value))
        # diag(p) − ppᵀ, the derivative of the softmax, has norm ≤ 1/2; heads read and write their own shares.
        scale = 0.5 * v / np.sqrt(h.shape[-1] // self.heads)
        return scale * k * _spectral_norm(params[f"{self.query}.weight"]), scale * q, _spectral_norm(weights)

    def synapses(self, widths, width, tokens):
        return (widths[0] * width, tokens * width, tokens * width)

    def operations(self, widths, width, tokens, rates):
        # 1/√d is part of W_Q and of its bias; padding is left out. Each head has one softmax over the tokens.
        scores = self.heads * tokens
        return [
            *_affine("query", widths[0], width, rates[0]),
            *_products("attention", tokens * width, rates[1]),
            ("softmax", "compare", scores),
            ("softmax", "add", 2 * scores),
            ("softmax", "exponential", scores),
            ("softmax", "divide", self.heads),
            ("softmax", "multiply", scores),
            *_products("attention", tokens * width, rates[2]),
        ]

    def enclose(self, params, reads, mask, precision):
        h, key, value = reads
        query = Linear(self.query).enclose(params, (h,), mask, precision)
        weights = rounding.softmax(rounding.scores(query, key, self.heads, mask, precision), precision)
        return rounding.mix(weights, value, precision)


@dataclass(frozen=True)
class AddNorm:
    """Attention output and encoder output: ``I = LayerNorm(W a + b + residual)``; reads a and the residual."""

    dense: str
    norm: str
    eps: float
    affine = False
    linear: ClassVar[tuple[bool, ...]] = (True, True)

    @property
    def dropout(self) -> str:
        """Name of the mask of the linear map's result, (B, N, width)."""
        return f"{self.dense}.dropout"

    def __call__(self, params, reads, mask):
        a, residual = reads
        linear, linear_pullback = Linear(self.dense)(params, (a,), mask)
        kept, dropout_pullback = _dropped(params, self.dropout, linear)
        gamma, beta = f"{self.norm}.weight", f"{self.norm}.bias"
        y, norm_pullback = ops.layer_norm(kept + residual, params[gamma], params[beta], self.eps)

        def pullback(dy: Array) -> Cotangents:
            dsum, dgamma, dbeta = norm_pullback(dy)
            (da,), dparams = linear_pullback(dropout_pullback(dsum))
            return (da, dsum), {**dparams, gamma: dgamma, beta: dbeta}

        return y, pullback

    def norms(self, params, reads, mask):
        a, residual = reads
        weight = params[f"{self.dense}.weight"]
        linear, _ = ops.linear(a, weight, params[f"{self.dense}.bias"])
        # Normalising is a projection divided by the standard deviation.
        norm = np.abs(params[f"{self.norm}.weight"]).max() / np.sqrt((linear + residual).var(axis=-1).min() + self.eps)
        return float(norm) * _spectral_norm(weight), float(norm)

    def synapses(self, widths, width, tokens):
        return (widths[0] * width, width)

    def operations(self, widths, width, tokens, rates):
        residual = ("add", width) if rates[1] is None else ("accumulate", width * rates[1])
        return [
            *_affine("linear", widths[0], width, rates[0]),
            ("residual", *residual),
            *_layer_norm("normalisation", width),
        ]

    def enclose(self, params, reads, mask, precision):
        a, residual = reads
        total = rounding.add(Linear(self.dense).enclose(params, (a,), mask, precision), residual, precision=precision)
        gamma, beta = params[f"{self.norm}.weight"], params[f"{self.norm}.bias"]
        return rounding.layer_norm(total, gamma, beta, self.eps, precision)


@dataclass(frozen=True)
class Gelu:
    """Intermediate population: ``I = GELU(W a + b)``, exact form."""

    name: str
    affine = False
    linear: ClassVar[tuple[bool, ...]] = (True,)

    def __call__(self, params, reads, mask):
        linear, linear_pullback = Linear(self.name)(params, reads, mask)
        y, gelu_pullback = ops.gelu(linear)
        return y, lambda dy: linear_pullback(gelu_pullback(dy))

    def norms(self, params, reads, mask):
        return (1.13 * _spectral_norm(params[f"{self.name}.weight"]),)  # the largest slope of GELU is 1.129

    def synapses(self, widths, width, tokens):
        return (widths[0] * width,)

    def operations(self, widths, width, tokens, rates):
        return [*_affine("linear", widths[0], width, rates[0]), ("gelu", "gelu", width)]

    def enclose(self, params, reads, mask, precision):
        return rounding.gelu(Linear(self.name).enclose(params, reads, mask, precision), precision)


@dataclass(frozen=True)
class Embeddings:
    """The constant input current: ``x = LayerNorm(word + position + token type)``.

    The word embedding of the padding token receives no gradient.
    """

    eps: float
    pad_token_id: int
    dropout: ClassVar[str] = "embeddings.dropout"  # name of the mask of x, (B, N, D)

    def __call__(self, params: Mapping[str, Array], batch: Batch) -> tuple[Array, Callable[[Array], Params]]:
        positions = np.arange(batch.input_ids.shape[1])
        word, position, kind, gamma, beta = EMBEDDINGS
        w, word_pullback = ops.embedding(batch.input_ids, params[word], frozen_row=self.pad_token_id)  # (B, N, D)
        p, position_pullback = ops.embedding(positions, params[position])  # (N, D)
        k, kind_pullback = ops.embedding(batch.token_type_ids, params[kind])  # (B, N, D)
        x, norm_pullback = ops.layer_norm(w + p + k, params[gamma], params[beta], self.eps)
        kept, dropout_pullback = _dropped(params, self.dropout, x)

        def pullback(dx: Array) -> Params:
            dsum, dgamma, dbeta = norm_pullback(dropout_pullback(dx))
            return {
                word: word_pullback(dsum),
                position: position_pullback(dsum.sum(axis=0)),
                kind: kind_pullback(dsum),
                gamma: dgamma,
                beta: dbeta,
            }

        return kept, pullback

    def operations(self, width: int) -> Operations:
        """All scalar operations of one token: three rows of tables, the words' in the large memory, are normalised."""
        summed = [
            ("embeddings", "dram_read", width),
            ("embeddings", "read", 2 * width),
            ("embeddings", "add", 2 * width),
        ]
        return [*summed, *_layer_norm("embeddings", width), ("embeddings", "write", width)]

    def enclose(self, params: Mapping[str, Array], batch: Batch, precision: Precision) -> Enclosed:
        """Return the input current with its a-priori rounding bound."""
        word, position, kind, gamma, beta = EMBEDDINGS
        terms = (
            params[word][batch.input_ids],
            params[position][np.arange(batch.input_ids.shape[1])],
            params[kind][batch.token_type_ids],
        )
        total = rounding.add(*map(Enclosed.exact, np.broadcast_arrays(*terms)), precision=precision)
        return rounding.layer_norm(total, params[gamma], params[beta], self.eps, precision)


@dataclass(frozen=True)
class Population:
    """Units with one projection. `neuron` None makes them analogue: they pass their current on, as in BERT."""

    name: str
    projection: Projection
    reads: tuple[str, ...]
    width: int
    neuron: Neuron | None


@dataclass(frozen=True)
class Network:
    """Populations in firing order, the input that drives them, and what is observed.

    Attributes
    ----------
    drive : Embeddings
        The constant current that populations read under the name ``"input"``.
    populations : tuple of Population
    readouts : tuple of str
        Populations 0…N compared with the teacher's hidden states: the embeddings and the output of each encoder.
    contexts : tuple of str
        The population of each encoder whose attention scores are compared with the teacher's.
    """

    drive: Embeddings
    populations: tuple[Population, ...]
    readouts: tuple[str, ...]
    contexts: tuple[str, ...]

    def __getitem__(self, name: str) -> Population:
        return next(population for population in self.populations if population.name == name)

    @property
    def fed_back(self) -> tuple[str, ...]:
        """Populations that are read before they are evaluated; if any, the rates solve a true fixed-point equation."""
        known = {INPUT}
        found: dict[str, None] = {}
        for population in self.populations:
            found |= dict.fromkeys(name for name in population.reads if name not in known)
            known.add(population.name)
        return tuple(found)

    @property
    def last_readers(self) -> dict[str, str]:
        """The population that reads each population, or the input, last: after it, nobody in this sweep needs it."""
        return {read: population.name for population in self.populations for read in population.reads}


@dataclass(frozen=True)
class FirstPosition:
    """A projection whose current is asked for at the first position, [CLS], alone.

    Of the reads that `cut` marks, only what lies there matters; the others, keys and values, are read everywhere.
    """

    projection: Projection
    cut: tuple[bool, ...]

    @property
    def affine(self) -> bool:
        """Whether the projection is."""
        return self.projection.affine

    @property
    def linear(self) -> tuple[bool, ...]:
        """Which reads the projection weights and sums."""
        return self.projection.linear

    def _cut(self, reads: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(read[..., :1, :] if cut else read for read, cut in zip(reads, self.cut, strict=True))

    def __call__(self, params, reads, mask):
        y, first_pullback = self.projection(params, self._cut(reads), mask)

        def pullback(dy: Array) -> Cotangents:
            dfirst, dparams = first_pullback(dy)
            dreads = tuple(np.zeros(read.shape, dread.dtype) for read, dread in zip(reads, dfirst, strict=True))
            for whole, part in zip(self._cut(dreads), dfirst, strict=True):
                whole[...] = part  # a view
            return dreads, dparams

        return y, pullback

    def norms(self, params, reads, mask):
        return self.projection.norms(params, self._cut(reads), mask)

    def synapses(self, widths, width, tokens):
        return tuple(operations / tokens for operations in self.projection.synapses(widths, width, tokens))

    def operations(self, widths, width, tokens, rates):
        all_positions = self.projection.operations(widths, width, tokens, rates)
        return [(term, kind, number / tokens) for term, kind, number in all_positions]

    def enclose(self, params, reads, mask, precision):
        values, errors = (self._cut(part) for part in zip(*reads, strict=True))
        return self.projection.enclose(params, tuple(map(Enclosed, values, errors)), mask, precision)


def first_position(network: Network) -> Network:
    """Reduce a network to what class scores need: of the last encoder, only what [CLS] depends on.

    Keys and values are needed everywhere, the populations after them at the first position alone, where they have the
    shape (B, 1, width). With feedback, which needs them all, the network is returned as it is.

    Parameters
    ----------
    network : Network

    Returns
    -------
    network : Network

    Examples
    --------
    >>> network = first_position(spiking_bert(BertConfig(num_hidden_layers=2)))
    >>> [p.name for p in network.populations if isinstance(p.projection, FirstPosition)]
    ['encoder.1.context', 'encoder.1.attention_output']
    """
    if network.fed_back:
        return network
    populations = []
    first: set[str] = set()
    for population in network.populations:
        if population.name == network.contexts[-1] or first:
            # The context reads its encoder's input there, for the query; what comes after reads all there.
            cut = [read not in first for read in population.reads]
            if not first:
                cut = [True, False, False]
            first.add(population.name)
            if any(cut):
                population = replace(population, projection=FirstPosition(population.projection, tuple(cut)))
        populations.append(population)
    return replace(network, populations=tuple(populations))


def accumulate(total: dict[str, Array], name: str, value: Array) -> None:
    """Add a cotangent to those already gathered under a name, leaving the arrays themselves alone.

    Parameters
    ----------
    total : dict of arrays
    name : str
    value : array
    """
    total[name] = total[name] + value if name in total else value


def _transformer(
    config: BertConfig,
    neuron: Neuron | None,
    feedback: bool,
    thresholds: Mapping[str, float] = MappingProxyType({}),
    initial_potentials: Mapping[str, float] = MappingProxyType({}),
) -> Network:
    d, eps = config.hidden_size, config.layer_norm_eps
    outputs = tuple(f"encoder.{e}.output" for e in range(config.num_hidden_layers))
    drive = Drive("feedback.weight") if feedback else Drive()

    def units(name: str) -> Neuron | None:
        if neuron is None:
            return None
        vth, u0 = neuron.vth * thresholds.get(name, 1.0), initial_potentials.get(name, neuron.u0)
        return replace(neuron, vth=vth, u0=u0)

    populations = [Population("embeddings", drive, (INPUT, *outputs[-1:] * feedback), d, units("embeddings"))]
    h = "embeddings"
    for e in range(config.num_hidden_layers):
        prefix = f"encoder.layer.{e}"

        def add(name: str, projection: Projection, reads: tuple[str, ...], width: int = d, e: int = e) -> str:
            full = f"encoder.{e}.{name}"
            populations.append(Population(full, projection, reads, width, units(full)))
            return full

        def add_norm(name: str, prefix: str = prefix) -> AddNorm:
            return AddNorm(f"{prefix}.{name}.dense", f"{prefix}.{name}.LayerNorm", eps)

        key = add("key", Linear(f"{prefix}.attention.self.key"), (h,))
        value = add("value", Linear(f"{prefix}.attention.self.value"), (h,))
        attention = Attention(f"{prefix}.attention.self.query", config.num_attention_heads)
        context = add("context", attention, (h, key, value))
        attended = add("attention_output", add_norm("attention.output"), (context, h))
        inner = add("intermediate", Gelu(f"{prefix}.intermediate.dense"), (attended,), config.intermediate_size)
        h = add("output", add_norm("output"), (inner, attended))
    for what, own in (("thresholds", thresholds), ("initial potentials", initial_potentials)):
        if unknown := sorted(own.keys() - {p.name for p in populations}):
            raise InputError(f"there are {what} for {', '.join(unknown)}, but the network has no such population")
    return Network(
        drive=Embeddings(eps, config.pad_token_id),
        populations=tuple(populations),
        readouts=("embeddings", *outputs),
        contexts=tuple(f"encoder.{e}.context" for e in range(config.num_hidden_layers)),
    )


def spiking_bert(
    config: BertConfig,
    neuron: Neuron = Neuron(),  # noqa: B008
    feedback: bool = False,
    thresholds: Mapping[str, float] = MappingProxyType({}),
    initial_potentials: Mapping[str, float] = MappingProxyType({}),
) -> Network:
    """SpikingBERT's student: an embedding population and six populations of neurons per encoder.

    Parameters
    ----------
    config : BertConfig
    neuron : Neuron
        The constants of every population.
    feedback : bool
        Whether the last population is fed back to the embeddings by ``feedback.weight``, (D, D), without bias.
    thresholds : mapping
        V_th of single populations, by name, in units of the neuron's.
    initial_potentials : mapping
        u0 of single populations, by name, where it is not the neuron's: in units of their thresholds, in [0, 1).

    Returns
    -------
    network : Network

    Examples
    --------
    >>> network = spiking_bert(BertConfig(num_hidden_layers=4))
    >>> len(network.populations), network.populations[3].name, network.populations[3].reads
    (25, 'encoder.0.context', ('embeddings', 'encoder.0.key', 'encoder.0.value'))
    """
    return _transformer(config, neuron, feedback, thresholds, initial_potentials)


def bert(config: BertConfig) -> Network:
    """BERT's encoder: the same populations, of units that pass their current on instead of spiking.

    Parameters
    ----------
    config : BertConfig

    Returns
    -------
    network : Network
    """
    return _transformer(config, None, False)


def network_shapes(config: BertConfig, feedback: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of `spiking_bert` or `bert`, heads not included.

    Parameters
    ----------
    config : BertConfig
    feedback : bool

    Returns
    -------
    shapes : dict
    """
    shapes = embedding_shapes(config)
    for layer in range(config.num_hidden_layers):
        shapes |= encoder_shapes(config, layer)
    if feedback:
        shapes["feedback.weight"] = (config.hidden_size, config.hidden_size)
    return shapes


def dropout_masks(
    network: Network, batch: Batch, probability: float, rng: np.random.Generator, dtype: type = np.float32
) -> Params:
    """Draw dropout masks where BERT has them: on embeddings, attention weights and both outputs of an encoder.

    Masks are 0 with the given probability and 1/(1 − probability) otherwise, one for each sequence of the batch. They
    are taken as parameters, and like these stay the same through all timesteps: a mask drawn anew at every step would
    leave no equilibrium to settle at.

    Parameters
    ----------
    network : Network
    batch : Batch
    probability : float
        In [0, 1).
    rng : numpy.random.Generator
    dtype : floating type

    Returns
    -------
    masks : dict
        To be given to a reading together with the parameters, ``params | masks``.

    Raises
    ------
    InputError
        The probability is not in [0, 1).

    Examples
    --------
    >>> batch = Batch(*np.ones((3, 1, 4), int))
    >>> network = spiking_bert(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    >>> masks = dropout_masks(network, batch, 0.5, np.random.default_rng(0))
    >>> {name: mask.shape for name, mask in masks.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'embeddings.dropout': (1, 4, 8), 'encoder.layer.0.attention.self.query.dropout': (1, 2, 4, 4),
     'encoder.layer.0.attention.output.dense.dropout': (1, 4, 8), 'encoder.layer.0.output.dense.dropout': (1, 4, 8)}
    """
    if not 0 <= probability < 1:
        raise InputError(f"the dropout probability is {probability}, but it lies in [0, 1)")
    size, positions = batch.input_ids.shape
    shapes: dict[str, tuple[int, ...]] = {network.drive.dropout: (size, positions, network.populations[0].width)}
    for population in network.populations:
        projection = population.projection
        if isinstance(projection, Attention):
            shapes[projection.dropout] = (size, projection.heads, positions, positions)
        elif isinstance(projection, AddNorm):
            shapes[projection.dropout] = (size, positions, population.width)
    kept = 1 / (1 - probability)
    return {name: (rng.random(shape) >= probability).astype(dtype) * dtype(kept) for name, shape in shapes.items()}


def initial_parameters(
    shapes: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
    scale: float = 0.02,
    dtype: np.dtype | type = np.float32,
) -> Params:
    """BERT's initialisation: matrices normal with the given scale, biases 0, LayerNorm weights 1.

    Parameters
    ----------
    shapes : mapping
        Parameter name -> shape.
    rng : numpy.random.Generator
    scale : float
        ``initializer_range`` of the configuration.
    dtype : dtype

    Returns
    -------
    params : dict

    Examples
    --------
    >>> p = initial_parameters({"a.weight": (2, 2), "a.bias": (2,)}, np.random.default_rng(0))
    >>> p["a.weight"].dtype, p["a.bias"]
    (dtype('float32'), array([0., 0.], dtype=float32))
    """

    def one(name: str, shape: tuple[int, ...]) -> Array:
        if len(shape) > 1:
            return rng.normal(0, scale, shape).astype(dtype)
        return np.ones(shape, dtype) if name.endswith("LayerNorm.weight") else np.zeros(shape, dtype)

    return {name: one(name, shape) for name, shape in shapes.items()}
