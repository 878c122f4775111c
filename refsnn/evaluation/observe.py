"""The numbers of one sentence: what its tokens' spikes and rates do over time, beside its teacher."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import ops
from ..data.metrics import answer
from ..data.tasks import Task
from ..distillation.student import layer_pairs, logits
from ..distillation.teacher import classify, encode
from ..errors import InputError
from ..model.batch import Batch
from ..model.parameters import Params
from ..model.shapes import BertConfig
from ..model.student import StudentConfig
from ..ops import Array
from ..readings.equilibrium import equilibrium
from ..readings.rate_map import scores
from ..readings.simulate import Rule, spike_steps
from ..storage.run import Run

__all__ = [
    "Observation",
    "Sentence",
    "Trace",
    "follow",
    "observe",
    "read_sentence",
]

#: What the raster shows at most; the neurons are per token.
RASTER_NEURONS = 12
RASTER_TOKENS = 40
RASTER_STEPS = 64


class Trace(NamedTuple):
    """What one sentence's simulation shows; time runs along axis 0.

    Attributes
    ----------
    distance : dict
        Population -> (T,) array, distance of the ASR after t steps from the rate map, mean over tokens and neurons.
    probabilities : (T, classes) array
        Softmax of the class scores from the rates after t steps; of a regression the score itself.
    limit : (classes,) array
        The same from the rate map.
    spikes : dict
        Population -> (steps, tokens, neurons) array of 0 and 1: the first steps and tokens of neurons at evenly spaced
        ranks of activity, the busiest first.
    """

    distance: dict[str, Array]
    probabilities: Array
    limit: Array
    spikes: dict[str, Array]


def follow(
    config: StudentConfig, params: Params, ids: Sequence[int], kinds: Sequence[int], t_conv: int, rule: Rule
) -> Trace:
    """Simulate one sentence and record how its rates settle.

    Parameters
    ----------
    config : StudentConfig
    params : dict
    ids, kinds : sequences of int
        Token ids and token types.
    t_conv : int
    rule : {"inst", "running"}

    Returns
    -------
    trace : Trace
    """
    network = config.network
    batch = Batch(np.array([ids]), np.array([kinds]), np.ones((1, len(ids)), int))
    rates = equilibrium(network, params, batch).rates
    last = network.readouts[-1]
    shown = ("embeddings", network.contexts[-1], last)
    distance: dict[str, list[float]] = {population.name: [] for population in network.populations}
    cls: list[Array] = []
    raster: dict[str, list[Array]] = {name: [] for name in shown}
    for t, spikes, asr in spike_steps(network, params, batch, t_conv, rule):
        for name, rate in asr.items():
            distance[name].append(np.abs(rate - rates[name]).mean())
        cls.append(asr[last][0, :1])  # (1, D): [CLS] is all that the classifier reads
        if t <= RASTER_STEPS:
            for name in shown:
                raster[name].append(spikes[name][0, :RASTER_TOKENS].astype(np.int8))
    return Trace(
        {name: np.array(values) for name, values in distance.items()},
        answer(logits(params, np.array(cls), network.rectified)[0]),
        answer(logits(params, rates[last], network.rectified)[0])[0],
        {name: _sample(np.array(steps)) for name, steps in raster.items()},
    )


def _sample(spikes: Array) -> Array:
    """Neurons at evenly spaced ranks of activity, the busiest first."""
    ranked = np.argsort(-np.abs(spikes).sum(axis=(0, 1)), kind="stable")
    places = np.linspace(0, len(ranked) - 1, min(RASTER_NEURONS, len(ranked))).astype(int)
    return spikes[..., ranked[places]]


#: Neurons shown of each population, at least and at most; and rows of a raster that is not too tall.
FEWEST = 6

MOST = 12

ROWS = 200


@dataclass(frozen=True)
class Sentence:
    """A sentence, or a pair, as the network reads it.

    Attributes
    ----------
    texts : tuple of str
        One or two.
    tokens : list of str
    ids, kinds : lists of int
        Token ids and token types.
    left_out : int
        Tokens at the end (of the longer sentence of a pair) that are over the limit of length.
    label : int, float or None
        Index of the true class, or true score, where known.
    """

    texts: tuple[str, ...]
    tokens: list[str]
    ids: list[int]
    kinds: list[int]
    left_out: int
    label: float | None


@dataclass(frozen=True)
class Observation:
    """What the page shows of one sentence. Time runs along axis 0; an answer is class probabilities, or the score.

    Attributes
    ----------
    distance : dict
        Population -> (T,) array, distance of the ASR after t steps from the rate map, mean over tokens and neurons.
    firing : dict
        Population -> (T,) array, magnitude of the ASR after t steps, mean over tokens and neurons.
    settled : dict
        Population -> that mean of the rate map.
    spikes : dict
        Population -> (T, tokens, neurons) array of −1, 0 and 1: neurons at evenly spaced ranks of their rate at the
        equilibrium, the busiest first.
    rates : dict
        Population -> (tokens, neurons) array: rates of the same neurons at equilibrium.
    answers : (T, classes) array
        From the rates after t steps.
    limit, teacher : (classes,) arrays
        From the rate map, and by the teacher.
    attention, teacher_attention : lists of (heads, N, N) arrays
        Attention weights at equilibrium of every encoder, and of the teacher's layer it is paired with.
    layers : list of int
        Numbers of these layers, counted from 1.
    """

    distance: dict[str, Array]
    firing: dict[str, Array]
    settled: dict[str, float]
    spikes: dict[str, Array]
    rates: dict[str, Array]
    answers: Array
    limit: Array
    teacher: Array
    attention: list[Array]
    teacher_attention: list[Array]
    layers: list[int]


def read_sentence(
    run: Run,
    text: str | None,
    second: str | None = None,
    index: int | None = None,
    data: str | os.PathLike | None = None,
) -> tuple[Task, Sentence]:
    """Find the sentence and turn it into tokens, cut to the length that the run was trained with.

    Parameters
    ----------
    run : Run
    text, second, index, data
        As in `inspect_run`.

    Returns
    -------
    task : Task
    sentence : Sentence

    Raises
    ------
    InputError
        There is no text, or more or less of it than the task has, or no such example.
    """
    task, tokenizer = run.task, run.tokenizer()
    label = None
    if index is not None:
        if text is not None or second is not None:
            raise InputError("`index` stands for the text of an example; leave out `text` and `second`")
        dataset = next(iter(run.split("dev", data).values()))
        if not 0 <= index < len(dataset):
            raise InputError(f"`index` is {index}, but the dev split has the examples 0 to {len(dataset) - 1}")
        texts = tuple(dataset[index][name] for name in task.sentences)
        label = dataset[index]["label"]
    elif text is None:
        raise InputError("there is no sentence to look at; give `text`, or `index`, the number of one of the dev split")
    else:
        texts = (text,) if second is None else (text, second)
    if len(texts) < len(task.sentences):
        raise InputError(f"{task.folder} compares two sentences; give the other one with `second`")
    if len(texts) > len(task.sentences):
        raise InputError(f"{task.folder} has one sentence; leave out `second`")
    for option, value in zip(("`text`", "`second`"), texts, strict=False):
        if not value.strip():
            raise InputError(f"{option} is empty; give a sentence")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(f"{option} is {value!a}, which is not valid UTF-8; give text") from None
    cut = tokenizer.encode(*texts)
    tokenizer.no_truncation()
    whole = tokenizer.encode(*texts)
    for place, value in enumerate(texts):
        if place not in whole.sequence_ids:
            raise InputError(f"{value!r} has no tokens; give a sentence")
    return task, Sentence(texts, cut.tokens, cut.ids, cut.type_ids, len(whole.ids) - len(cut.ids), label)


def observe(
    config: StudentConfig,
    params: Params,
    teacher_config: BertConfig,
    teacher_params: Params,
    ids: Sequence[int],
    kinds: Sequence[int],
    t_conv: int,
    rule: Rule,
) -> Observation:
    """Compute all that the page shows: one equilibrium, one simulation, one pass of the teacher.

    Parameters
    ----------
    config : StudentConfig
    params : dict
    teacher_config : BertConfig
    teacher_params : dict
    ids, kinds : sequences of int
        Token ids and token types.
    t_conv : int
    rule : {"inst", "running"}

    Returns
    -------
    observation : Observation
    """
    network, last = config.network, config.network.readouts[-1]
    batch = Batch(np.array([ids]), np.array([kinds]), np.ones((1, len(ids)), int))
    rates = equilibrium(network, params, batch).rates
    layers = layer_pairs(config.bert.num_hidden_layers, teacher_config.num_hidden_layers)[1:]
    theirs = encode(teacher_config, teacher_params, batch).scores

    names = [population.name for population in network.populations]
    count = min(MOST, max(FEWEST, ROWS // len(ids)))
    chosen = {name: _chosen(rates[name][0], count) for name in names}
    distance: dict[str, list[float]] = {name: [] for name in names}
    firing: dict[str, list[float]] = {name: [] for name in names}
    raster: dict[str, list[Array]] = {name: [] for name in names}
    cls: list[Array] = []
    for _, spikes, asr in spike_steps(network, params, batch, t_conv, rule):
        for name in names:
            distance[name].append(np.abs(asr[name] - rates[name]).mean())
            firing[name].append(np.abs(asr[name]).mean())
            raster[name].append(spikes[name][0][:, chosen[name]].astype(np.int8))
        cls.append(asr[last][0, :1])  # (1, D): [CLS] is all that the classifier reads
    return Observation(
        {name: np.array(values) for name, values in distance.items()},
        {name: np.array(values) for name, values in firing.items()},
        {name: float(np.abs(rates[name]).mean()) for name in names},
        {name: np.array(steps) for name, steps in raster.items()},
        {name: rates[name][0][:, chosen[name]] for name in names},
        answer(logits(params, np.array(cls), network.rectified)[0]),
        answer(logits(params, rates[last], network.rectified)[0])[0],
        answer(classify(teacher_config, teacher_params, batch)[0])[0],
        [ops.softmax(score)[0][0] for score in scores(network, params, rates, batch)[0]],
        [ops.softmax(theirs[layer - 1])[0][0] for layer in layers],
        layers,
    )


def _chosen(rates: Array, count: int) -> Array:
    """Choose neurons at evenly spaced ranks of their mean rate, the busiest first."""
    ranked = np.argsort(-np.abs(rates).mean(axis=0), kind="stable")
    return ranked[np.linspace(0, len(ranked), min(count, len(ranked)), endpoint=False).astype(int)]
