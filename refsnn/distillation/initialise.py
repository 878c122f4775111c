"""Where a student starts: at random, with its teacher's weights, or as a network that does what the teacher does.

A rate lies in [0, 1] and a hidden state of BERT does not, so a student that merely copies its teacher's weights loses
all that is negative or above the threshold. But every population's rate can be an affine image of the teacher's
activity, ``a = α ⊙ h + c``, with α and c such that all but a small fraction of the activities fall into [0, 1], and the
weights can take the images back (`absorb`). The converted student then computes what its teacher computes, except for
what is clipped and for the negative part of GELU; what these take away is made up for, as far as a linear map can, by
least squares (`refitted`). ``docs/initialisation.md`` derives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, get_args

import numpy as np

from ..errors import InputError, one_of
from ..model.batch import Batch, attention_mask
from ..model.families import bert
from ..model.network import INPUT, kind_of
from ..model.parameters import Params, initial_parameters
from ..model.projections import AddNorm
from ..model.shapes import BertConfig
from ..model.student import StudentConfig
from ..ops import Array
from ..readings.equilibrium import equilibrium
from ..readings.rate_map import activity, rate_map
from ..storage.recipe import Initialisation, Stream
from .student import layer_pairs
from .teacher import classify

__all__ = ["Affine", "absorb", "calibrated", "check_start", "converted", "copied", "initial_student", "refitted"]

#: How many sequences a conversion looks at, and how many tokens it takes the ranges of activities from.
SEQUENCES, TOKENS = 1536, 4096

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


def _activities(config: BertConfig, params: Mapping[str, Array], batches: Iterable[Batch]) -> dict[str, Array]:
    """Activities (tokens, width) of all populations of a BERT on the real tokens of some batches."""
    network = bert(config)
    parts: dict[str, list[Array]] = {population.name: [] for population in network.populations}
    tokens = 0
    for batch in batches:
        if tokens >= TOKENS:
            break
        activities, _ = rate_map(network, params, batch)
        real = batch.attention_mask.astype(bool)
        tokens += int(real.sum())
        for name in parts:
            parts[name].append(activities[name][real])
    return {name: np.concatenate(part) for name, part in parts.items()}


def calibrated(
    student: StudentConfig, activities: Mapping[str, Array], clipped: float
) -> tuple[dict[str, Affine], StudentConfig]:
    """Choose the image of every population, and the thresholds and initial potentials of those that GELU drives.

    GELU is not homogeneous, so its populations get no image but a threshold, above which a fraction `clipped` of the
    activities lies. Most of their neurons are silent, and a spike that a wrong current of the first steps causes is
    never taken back: their membranes start at 0, whatever the others do. The read-outs share one image, so that one
    `fit` gives the teacher's hidden states back.

    Parameters
    ----------
    student : StudentConfig
    activities : mapping
        Population -> (tokens, width) array, of the teacher's layers that the student is made from.
    clipped : float
        Fraction of the activities that may fall outside [0, 1].

    Returns
    -------
    images : dict
        Population -> Affine. `context`, a mean of values, has that of its values and is not listed.
    student : StudentConfig
        With the thresholds and initial potentials.
    """
    readouts = student.network.readouts
    images = dict.fromkeys(
        readouts,
        Affine.into_unit_interval(np.concatenate([activities[name] for name in readouts]), clipped, uniform=True),
    )
    own = {}
    for name, values in activities.items():
        kind = kind_of(name)
        if kind == "intermediate":
            threshold = max(float(np.quantile(values, 1 - clipped)), 1e-3)
            own[name] = {"vth": threshold, "u0": 0.0}
            images[name] = Affine.uniform(values.shape[1], 1 / threshold)
        elif kind in ("key", "value", "attention_output"):
            images[name] = Affine.into_unit_interval(values, clipped, uniform=kind == "attention_output")
    return images, replace(student, populations=own)


def converted(
    student: StudentConfig, teacher: Mapping[str, Array], batches: Sequence[Batch], clipped: float = 1e-2
) -> tuple[StudentConfig, Params]:
    """Turn the layers of a BERT into a spiking network whose rates are images of its activities.

    Parameters
    ----------
    student : StudentConfig
        As wide as the teacher.
    teacher : mapping
        Parameters under the student's names, as from `copied`.
    batches : sequence of Batch
        Text to see activities on: their ranges on the first 4096 tokens, and all for the least squares.
    clipped : float
        Fraction of the activities that may fall outside [0, 1]. The fewer, the coarser the rates after T steps.

    Returns
    -------
    student : StudentConfig
        With a threshold and an initial potential for every population that GELU drives.
    params : dict
        In the teacher's precision: all but classifier and feedback; ``fit`` maps rates back to hidden states.
    """
    images, student = calibrated(student, _activities(student.bert, teacher, batches), clipped)
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
        """Return what must be added to the rates of the residual so that the sum is a multiple of the teacher's."""
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
        context = Affine(value.scale / vth, value.shift / vth)
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
    return student, refitted(student, params, teacher, images, batches)


def refitted(
    student: StudentConfig,
    params: Params,
    teacher: Mapping[str, Array],
    images: Mapping[str, Affine],
    batches: Sequence[Batch],
) -> Params:
    """Make up for what clipping and GELU's lost part do, layer after layer, by least squares.

    Before every LayerNorm the sum ``W a + b + residual`` should be ``α`` times the teacher's, α being the residual's
    scale. With the student's own rates a and residual, as all layers before have left them, W and b are moved by what
    minimises the squared error on the real tokens, with a ridge on the change of W.

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
    params = dict(params)
    # Feedback starts as a small random matrix; the layers are made for what they read without it.
    network, analogue = replace(student, feedback=False).network, bert(student.bert)
    states = []
    for batch in batches:
        x, original = network.drive(params, batch)[0], analogue.drive(teacher, batch)[0]
        states.append(
            (batch.attention_mask.astype(bool), attention_mask(batch, x.dtype), {INPUT: x}, {INPUT: original})
        )
    readers = network.last_readers
    for ours, theirs in zip(network.populations, analogue.populations, strict=True):
        if isinstance(ours.projection, AddNorm):
            first, second = ours.reads
            samples = (
                (real, (rates[first], rates[second]), (activities[first], activities[second]))
                for real, _, rates, activities in states
            )
            params |= _least_squares(ours.projection.dense, params, teacher, images[second], samples)
        for _, mask, rates, activities in states:
            reads, originals = (tuple(known[name] for name in ours.reads) for known in (rates, activities))
            rates[ours.name], _ = activity(ours, params, reads, mask)
            activities[ours.name], _ = theirs.projection(teacher, originals, mask)
            for name in [name for name in rates if readers.get(name) == ours.name]:
                del rates[name], activities[name]  # nobody reads them any more
    return params


def _least_squares(
    dense: str,
    params: Mapping[str, Array],
    teacher: Mapping[str, Array],
    residual: Affine,
    samples: Iterable[tuple[Array, tuple[Array, ...], tuple[Array, ...]]],
) -> Params:
    """Move one dense map; a sample is where the real tokens are, and what student and teacher read there."""
    weight, bias = f"{dense}.weight", f"{dense}.bias"
    out, width = params[weight].shape
    count, mean_x, mean_e = 0, np.zeros(width), np.zeros(out)
    gram, cross = np.zeros((width, width)), np.zeros((width, out))
    for real, (a, own), (h, theirs) in samples:
        x = a[real].astype(np.float64)  # (tokens, in)
        wanted = residual.scale * (h[real] @ teacher[weight].T + teacher[bias] + theirs[real])
        error = wanted - (x @ params[weight].T + params[bias] + own[real])  # (tokens, out)
        count += len(x)
        mean_x += x.sum(axis=0)
        mean_e += error.sum(axis=0)
        gram += x.T @ x
        cross += x.T @ error
    mean_x, mean_e = mean_x / count, mean_e / count
    gram -= count * np.outer(mean_x, mean_x)
    cross -= count * np.outer(mean_x, mean_e)
    ridge = max(RIDGE * np.trace(gram) / width, np.finfo(float).tiny)
    change = np.linalg.solve(gram + ridge * np.eye(width), cross).T  # (out, in)
    dtype = params[weight].dtype
    return {
        weight: (params[weight] + change).astype(dtype),
        bias: (params[bias] + mean_e - change @ mean_x).astype(dtype),
    }


def _fitted_classifier(
    student: StudentConfig, params: Mapping[str, Array], batches: list[Batch], targets: Array
) -> Params:
    """Least squares from the [CLS] rates to the teacher's class scores, with a ridge of a thousandth per sequence."""
    network = student.network
    rates = np.concatenate([equilibrium(network, params, batch).rates[network.readouts[-1]][:, 0] for batch in batches])
    rates = rates.astype(np.float64)
    mean, centre = rates.mean(axis=0), targets.mean(axis=0)
    x = rates - mean
    weight = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1]), x.T @ (targets - centre)).T
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
    student, layers = converted(student, layers, batches)
    params |= layers
    if "classifier.weight" in teacher:
        targets = np.concatenate([classify(config, teacher, batch)[0] for batch in batches])
        classifier = _fitted_classifier(student, params, batches, targets)
        params |= {name: value.astype(np.float32) for name, value in classifier.items()}
    return student, params
