"""Projections: the maps from what a population reads to its input current, each with its bound and its cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

from .. import ops
from ..ops import Array, rounding
from ..ops.rounding import Enclosed, Precision
from .batch import Batch
from .parameters import Gradients
from .shapes import BertConfig, embedding_shapes

__all__ = [
    "Add",
    "AddNorm",
    "Attention",
    "Drive",
    "Embeddings",
    "FirstPosition",
    "Gelu",
    "Linear",
    "Norm",
    "Operations",
    "Projection",
    "TokenEmbeddings",
]

#: Parameters by name; arrays (..., B, N, width) that are read; their widths.
Parameters = Mapping[str, Array]
Reads = tuple[Array, ...]
Widths = tuple[int, ...]

#: How each read arrives: as spikes, so many per neuron, or, where it is None, as real numbers.
Arriving = tuple[float | None, ...]

#: What a projection's pullback returns: the cotangents of what it read, in order, and of its parameters, by name.
Cotangents = tuple[tuple[Array, ...], Mapping[str, Array]]
Pullback = Callable[[Array], Cotangents]

#: Parameter name -> shape; None is a length that the network leaves open.
Shapes = dict[str, tuple[int | None, ...]]

#: Scalar operations: what they are for, their kind (a field of `refsnn.readings.energy.Energies`), how many.
Operations = list[tuple[str, str, float]]

#: Names of the embeddings' five parameters.
EMBEDDINGS = tuple(embedding_shapes(BertConfig()))


class Later(Mapping[str, Array]):
    """Cotangents of parameters, computed when somebody looks at them: half of a pullback, and a product needs none."""

    def __init__(self, compute: Callable[[], Mapping[str, Array]]) -> None:
        self._compute = compute

    @cached_property
    def _found(self) -> Mapping[str, Array]:
        return self._compute()

    def __getitem__(self, name: str) -> Array:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


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

    def __call__(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        """Return the current and its pullback."""

    def shapes(self, widths: Widths, width: int) -> Shapes:
        """Names and shapes of the parameters, from the widths of what is read and the population's own."""

    def norms(self, params: Parameters, reads: Reads, mask: Array) -> tuple[float, ...]:
        """Bounds of the spectral norm of the derivative with respect to each read, at these reads."""

    def synapses(self, widths: Widths, width: int, tokens: float) -> tuple[float, ...]:
        """Synaptic operations that one token causes if each neuron of each read population fires once, per read."""

    def operations(self, widths: Widths, width: int, tokens: float, rates: Arriving) -> Operations:
        """All scalar operations of one token and one evaluation, a term of the formula after the other.

        `rates` says how each read arrives. ``docs/energy.md`` derives every number.
        """

    def enclose(self, params: Parameters, reads: tuple[Enclosed, ...], mask: Array, precision: Precision) -> Enclosed:
        """Return the current with an a-priori bound of how far a correct program's may lie from it."""


def _dropped(params: Parameters, mask: str, x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Apply the dropout mask of that name, if there is one, to the positions that x has; and its pullback."""
    if mask not in params:
        return x, lambda dy: dy
    kept = params[mask][..., : x.shape[-2], :]
    return x * kept, lambda dy: dy * kept


def _scaled(params: Parameters, name: str | None, x: Array) -> tuple[Array, Pullback]:
    """Weight every feature of x by its own synapse, if the description names some; and the pullback."""
    if name is None:
        return x, lambda dy: ((dy,), {})
    y, pullback = ops.scale(x, params[name])

    def scale_pullback(dy: Array) -> Cotangents:
        dx, dweight = pullback(dy)
        return (dx,), {name: dweight}

    return y, scale_pullback


def _in_thresholds(params: Parameters, name: str | None, current: Array) -> tuple[Array, Pullback]:
    """Measure the current of every neuron in its own threshold, if the description names some; and the pullback."""
    if name is None:
        return current, lambda dy: ((dy,), {})
    inverse = 1 / params[name]
    y, pullback = ops.scale(current, inverse)

    def threshold_pullback(dy: Array) -> Cotangents:
        dcurrent, dinverse = pullback(dy)
        return (dcurrent,), {name: -dinverse * inverse**2}

    return y, threshold_pullback


def _enclosed(
    params: Parameters, name: str | None, x: Enclosed, precision: Precision, divide: bool = False
) -> Enclosed:
    """`_scaled`, or with `divide` `_in_thresholds`, of a quantity with a bound."""
    if name is None:
        return x
    return rounding.scale(x, 1 / params[name] if divide else params[name], precision)


def _own_thresholds(name: str | None, width: int, rate: float | None) -> Operations:
    """Thresholds to fetch at every step, where neurons have their own; analogue units (`rate` None) have none."""
    return [] if name is None or rate is None else [("thresholds", "read", width)]


def _spectral_norm(x: Array) -> float:
    """Largest singular value of the matrices in the last two axes, over all others."""
    return float(np.linalg.norm(x, 2, axis=(-2, -1)).max())


def _least(params: Parameters, threshold: str | None) -> float:
    """Smallest of the neurons' own thresholds, in units of V_th; 1 where they have none."""
    return 1.0 if threshold is None else float(np.abs(params[threshold]).min())


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

    def __call__(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        weight = self.feedback
        if weight is None:
            return reads[0], lambda dy: ((dy,), {})
        y, pullback = ops.linear(reads[1], params[weight])

        def drive_pullback(dy: Array) -> Cotangents:
            return (dy, pullback.reads(dy)), Later(lambda: {weight: pullback.parameters(dy)[0]})

        return reads[0] + y, drive_pullback

    def shapes(self, widths: Widths, width: int) -> Shapes:
        return {} if self.feedback is None else {self.feedback: (width, widths[1])}

    def norms(self, params: Parameters, reads: Reads, mask: Array) -> tuple[float, ...]:
        return (1.0,) if self.feedback is None else (1.0, _spectral_norm(params[self.feedback]))

    def synapses(self, widths: Widths, width: int, tokens: float) -> tuple[float, ...]:
        return (0, *(w * width for w in widths[1:]))

    def operations(self, widths: Widths, width: int, tokens: float, rates: Arriving) -> Operations:
        returned = [] if self.feedback is None else _products("linear", widths[1] * width, rates[1])
        return [("linear", "read", width), *returned]  # the sums start at x

    def enclose(self, params: Parameters, reads: tuple[Enclosed, ...], mask: Array, precision: Precision) -> Enclosed:
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

    def __call__(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        names = f"{self.name}.weight", f"{self.name}.bias"
        y, pullback = ops.linear(reads[0], *(params[name] for name in names))

        def linear_pullback(dy: Array) -> Cotangents:
            return (pullback.reads(dy),), Later(lambda: dict(zip(names, pullback.parameters(dy), strict=True)))

        return y, linear_pullback

    def shapes(self, widths: Widths, width: int) -> Shapes:
        return {f"{self.name}.weight": (width, widths[0]), f"{self.name}.bias": (width,)}

    def norms(self, params: Parameters, reads: Reads, mask: Array) -> tuple[float, ...]:
        return (_spectral_norm(params[f"{self.name}.weight"]),)

    def synapses(self, widths: Widths, width: int, tokens: float) -> tuple[float, ...]:
        return (widths[0] * width,)

    def operations(self, widths: Widths, width: int, tokens: float, rates: Arriving) -> Operations:
        return _affine("linear", widths[0], width, rates[0])

    def enclose(self, params: Parameters, reads: tuple[Enclosed, ...], mask: Array, precision: Precision) -> Enclosed:
        return rounding.linear(reads[0], params[f"{self.name}.weight"], params[f"{self.name}.bias"], precision)


@dataclass(frozen=True)
class Attention:
    """Spiking attention: ``I = softmax((W_Q h + b)·keyᵀ/√d + mask)·value``; reads h, key, value.

    Keys and values are spikes (or rates); the query is a real-valued linear map and has no neurons. With `threshold`,
    the name of a vector θ, the current is I/θ: neuron j has the threshold θ_j·V_th. With `causal` no position sees a
    later one; there may then be fewer queries than keys, those of the last positions.
    """

    query: str
    heads: int
    threshold: str | None = None
    causal: bool = False
    affine = False
    linear: ClassVar[tuple[bool, ...]] = (True, False, False)

    @property
    def dropout(self) -> str:
        """Name of the mask of the attention weights, (B, heads, N, N)."""
        return f"{self.query}.dropout"

    def _visible(self, mask: Array, h: Array, key: Array) -> Array:
        """Mask of the keys that each query may see, from that of padding."""
        if not self.causal:
            return mask
        return np.minimum(mask, ops.causal_mask(h.shape[-2], key.shape[-2], mask.dtype))

    def _seen(self, tokens: float) -> float:
        """How many keys a query sees on average."""
        return (tokens + 1) / 2 if self.causal else tokens

    def scores(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        """Raw attention scores before the softmax, mask included: the observable that distillation compares.

        ``pullback(dscores)`` returns the same cotangents as the projection's own.
        """
        h, key, value = reads
        query, query_pullback = Linear(self.query)(params, (h,), mask)
        mask = self._visible(mask, h, key)
        scores, scores_pullback = ops.attention_scores(query, key, self.heads, mask)  # (..., B, heads, N, N)

        def pullback(dscores: Array) -> Cotangents:
            dquery, dkey = scores_pullback(dscores)
            (dh,), dparams = query_pullback(dquery)
            return (dh, dkey, np.zeros_like(value)), dparams

        return scores, pullback

    def __call__(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        scores, scores_pullback = self.scores(params, reads, mask)
        weights, softmax_pullback = ops.softmax(scores)
        seen, dropout_pullback = _dropped(params, self.dropout, weights)
        mixed, mix_pullback = ops.mix(seen, reads[2])
        y, threshold_pullback = _in_thresholds(params, self.threshold, mixed)

        def pullback(dy: Array) -> Cotangents:
            (dmixed,), dthreshold = threshold_pullback(dy)
            dweights, dvalue = mix_pullback(dmixed)
            (dh, dkey, _), dparams = scores_pullback(softmax_pullback(dropout_pullback(dweights)))
            return (dh, dkey, dvalue), Later(lambda: {**dparams, **dthreshold})

        return y, pullback

    def shapes(self, widths: Widths, width: int) -> Shapes:
        own: Shapes = {} if self.threshold is None else {self.threshold: (width,)}
        return Linear(self.query).shapes(widths, widths[1]) | own  # queries are compared with keys

    def norms(self, params: Parameters, reads: Reads, mask: Array) -> tuple[float, ...]:
        h, key, value = reads
        query, _ = ops.linear(h, params[f"{self.query}.weight"], params[f"{self.query}.bias"])
        weights, _ = ops.softmax(self.scores(params, reads, mask)[0])
        q, k, v = (_spectral_norm(ops.split_heads(x, self.heads)) for x in (query, key, value))
        # diag(p) − ppᵀ, the derivative of the softmax, has norm ≤ 1/2; heads read and write their own shares.
        scale, least = 0.5 * v / np.sqrt(h.shape[-1] // self.heads), _least(params, self.threshold)
        whole = scale * k * _spectral_norm(params[f"{self.query}.weight"]), scale * q, _spectral_norm(weights)
        return tuple(norm / least for norm in whole)

    def synapses(self, widths: Widths, width: int, tokens: float) -> tuple[float, ...]:
        seen = self._seen(tokens)
        return (widths[0] * width, seen * width, seen * width)

    def operations(self, widths: Widths, width: int, tokens: float, rates: Arriving) -> Operations:
        # 1/√d is part of W_Q and of its bias; padding is left out. Each head has one softmax over the tokens.
        seen = self._seen(tokens)
        scores = self.heads * seen
        return [
            *_affine("query", widths[0], width, rates[0]),
            *_products("attention", seen * width, rates[1]),
            ("softmax", "compare", scores),
            ("softmax", "add", 2 * scores),
            ("softmax", "exponential", scores),
            ("softmax", "divide", self.heads),
            ("softmax", "multiply", scores),
            *_products("attention", seen * width, rates[2]),
            *_own_thresholds(self.threshold, width, rates[0]),
        ]

    def enclose(self, params: Parameters, reads: tuple[Enclosed, ...], mask: Array, precision: Precision) -> Enclosed:
        h, key, value = reads
        query = Linear(self.query).enclose(params, (h,), mask, precision)
        mask = self._visible(mask, h.value, key.value)
        weights = rounding.softmax(rounding.scores(query, key, self.heads, mask, precision), precision)
        return _enclosed(params, self.threshold, rounding.mix(weights, value, precision), precision, divide=True)


@dataclass(frozen=True)
class Norm:
    """``I = LayerNorm(x)``: what GPT-2's half-blocks read of the residual stream x. `name` is the common prefix."""

    name: str
    eps: float
    affine = False
    linear: ClassVar[tuple[bool, ...]] = (False,)

    def __call__(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        gamma, beta = f"{self.name}.weight", f"{self.name}.bias"
        y, norm_pullback = ops.layer_norm(reads[0], params[gamma], params[beta], self.eps)

        def pullback(dy: Array) -> Cotangents:
            dx, dgamma, dbeta = norm_pullback(dy)
            return (dx,), {gamma: dgamma, beta: dbeta}

        return y, pullback

    def shapes(self, widths: Widths, width: int) -> Shapes:
        return {f"{self.name}.weight": (width,), f"{self.name}.bias": (width,)}

    def norms(self, params: Parameters, reads: Reads, mask: Array) -> tuple[float, ...]:
        # Normalising is a projection divided by the standard deviation.
        least = reads[0].var(axis=-1).min() + self.eps
        return (float(np.abs(params[f"{self.name}.weight"]).max() / np.sqrt(least)),)

    def synapses(self, widths: Widths, width: int, tokens: float) -> tuple[float, ...]:
        return (0,)

    def operations(self, widths: Widths, width: int, tokens: float, rates: Arriving) -> Operations:
        return _layer_norm("normalisation", width)

    def enclose(self, params: Parameters, reads: tuple[Enclosed, ...], mask: Array, precision: Precision) -> Enclosed:
        gamma, beta = params[f"{self.name}.weight"], params[f"{self.name}.bias"]
        return rounding.layer_norm(reads[0], gamma, beta, self.eps, precision)


@dataclass(frozen=True)
class AddNorm:
    """Attention output and encoder output: ``I = LayerNorm(W a + b + residual)``; reads a and the residual.

    With `residual`, the name of a vector d, the residual comes through one synapse per feature: ``d ⊙ residual``.
    """

    dense: str
    norm: str
    eps: float
    residual: str | None = None
    affine = False
    linear: ClassVar[tuple[bool, ...]] = (True, True)

    @property
    def normalisation(self) -> Norm:
        """What the sum goes through."""
        return Norm(self.norm, self.eps)

    @property
    def dropout(self) -> str:
        """Name of the mask of the linear map's result, (B, N, width)."""
        return f"{self.dense}.dropout"

    def __call__(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        a, residual = reads
        linear, linear_pullback = Linear(self.dense)(params, (a,), mask)
        kept, dropout_pullback = _dropped(params, self.dropout, linear)
        arriving, residual_pullback = _scaled(params, self.residual, residual)
        y, norm_pullback = self.normalisation(params, (kept + arriving,), mask)

        def pullback(dy: Array) -> Cotangents:
            (dsum,), dnorm = norm_pullback(dy)
            (da,), dparams = linear_pullback(dropout_pullback(dsum))
            (dresidual,), dsynapses = residual_pullback(dsum)
            return (da, dresidual), Later(lambda: {**dparams, **dsynapses, **dnorm})

        return y, pullback

    def shapes(self, widths: Widths, width: int) -> Shapes:
        own: Shapes = {} if self.residual is None else {self.residual: (width,)}
        return Linear(self.dense).shapes(widths, width) | own | self.normalisation.shapes((width,), width)

    def norms(self, params: Parameters, reads: Reads, mask: Array) -> tuple[float, ...]:
        a, residual = reads
        weight = params[f"{self.dense}.weight"]
        linear, _ = ops.linear(a, weight, params[f"{self.dense}.bias"])
        total = linear + _scaled(params, self.residual, residual)[0]
        (norm,) = self.normalisation.norms(params, (total,), mask)
        synapses = 1.0 if self.residual is None else float(np.abs(params[self.residual]).max())
        return norm * _spectral_norm(weight), norm * synapses

    def synapses(self, widths: Widths, width: int, tokens: float) -> tuple[float, ...]:
        return (widths[0] * width, width)

    def operations(self, widths: Widths, width: int, tokens: float, rates: Arriving) -> Operations:
        # Analogue units have one scale for all features, and so no use for synapses of the residual.
        residual = ("add", width) if rates[1] is None else ("accumulate", width * rates[1])
        own = self.residual is not None and rates[1] is not None
        return [
            *_affine("linear", widths[0], width, rates[0]),
            ("residual", *residual),
            *[("residual", "read", width * (rates[1] or 0.0))] * own,
            *self.normalisation.operations((width,), width, tokens, (None,)),
        ]

    def enclose(self, params: Parameters, reads: tuple[Enclosed, ...], mask: Array, precision: Precision) -> Enclosed:
        a, residual = reads
        arriving = _enclosed(params, self.residual, residual, precision)
        total = rounding.add(Linear(self.dense).enclose(params, (a,), mask, precision), arriving, precision=precision)
        return self.normalisation.enclose(params, (total,), mask, precision)


@dataclass(frozen=True)
class Add:
    """What a half-block of GPT-2 adds to the residual stream x: ``I = W a + b + x``; reads a and x."""

    dense: str
    affine = True
    linear: ClassVar[tuple[bool, ...]] = (True, True)

    @property
    def dropout(self) -> str:
        """Name of the mask of the linear map's result, (B, N, width)."""
        return f"{self.dense}.dropout"

    def __call__(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        a, stream = reads
        linear, linear_pullback = Linear(self.dense)(params, (a,), mask)
        kept, dropout_pullback = _dropped(params, self.dropout, linear)

        def pullback(dy: Array) -> Cotangents:
            (da,), dparams = linear_pullback(dropout_pullback(dy))
            return (da, dy), dparams

        return kept + stream, pullback

    def shapes(self, widths: Widths, width: int) -> Shapes:
        return Linear(self.dense).shapes(widths, width)

    def norms(self, params: Parameters, reads: Reads, mask: Array) -> tuple[float, ...]:
        return _spectral_norm(params[f"{self.dense}.weight"]), 1.0

    def synapses(self, widths: Widths, width: int, tokens: float) -> tuple[float, ...]:
        return (widths[0] * width, 0)

    def operations(self, widths: Widths, width: int, tokens: float, rates: Arriving) -> Operations:
        return [*_affine("linear", widths[0], width, rates[0]), ("residual", "add", width)]

    def enclose(self, params: Parameters, reads: tuple[Enclosed, ...], mask: Array, precision: Precision) -> Enclosed:
        a, stream = reads
        return rounding.add(Linear(self.dense).enclose(params, (a,), mask, precision), stream, precision=precision)


@dataclass(frozen=True)
class Gelu:
    """Intermediate population: ``I = GELU(W a + b)``; with `threshold`, as `Attention` has it, I/θ.

    GELU is the exact form, as BERT has it, or, with `tanh`, GPT-2's.
    """

    name: str
    threshold: str | None = None
    tanh: bool = False
    affine = False
    linear: ClassVar[tuple[bool, ...]] = (True,)

    def __call__(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        linear, linear_pullback = Linear(self.name)(params, reads, mask)
        activity, gelu_pullback = (ops.gelu_tanh if self.tanh else ops.gelu)(linear)
        y, threshold_pullback = _in_thresholds(params, self.threshold, activity)

        def pullback(dy: Array) -> Cotangents:
            (dactivity,), dthreshold = threshold_pullback(dy)
            dreads, dparams = linear_pullback(gelu_pullback(dactivity))
            return dreads, Later(lambda: {**dparams, **dthreshold})

        return y, pullback

    def shapes(self, widths: Widths, width: int) -> Shapes:
        own: Shapes = {} if self.threshold is None else {self.threshold: (width,)}
        return Linear(self.name).shapes(widths, width) | own

    def norms(self, params: Parameters, reads: Reads, mask: Array) -> tuple[float, ...]:
        slope = 1.13 / _least(params, self.threshold)  # the largest slope of GELU is 1.129
        return (slope * _spectral_norm(params[f"{self.name}.weight"]),)

    def synapses(self, widths: Widths, width: int, tokens: float) -> tuple[float, ...]:
        return (widths[0] * width,)

    def operations(self, widths: Widths, width: int, tokens: float, rates: Arriving) -> Operations:
        own = _own_thresholds(self.threshold, width, rates[0])
        return [*_affine("linear", widths[0], width, rates[0]), ("gelu", "gelu", width), *own]

    def enclose(self, params: Parameters, reads: tuple[Enclosed, ...], mask: Array, precision: Precision) -> Enclosed:
        gelu = rounding.gelu_tanh if self.tanh else rounding.gelu
        current = gelu(Linear(self.name).enclose(params, reads, mask, precision), precision)
        return _enclosed(params, self.threshold, current, precision, divide=True)


@dataclass(frozen=True)
class Embeddings:
    """The constant input current: ``x = LayerNorm(word + position + token type)``.

    The word embedding of the padding token receives no gradient.
    """

    eps: float
    pad_token_id: int
    dropout: ClassVar[str] = "embeddings.dropout"  # name of the mask of x, (B, N, D)

    def __call__(self, params: Parameters, batch: Batch) -> tuple[Array, Callable[[Array], Gradients]]:
        positions = np.arange(batch.input_ids.shape[1])
        word, position, kind, gamma, beta = EMBEDDINGS
        w, word_pullback = ops.embedding(batch.input_ids, params[word], frozen_row=self.pad_token_id)  # (B, N, D)
        p, position_pullback = ops.embedding(positions, params[position])  # (N, D)
        k, kind_pullback = ops.embedding(batch.token_type_ids, params[kind])  # (B, N, D)
        x, norm_pullback = ops.layer_norm(w + p + k, params[gamma], params[beta], self.eps)
        kept, dropout_pullback = _dropped(params, self.dropout, x)

        def pullback(dx: Array) -> Gradients:
            dsum, dgamma, dbeta = norm_pullback(dropout_pullback(dx))
            found = {
                word: word_pullback.rows(dsum),
                position: position_pullback.rows(dsum.sum(axis=0)),
                kind: kind_pullback.rows(dsum),
                gamma: dgamma,
                beta: dbeta,
            }
            return Gradients(found)

        return kept, pullback

    def shapes(self, width: int) -> Shapes:
        """Names and shapes of the parameters; how many rows the tables have is not the network's business."""
        *tables, gamma, beta = EMBEDDINGS
        rows: Shapes = dict.fromkeys(tables, (None, width))
        return rows | {gamma: (width,), beta: (width,)}

    def operations(self, width: int) -> Operations:
        """Count one token's scalar operations: three table rows are normalised; word rows come from off-chip memory."""
        summed = [
            ("embeddings", "dram_read", width),
            ("embeddings", "read", 2 * width),
            ("embeddings", "add", 2 * width),
        ]
        return [*summed, *_layer_norm("embeddings", width), ("embeddings", "write", width)]

    def enclose(self, params: Parameters, batch: Batch, precision: Precision) -> Enclosed:
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
class TokenEmbeddings:
    """The constant input current of GPT-2: ``x = token + position``, the positions counted from `first`."""

    first: int = 0
    dropout: ClassVar[str] = "embeddings.dropout"  # name of the mask of x, (B, N, D)

    def _rows(self, batch: Batch) -> Array:
        return self.first + np.arange(batch.input_ids.shape[1])

    def __call__(self, params: Parameters, batch: Batch) -> tuple[Array, Callable[[Array], Gradients]]:
        token, token_pullback = ops.embedding(batch.input_ids, params["wte.weight"])  # (B, N, D)
        position, position_pullback = ops.embedding(self._rows(batch), params["wpe.weight"])  # (N, D)
        kept, dropout_pullback = _dropped(params, self.dropout, token + position)

        def pullback(dx: Array) -> Gradients:
            dsum = dropout_pullback(dx)
            rows = {"wte.weight": token_pullback.rows(dsum), "wpe.weight": position_pullback.rows(dsum.sum(axis=0))}
            return Gradients(rows)

        return kept, pullback

    def shapes(self, width: int) -> Shapes:
        """Names and shapes of the parameters; how many rows the tables have is not the network's business."""
        return {"wte.weight": (None, width), "wpe.weight": (None, width)}

    def operations(self, width: int) -> Operations:
        """Count one token's scalar operations: two table rows are added; token rows come from off-chip memory."""
        words = [("dram_read", width), ("read", width), ("add", width), ("write", width)]
        return [("embeddings", kind, number) for kind, number in words]

    def enclose(self, params: Parameters, batch: Batch, precision: Precision) -> Enclosed:
        """Return the input current with its a-priori rounding bound."""
        terms = params["wte.weight"][batch.input_ids], params["wpe.weight"][self._rows(batch)]
        return rounding.add(*map(Enclosed.exact, np.broadcast_arrays(*terms)), precision=precision)


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

    def _cut(self, reads: Reads) -> Reads:
        return tuple(read[..., :1, :] if cut else read for read, cut in zip(reads, self.cut, strict=True))

    def __call__(self, params: Parameters, reads: Reads, mask: Array) -> tuple[Array, Pullback]:
        y, first_pullback = self.projection(params, self._cut(reads), mask)

        def pullback(dy: Array) -> Cotangents:
            dfirst, dparams = first_pullback(dy)
            dreads = tuple(np.zeros(read.shape, dread.dtype) for read, dread in zip(reads, dfirst, strict=True))
            for whole, part in zip(self._cut(dreads), dfirst, strict=True):
                whole[...] = part  # a view
            return dreads, dparams

        return y, pullback

    def shapes(self, widths: Widths, width: int) -> Shapes:
        return self.projection.shapes(widths, width)

    def norms(self, params: Parameters, reads: Reads, mask: Array) -> tuple[float, ...]:
        return self.projection.norms(params, self._cut(reads), mask)

    def synapses(self, widths: Widths, width: int, tokens: float) -> tuple[float, ...]:
        return tuple(operations / tokens for operations in self.projection.synapses(widths, width, tokens))

    def operations(self, widths: Widths, width: int, tokens: float, rates: Arriving) -> Operations:
        all_positions = self.projection.operations(widths, width, tokens, rates)
        return [(term, kind, number / tokens) for term, kind, number in all_positions]

    def enclose(self, params: Parameters, reads: tuple[Enclosed, ...], mask: Array, precision: Precision) -> Enclosed:
        values, errors = (self._cut(part) for part in zip(*reads, strict=True))
        return self.projection.enclose(params, tuple(map(Enclosed, values, errors)), mask, precision)
