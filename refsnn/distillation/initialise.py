"""Where a student starts: at random, with its teacher's weights, or as a network that does what the teacher does.

A rate lies in [0, 1] and a hidden state of BERT does not, so a student that merely copies its teacher's weights loses
all that is negative or above the threshold. But every population's rate can be an affine image of the teacher's
activity, ``a = α ⊙ h + c``, with α and c such that all but a small fraction of the activities fall into [0, 1], and the
weights can take the images back (`absorb`). The converted student then computes what its teacher computes, except for
what is clipped and for the negative part of GELU; what these take away is made up for, as far as a linear map can, by
least squares (`refitted`). Where features have synapses and neurons thresholds of their own, every feature can use its
whole range; its maps are then fitted once more to what the neurons read in the first steps, by spikes (`settled`).
``docs/initialisation.md`` derives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np

from ..errors import InputError, one_of
from ..model.batch import Batch, attention_mask
from ..model.families import bert
from ..model.network import INPUT, Network, Population, first_position, kind_of
from ..model.neurons import fire
from ..model.parameters import Params, initial_parameters
from ..model.projections import AddNorm, Attention, Gelu, Linear
from ..model.shapes import BertConfig
from ..model.student import StudentConfig
from ..ops import Array
from ..parallel import each, rounds, threads
from ..progress import progress
from ..readings.equilibrium import equilibrium
from ..readings.rate_map import activity, rate_map
from ..readings.simulate import currents, simulate
from ..storage.recipe import Initialisation, Stream
from .student import layer_pairs
from .teacher import classify

__all__ = [
    "Affine",
    "absorb",
    "activities_on",
    "calibrated",
    "centred_where_contexts_lie",
    "check_start",
    "converted",
    "copied",
    "initial_student",
    "refitted",
    "settled",
]

#: How many sequences a conversion looks at, and how many tokens it takes the ranges of activities from.
SEQUENCES, TOKENS = 1536, 4096
#: How many tokens it fits its maps to: pairs of texts have so many in a few hundred sequences.
FITTED = 36_000
#: How many sequences it simulates to be fitted to few steps, or how many tokens.
SIMULATED, STEPPED = 512, 12_000
#: How often the rates that have settled count in that fit, beside those of three times. Least squares believes noisy
#: rates less, and maps fitted to the first steps alone still do so when the noise has gone.
AT_REST = 2
#: How much [CLS] counts there in the last encoder, of which class scores need nothing else, beside all other tokens.
CLS = 1 / 3

#: Ridge of the least squares, relative to the mean variance of what is regressed on.
RIDGE = 1e-2


class Affine(NamedTuple):
    """The image ``α ⊙ h + c`` of an activity h; both are (width,) arrays."""

    scale: Array
    shift: Array

    @classmethod
    def uniform(cls, width: int, scale: float = 1.0) -> Affine:
        """Return the multiple by one number."""
        return cls(np.full(width, scale), np.zeros(width))

    @classmethod
    def into_unit_interval(cls, activity: Array, clipped: float, uniform: bool = False) -> Affine:
        """Map all but a fraction `clipped` of the rows of `activity` into [0, 1], symmetrically about ½.

        Parameters
        ----------
        activity : (n, width) array
        clipped : float
            In [0, 1).
        uniform : bool
            One α for all features, as a residual sum that is normalised afterwards needs it; the fraction is then
            taken over all features together.

        Returns
        -------
        map : Affine

        Examples
        --------
        >>> scale, shift = Affine.into_unit_interval(np.array([[-1.0, 0.0], [3.0, 1.0]]), 0.0)
        >>> scale, shift
        (array([0.25, 1.  ]), array([0.25, 0.  ]))
        """
        low, high = np.quantile(activity, [clipped / 2, 1 - clipped / 2], axis=0)
        middle, half = (low + high) / 2, (high - low) / 2
        if uniform:
            half = np.full_like(half, np.quantile(np.abs(activity - middle), 1 - clipped))
        scale = 0.5 / np.maximum(half, np.finfo(np.float32).eps)
        return cls(scale, 0.5 - scale * middle)

    def onto(self, low: float) -> Affine:
        """Return the image of [0, 1] in [low, 1] in the place of this one."""
        return Affine(self.scale * (1 - low), self.shift * (1 - low) + low)

    def times(self, factor: float) -> Affine:
        """Return the image multiplied by a number: currents are V_th times rates."""
        return Affine(self.scale * factor, self.shift * factor)


def absorb(weight: Array, bias: Array, source: Affine, target: Affine) -> tuple[Array, Array]:
    """Change a linear map so that it reads the image of its input and gives the image of its output.

    ``W' = diag(α_t) W diag(1/α_s)`` and ``b' = α_t ⊙ (b − W (c_s/α_s)) + c_t``, so that
    ``W' (α_s ⊙ h + c_s) + b' = α_t ⊙ (W h + b) + c_t``.

    Parameters
    ----------
    weight : (out, in) array
    bias : (out,) array
    source, target : Affine
        Of widths in and out.

    Returns
    -------
    weight, bias : arrays

    Examples
    --------
    >>> half, shifted = Affine.uniform(2, 0.5), Affine(np.ones(1), np.ones(1))
    >>> absorb(np.array([[1.0, 2.0]]), np.zeros(1), half, shifted)
    (array([[2., 4.]]), array([1.]))
    """
    weight = weight.astype(np.float64)
    taken = weight / source.scale
    return target.scale[:, None] * taken, target.scale * (bias - taken @ source.shift) + target.shift


def copied(student: StudentConfig, teacher: Mapping[str, Array], pairs: list[int]) -> Params:
    """Take from a teacher what has the name of a student's parameter: encoder e is the teacher's number pairs[e+1].

    Parameters
    ----------
    student : StudentConfig
    teacher : mapping
    pairs : list of int
        As from `refsnn.distillation.student.layer_pairs`.

    Returns
    -------
    params : dict
        Without `fit`, classifier and feedback.
    """
    params = {}
    for name in student.shapes:
        source = name
        if name.startswith("encoder.layer."):
            _, _, layer, rest = name.split(".", 3)
            source = f"encoder.layer.{pairs[int(layer) + 1] - 1}.{rest}"
        if source in teacher and not name.startswith("classifier."):
            params[name] = teacher[source].copy()
    return params


def activities_on(
    network: Network, params: Mapping[str, Array], batches: Iterable[Batch], names: Collection[str]
) -> dict[str, Array]:
    """Look at what an analogue network does on the real tokens of some text, the first `TOKENS` or so.

    Parameters
    ----------
    network : Network
    params : mapping
    batches : iterable of Batch
        No more are made than are looked at.
    names : collection of str
        Populations.

    Returns
    -------
    activities : dict
        Population -> (tokens, width) array.
    """
    parts: dict[str, list[Array]] = {name: [] for name in names}
    tokens = 0
    for batch in _first(batches, TOKENS):
        activities, _ = rate_map(network, params, batch)
        real = batch.attention_mask.astype(bool)
        tokens += int(real.sum())
        for name in parts:
            parts[name].append(activities[name][real])
    if not tokens:
        raise InputError("there is no text to see the teacher's activities on")
    return {name: np.concatenate(part) for name, part in parts.items()}


def calibrated(
    student: StudentConfig, activities: Mapping[str, Array], clipped: float
) -> tuple[dict[str, Affine], StudentConfig]:
    """Choose the image of every population, and the thresholds and initial potentials of those that GELU drives.

    GELU is not homogeneous, so its populations get no image but a threshold, above which a fraction `clipped` of the
    activities lies: one, or each neuron its own where the student has these. Most of their neurons are silent, and a
    spike that a wrong current of the first steps causes is never taken back by unsigned neurons: their membranes start
    at 0, whatever the others do. The read-outs share one image, so that one `fit` gives the teacher's hidden states
    back.

    Parameters
    ----------
    student : StudentConfig
    activities : mapping
        Population -> (tokens, width) array, of the teacher's layers that the student is made from.
    clipped : float
        Fraction of the activities that may fall outside [0, 1], or [−1, 1] for ternary neurons.

    Returns
    -------
    images : dict
        Population -> Affine. `context`, a mean of values, has that of its values, divided by V_th, unless its neurons
        have thresholds of their own.
    student : StudentConfig
        With the thresholds and initial potentials.
    """
    low, uniform = student.neuron.low, not student.per_feature
    readouts = student.network.readouts
    shared = Affine.into_unit_interval(np.concatenate([activities[name] for name in readouts]), clipped, uniform)
    images = dict.fromkeys(readouts, shared.onto(low))
    own: dict[str, dict[str, float]] = {}
    for name, values in activities.items():
        kind = kind_of(name)
        if kind == "intermediate":
            size = np.quantile(np.abs(values) if low else values, 1 - clipped, axis=None if uniform else 0)
            threshold = np.maximum(np.asarray(size, np.float64), 1e-3)
            own[name] = {"vth": float(threshold)} if uniform else {}
            own[name] |= {} if student.neuron.signed else {"u0": 0.0}
            images[name] = Affine(np.broadcast_to(1 / threshold, values.shape[1:]), np.zeros(values.shape[1]))
        elif kind in ("key", "value", "attention_output"):
            whole = uniform and kind == "attention_output"
            images[name] = Affine.into_unit_interval(values, clipped, uniform=whole).onto(low)
        elif kind == "context" and not uniform:
            value = name.replace("context", "value")
            if low:
                images[value], images[name] = centred_where_contexts_lie(activities[value], values, clipped)
            else:
                images[name] = images[value].times(1 / student.neuron.vth)
    return images, replace(student, populations={name: constants for name, constants in own.items() if constants})


def centred_where_contexts_lie(values: Array, contexts: Array, clipped: float) -> tuple[Affine, Affine]:
    """Choose images of values and of contexts, which are means of values and vary less, for ternary neurons.

    Both are 0 in the middle of the contexts, so that neurons without a message are silent.

    Parameters
    ----------
    values, contexts : (n, width) arrays
        Activities.
    clipped : float
        Fraction of the activities that may fall outside [−1, 1].

    Returns
    -------
    value, context : Affine
    """
    middle = np.quantile(contexts, [clipped / 2, 1 - clipped / 2], axis=0).mean(axis=0)
    least = np.finfo(np.float32).eps
    ranges = (np.quantile(np.abs(x - middle), 1 - clipped, axis=0) for x in (values, contexts))
    scales = [1 / np.maximum(size, least) for size in ranges]
    return Affine(scales[0], -scales[0] * middle), Affine(scales[1], -scales[1] * middle)


def converted(
    student: StudentConfig,
    teacher: Mapping[str, Array],
    batches: Sequence[Batch],
    clipped: float = 1e-2,
    t_conv: int | None = None,
) -> tuple[StudentConfig, Params]:
    """Turn the layers of a BERT into a spiking network whose rates are images of its activities.

    Parameters
    ----------
    student : StudentConfig
        As wide as the teacher.
    teacher : mapping
        Parameters under the student's names, as from `copied`.
    batches : sequence of Batch
        Text to see activities on: their ranges on the first 4096 tokens, and the first 36,000 for the least squares.
    clipped : float
        Fraction of the activities that may fall outside [0, 1]. The fewer, the coarser the rates after T steps.
    t_conv : int, optional
        T of `settled`, where features have scales of their own; without it they are not fitted to spikes.

    Returns
    -------
    student : StudentConfig
        With a threshold and, of unsigned neurons, an initial potential for every population that GELU drives.
    params : dict
        In the teacher's precision: all but classifier and feedback; ``fit`` maps rates back to hidden states.
    """
    network = bert(student.bert)
    seen = activities_on(network, teacher, batches, [population.name for population in network.populations])
    images, student = calibrated(student, seen, clipped)
    params = {name: np.asarray(value) for name, value in teacher.items()}
    vth = student.neuron.vth

    def linear(name: str, source: Affine, target: Affine) -> None:
        weight, bias = f"{name}.weight", f"{name}.bias"
        params[weight], params[bias] = absorb(params[weight], params[bias], source, target)

    def norm(name: str, target: Affine) -> None:
        target = target.times(vth)
        params[f"{name}.weight"] = target.scale * params[f"{name}.weight"]
        params[f"{name}.bias"] = target.scale * params[f"{name}.bias"] + target.shift

    def residual(image: Affine) -> Affine:
        """Return what must be added to the rates of the residual so that the sum is a multiple of the teacher's.

        Through synapses of its own, 1/α, it is the teacher's itself.
        """
        if student.per_feature:
            return Affine(np.ones_like(image.scale), -image.shift / image.scale)
        return Affine(image.scale, -image.shift)

    norm("embeddings.LayerNorm", images["embeddings"])
    h = images["embeddings"]
    for e in range(student.bert.num_hidden_layers):
        layer, population = f"encoder.layer.{e}", f"encoder.{e}"
        key, value, attended, inner, out = (
            images[f"{population}.{kind}"] for kind in ("key", "value", "attention_output", "intermediate", "output")
        )
        linear(f"{layer}.attention.self.query", h, Affine(1 / key.scale, np.zeros_like(key.shift)))
        linear(f"{layer}.attention.self.key", h, key.times(vth))
        linear(f"{layer}.attention.self.value", h, value.times(vth))
        # The context population's current is a mean of values' rates: V_th scales it once more than theirs.
        context = images.get(f"{population}.context", Affine(value.scale / vth, value.shift / vth))
        if student.per_feature:
            params[f"{layer}.attention.self.threshold"] = value.scale / (vth * context.scale)
            params[f"{layer}.attention.output.residual.weight"] = 1 / h.scale
            params[f"{layer}.intermediate.threshold"] = 1 / (vth * inner.scale)
            params[f"{layer}.output.residual.weight"] = 1 / attended.scale
        linear(f"{layer}.attention.output.dense", context, residual(h))
        norm(f"{layer}.attention.output.LayerNorm", attended)
        linear(f"{layer}.intermediate.dense", attended, Affine.uniform(student.bert.intermediate_size))
        linear(f"{layer}.output.dense", inner, residual(attended))
        norm(f"{layer}.output.LayerNorm", out)
        h = out
    # h = (a − c)/α
    params["fit.weight"], params["fit.bias"] = np.diag(1 / h.scale), -h.shift / h.scale
    dtype = teacher["embeddings.LayerNorm.weight"].dtype
    params = {name: value.astype(dtype, copy=False) for name, value in params.items()}
    fitted = list(_first(batches, FITTED))
    params = refitted(student, params, teacher, images, fitted)
    if student.per_feature and t_conv is not None:
        params = settled(student, params, teacher, images, fitted, t_conv)
    return student, params


def _first(batches: Iterable[Batch], tokens: int, sequences: float = math.inf) -> Iterator[Batch]:
    """Yield batches up to the one that brings so many tokens or so many sequences, and make no more."""
    for batch in batches:
        yield batch
        tokens -= int(batch.attention_mask.sum())
        sequences -= len(batch.input_ids)
        if tokens <= 0 or sequences <= 0:
            return


def refitted(
    student: StudentConfig,
    params: Params,
    teacher: Mapping[str, Array],
    images: Mapping[str, Affine],
    batches: Sequence[Batch],
) -> Params:
    """Make up for what clipping and GELU's lost part do, layer after layer, by least squares.

    Before every LayerNorm the sum ``W a + b + residual`` should be ``α`` times the teacher's, α being the residual's
    scale, or 1 where the residual has synapses of its own. With the student's own rates a and residual, as all layers
    before have left them, W and b are moved by what minimises the squared error on the real tokens, with a ridge on the
    change of W.

    Parameters
    ----------
    student : StudentConfig
        With thresholds.
    params : dict
        Of a converted student.
    teacher : mapping
        Under the student's names.
    images : mapping
        As from `calibrated`.
    batches : sequence of Batch

    Returns
    -------
    params : dict
        Others for the dense maps before every LayerNorm.
    """

    def rates(population: Population, params: Params, reads: tuple[Known, ...], mask: Array) -> Known:
        return (activity(population, params, tuple(known[0] for known in reads), mask)[0],)

    def off(population: Population, params: Params, reads: tuple[Known, ...], theirs: tuple[Array, ...]) -> Error:
        wide = reads[0][0].astype(np.float64), *(known[0] for known in reads[1:])
        return _errors(population, params, teacher, images, wide, theirs)

    return _layer_by_layer(student, params, teacher, batches, rates, off, {"attention_output", "output"})


def settled(
    student: StudentConfig,
    params: Params,
    teacher: Mapping[str, Array],
    images: Mapping[str, Affine],
    batches: Sequence[Batch],
    t_conv: int,
) -> Params:
    """Fit all linear maps of a converted student to what its neurons read after few steps.

    Like `refitted`, but beside the rates that have settled there are those of T/2, 3T/4 and T steps of a simulation by
    the rule ``running``, of the first part of the text, and all six maps of an encoder are moved: query, key, value,
    both sums before a LayerNorm, and what GELU reads. Each is to give what the teacher has, from any of these rates.
    Those that have settled count, all together, twice as much as those after each number of steps; and in the last
    encoder [CLS], which class scores are read from, a third as much as all other tokens of its sequence.

    Parameters
    ----------
    student, params, teacher, images, batches
        As for `refitted`.
    t_conv : int
        T.

    Returns
    -------
    params : dict
    """
    times, simulated = _settling(t_conv), _simulated(batches)
    dtype = params["embeddings.LayerNorm.weight"].dtype
    tokens = [int(batch.attention_mask.sum()) for batch in batches]
    at_rest = AT_REST * sum(tokens[:simulated]) / sum(tokens)
    sequences = sum(len(batch.input_ids) for batch in batches)
    first = max(1.0, CLS * (sum(tokens) - sequences) / sequences)

    def rates_and_spikes(population: Population, params: Params, reads: tuple[Known, ...], mask: Array) -> Known:
        rates = activity(population, params, tuple(known[0] for known in reads), mask)[0]
        if len(reads[0]) == 1:
            return (rates,)
        assert population.neuron is not None
        current = currents(population, params, tuple(known[1] for known in reads), mask, t_conv)
        return rates, fire(current, population.neuron)[0].astype(np.int8)  # a quarter of the memory

    def off(population: Population, params: Params, reads: tuple[Known, ...], theirs: tuple[Array, ...]) -> Error:
        found = tuple(
            np.stack([rates, *(spikes[:t].mean(axis=0, dtype=dtype) for spikes in spiked for t in times)])
            for rates, *spiked in reads
        )
        error = _errors(population, params, teacher, images, found, theirs)
        weights = np.ones((len(found[0]), 1), dtype)
        weights[0] = at_rest
        return error._replace(weights=weights)

    kinds = {"key", "value", "context", "attention_output", "intermediate", "output"}
    return _layer_by_layer(student, params, teacher, batches, rates_and_spikes, off, kinds, simulated, first)


def _simulated(batches: Sequence[Batch]) -> int:
    """Count the batches, from the first, that a fit to few steps simulates."""
    return len(list(_first(batches, STEPPED, SIMULATED)))


def _settling(t_conv: int) -> list[int]:
    """Return times at which rates are still on their way: T/2, 3T/4 and T."""
    return sorted({max(t_conv // 2, 1), max(3 * t_conv // 4, 1), t_conv})


#: What a fit knows of a population: its rates in the rate map, and its spikes where it is simulated.
Known = tuple[Array, ...]


class Error(NamedTuple):
    """By how much the results of one linear map are off."""

    name: str
    reads: Array  #: (..., in)
    off: Array  #: (..., out)
    weights: Array  #: how much each counts, of the leading shape or one that becomes it


def _errors(
    population: Population,
    params: Params,
    teacher: Mapping[str, Array],
    images: Mapping[str, Affine],
    own: tuple[Array, ...],
    theirs: tuple[Array, ...],
) -> Error:
    """Compare the linear map of a population with what the teacher's activities say it should give."""
    projection = population.projection
    extra: Array | float = 0.0
    if isinstance(projection, AddNorm):
        name = projection.dense
        scale = images[population.reads[1]].scale if projection.residual is None else 1.0
        wanted = scale * (_linear(teacher, name, theirs[0]) + theirs[1])
        extra = own[1] if projection.residual is None else params[projection.residual] * own[1]
    elif isinstance(projection, Attention):
        name = projection.query
        wanted = _linear(teacher, name, theirs[0]) / images[population.reads[1]].scale
    else:
        assert isinstance(projection, Linear | Gelu) and population.neuron is not None
        name = projection.name
        wanted = _linear(teacher, name, theirs[0])
        if isinstance(projection, Linear):
            image = images[population.name].times(population.neuron.vth)
            wanted = image.scale * wanted + image.shift
    x = own[0]  # (..., tokens, in)
    off = wanted - (x @ params[f"{name}.weight"].T + params[f"{name}.bias"] + extra)
    return Error(name, x, off, np.ones(1, x.dtype))


def _linear(params: Mapping[str, Array], name: str, x: Array) -> Array:
    y: Array = x @ params[f"{name}.weight"].T + params[f"{name}.bias"]
    return y


def _layer_by_layer(
    student: StudentConfig,
    params: Params,
    teacher: Mapping[str, Array],
    batches: Sequence[Batch],
    respond: Callable[[Population, Params, tuple[Known, ...], Array], Known],
    off: Callable[[Population, Params, tuple[Known, ...], tuple[Array, ...]], Error],
    kinds: Collection[str],
    simulated: int = 0,
    first: float = 1.0,
) -> Params:
    """Fit the maps of some kinds of populations, one after the other, each to what those before give by now.

    Of the first `simulated` batches two things are known of the input, and so may be of all populations. In the last
    encoder, from its context on, the first position of a sequence counts `first` times.
    """
    params = dict(params)
    # Feedback starts as a small random matrix; the layers are made for what they read without it.
    network, analogue = replace(student, feedback=False).network, bert(student.bert)
    states = []
    for number, batch in enumerate(batches):
        x, original = network.drive(params, batch)[0], analogue.drive(teacher, batch)[0]
        known = (x, x) if number < simulated else (x,)
        states.append(
            (batch.attention_mask.astype(bool), attention_mask(batch, x.dtype), {INPUT: known}, {INPUT: original})
        )
    readers = network.last_readers
    names = [population.name for population in network.populations]
    last = names[names.index(network.contexts[-1]) :]
    populations = list(zip(network.populations, analogue.populations, strict=True))
    for ours, theirs in progress("conversion", "population", items=populations, leave=False):
        if ours.kind in kinds:

            def errors(state: Any, at: tuple[Population, Params] = (ours, params)) -> Error:
                (mine, fitted), (real, _, own, other) = at, state
                reads = tuple(tuple(x[..., real, :] for x in own[name]) for name in mine.reads)
                error = off(mine, fitted, reads, tuple(other[name][real] for name in mine.reads))
                counts = np.ones(real.shape, error.weights.dtype)
                if mine.name in last:
                    counts[:, 0] = first
                return error._replace(weights=error.weights * counts[real])

            params |= _least_squares(params, errors, states)

        def both(state: Any, at: tuple[Population, Population, Params] = (ours, theirs, params)) -> tuple[Known, Array]:
            (mine, analogous, fitted), (_, mask, own, other) = at, state
            reads, originals = (tuple(known[name] for name in mine.reads) for known in (own, other))
            return respond(mine, fitted, reads, mask), analogous.projection(teacher, originals, mask)[0]

        for (_, _, own, other), found in zip(states, each(both, states, threads()), strict=True):
            own[ours.name], other[ours.name] = found
            for name in [name for name in own if readers.get(name) == ours.name]:
                del own[name], other[name]  # nobody reads them any more
    return params


def _least_squares(params: Mapping[str, Array], errors: Callable[[Any], Error], samples: Sequence[Any]) -> Params:
    """Move one linear map, of which every sample's errors tell the name, what it reads and by how much it is off."""

    def moments(sample: Any) -> tuple[str, float, list[Array]]:
        name, reads, off, weights = errors(sample)
        w = np.broadcast_to(weights, reads.shape[:-1]).reshape(-1, 1)
        x, error = reads.reshape(-1, reads.shape[-1]), off.reshape(-1, off.shape[-1])
        weighted = x * w
        sums = weighted.sum(axis=0), w[:, 0] @ error, weighted.T @ x, weighted.T @ error
        return name, float(w.sum(dtype=np.float64)), [np.asarray(part, np.float64) for part in sums]

    moved, count, sums = "", 0.0, None
    for found in rounds(moments, samples, threads()):
        for moved, weight, parts in found:  # noqa: B007 - all have one name
            count += weight
            sums = parts if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
    assert sums is not None
    (mean_x, mean_e), gram, cross = (total / count for total in sums[:2]), sums[2], sums[3]
    gram -= count * np.outer(mean_x, mean_x)
    cross -= count * np.outer(mean_x, mean_e)
    width, matrix, bias = len(mean_x), f"{moved}.weight", f"{moved}.bias"
    ridge = max(RIDGE * np.trace(gram) / width, np.finfo(float).tiny)
    change = np.linalg.solve(gram + ridge * np.eye(width), cross).T  # (out, in)
    dtype = params[matrix].dtype
    return {
        matrix: (params[matrix] + change).astype(dtype),
        bias: (params[bias] + mean_e - change @ mean_x).astype(dtype),
    }


def _fitted_classifier(
    student: StudentConfig, params: Mapping[str, Array], batches: list[Batch], targets: Array, times: Sequence[int]
) -> Params:
    """Least squares from the [CLS] rates to the teacher's class scores, with a ridge of a thousandth per sequence.

    The rates are those of the rate map and, where `times` names some, those after so many steps, as `settled` has them.
    """
    network = first_position(student.network)
    last, simulated = network.readouts[-1], _simulated(batches) if times else 0

    def cls(numbered: tuple[int, Batch]) -> list[Array]:
        number, batch = numbered
        rates = [equilibrium(network, params, batch).rates[last][:, 0]]
        if number < simulated:
            found = simulate(network, params, batch, times, "running", keep=[last])
            rates += [found[t][last][:, 0] for t in times]
        bar.update()
        return rates

    with progress("classifier", "batch", len(batches), leave=False) as bar:
        found = each(cls, list(enumerate(batches)), threads())
    spiking = [np.concatenate(at) for at in zip(*(rates[1:] for rates in found[:simulated]), strict=True)]
    rates = np.concatenate([at[0] for at in found] + spiking).astype(np.float64)
    few = len(spiking[0]) if spiking else 0
    weights = np.ones(len(rates))
    if few:
        weights[: len(targets)] = AT_REST * few / len(targets)
    targets = np.concatenate([targets] + [targets[:few]] * len(spiking))
    mean, centre = (np.average(values, axis=0, weights=weights) for values in (rates, targets))
    x = rates - mean
    weighted = x * weights[:, None]
    ridge = 1e-3 * weights.sum() * np.eye(x.shape[1])
    weight = np.linalg.solve(weighted.T @ x + ridge, weighted.T @ (targets - centre)).T
    return {"classifier.weight": weight, "classifier.bias": centre - weight @ mean}


def check_start(student: StudentConfig, config: BertConfig, method: Initialisation) -> None:
    """Make sure that a student can start as it should.

    Parameters
    ----------
    student : StudentConfig
    config : BertConfig
        The teacher's.
    method : {"random", "teacher", "converted"}

    Raises
    ------
    InputError
        The student has not the teacher's sizes, and the method needs that.
    """
    one_of("init", method, get_args(Initialisation))
    for name in ("hidden_size", "intermediate_size", "num_attention_heads") if method != "random" else ():
        ours, theirs = getattr(student.bert, name), getattr(config, name)
        if ours != theirs:
            raise InputError(
                f"the student has {name} {ours} and the teacher {theirs}, so it cannot start from the teacher's "
                "weights; start it at random (init = random)"
            )


def initial_student(
    student: StudentConfig,
    config: BertConfig,
    teacher: Mapping[str, Array],
    method: Initialisation,
    seed: int,
    batches: Iterable[Batch],
    t_conv: int | None = None,
    clipped: float = 1e-2,
) -> tuple[StudentConfig, Params]:
    """Make the parameters that a student's training starts from.

    Parameters
    ----------
    student : StudentConfig
    config : BertConfig
        The teacher's.
    teacher : mapping
        Its parameters.
    method : {"random", "teacher", "converted"}
        BERT's random initialisation; the teacher's embeddings and layers as they are, encoder e from the teacher's
        number (e+1)·M/N, and the identity for `fit`; or these converted, with a classifier fitted to the teacher's
        scores by least squares, if the teacher has one.
    seed : int
        Decides what is random; with `converted` the feedback and a missing classifier only.
    batches : iterable of Batch
        Text for the conversion.
    t_conv : int, optional
    clipped : float
        See `converted`.

    Returns
    -------
    student : StudentConfig
        With thresholds and initial potentials where converted.
    params : dict

    Raises
    ------
    InputError
        The student has not the teacher's sizes, and the method needs that.

    Examples
    --------
    >>> student = StudentConfig(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2), 16, 2)
    >>> initial_student(student, BertConfig(hidden_size=16, num_attention_heads=2), {}, "teacher", 0, [])
    Traceback (most recent call last):
    refsnn.errors.InputError: the student has hidden_size 8 and the teacher 16, so it cannot start from the teacher's \
weights; start it at random (init = random)
    """
    check_start(student, config, method)
    params = initial_parameters(student.shapes, Stream.STUDENT.rng(seed), student.bert.initializer_range)
    if method == "random":
        return student, params
    layers = copied(student, teacher, layer_pairs(student.bert.num_hidden_layers, config.num_hidden_layers))
    if method == "teacher":
        params["fit.weight"] = np.eye(student.teacher_width, dtype=np.float32)
        return student, params | layers
    batches = list(batches)
    student, layers = converted(student, layers, batches, clipped, t_conv)
    params |= layers
    if "classifier.weight" in teacher:
        targets = np.concatenate(each(lambda batch: classify(config, teacher, batch)[0], batches, threads()))
        times = _settling(t_conv) if student.per_feature and t_conv is not None else ()
        classifier = _fitted_classifier(student, params, batches, targets, times)
        params |= {name: value.astype(np.float32) for name, value in classifier.items()}
    return student, params
