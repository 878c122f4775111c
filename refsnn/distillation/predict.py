"""Class scores of a data set: by a teacher, by a student's rate map, and by its spikes after several T.

A regression has one class, whose score is the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..data.examples import Examples, length_batches
from ..model.batch import Batch
from ..model.network import Network, first_position
from ..model.parameters import Params, products_per_token
from ..model.shapes import BertConfig
from ..model.student import StudentConfig
from ..ops import Array
from ..parallel import each, threads
from ..progress import progress
from ..readings.equilibrium import equilibrium
from ..readings.simulate import SHARE, Rule, rates_and_firing
from ..shared import copied
from ..workers import carried, each_process, worth_processes
from .student import logits
from .teacher import classify

__all__ = [
    "SpikingResult",
    "by_batches",
    "predict_rates",
    "predict_spikes",
    "predict_teacher",
    "solve_rates",
]


#: Results for the sequences of a batch, from parameters and the batch: (B, ...) arrays.
ByBatch = Callable[[Params, Batch], tuple[Array, ...]]


def by_batches(
    examples: Examples,
    function: ByBatch,
    params: Params,
    tokens: int,
    pad_token_id: int,
    label: str,
    executor: Executor | None = None,
    steps: int = 1,
) -> tuple[Array, ...]:
    """Apply a function to batches of like lengths, one on each core, and put the results in the examples' order.

    Parameters
    ----------
    examples : Examples
    function : callable
        ``function(params, batch) -> arrays (B, ...)``.
    params : dict
        A `refsnn.storage.run.Stored` where an executor takes the batches elsewhere.
    tokens : int
        Positions in a batch at most. Batches are the same whoever computes them, and so are the results.
    pad_token_id : int
    label : str
        For the progress bar.
    executor : concurrent.futures.Executor, optional
        What computes the batches, instead of this machine's cores.
    steps : int
        Passes through the network.

    Returns
    -------
    results : tuple of (n, ...) arrays
    """
    places = length_batches(examples.lengths, len(examples), tokens)
    order = np.argsort(np.concatenate(places), kind="stable")
    with progress(label, "batch", len(places), leave=False) as bar:

        def one(batch: Batch) -> tuple[Array, ...]:
            result = function(params, batch)
            bar.update()
            return result

        batches = [examples.batch(rows, pad_token_id) for rows in places]
        workers, products = threads(), float(len(examples.tokens)) * products_per_token(params) * steps
        if executor is not None:
            found = {}
            for number, part in carried(executor, partial(function, params), batches):
                found[number] = part
                bar.update()
            parts = [found[number] for number in range(len(batches))]
        elif worth_processes(min(workers, len(batches)), products):
            with copied(params) as kept:
                parts = each_process(partial(function, kept), batches, min(workers, len(batches)), bar.update)
        else:
            parts = each(one, batches, workers)
    return tuple(np.concatenate(part)[order] for part in zip(*parts, strict=True))


def predict_teacher(
    config: BertConfig, params: Params, examples: Examples, tokens: int = 512, executor: Executor | None = None
) -> Array:
    """Class scores of a fine-tuned teacher.

    Parameters
    ----------
    config : BertConfig
    params : dict
    examples : Examples
    tokens : int
        Positions in a batch.
    executor
        See `by_batches`.

    Returns
    -------
    logits : (n, classes) array
    """
    function = partial(_classified, config)
    return by_batches(examples, function, params, tokens, config.pad_token_id, "teacher", executor)[0]


def _classified(config: BertConfig, params: Params, batch: Batch) -> tuple[Array, ...]:
    return (classify(config, params, batch)[0],)


def predict_rates(
    config: StudentConfig, params: Params, examples: Examples, tokens: int = 512, executor: Executor | None = None
) -> Array:
    """Class scores at the equilibrium of the rate map.

    Parameters
    ----------
    config : StudentConfig
    params : dict
    examples : Examples
    tokens : int
        Positions in a batch.
    executor
        See `by_batches`.

    Returns
    -------
    logits : (n, classes) array
    """
    return solve_rates(config, params, examples, tokens, executor)[0]


def solve_rates(
    config: StudentConfig, params: Params, examples: Examples, tokens: int = 512, executor: Executor | None = None
) -> tuple[Array, dict[str, float] | None]:
    """Class scores at the equilibrium of the rate map, and how well its equation was solved.

    Parameters
    ----------
    config, params, examples, tokens, executor
        See `predict_rates`.

    Returns
    -------
    logits : (n, classes) array
    solved : dict or None
        Largest true relative ``"residual"`` of any example, and mean number of ``"sweeps"`` over the examples, which
        are solved batch by batch; None without feedback, where one sweep is exact.
    """
    network = first_position(config.network)
    z, residuals, sweeps = by_batches(
        examples, partial(_solved, network), params, tokens, config.bert.pad_token_id, "rate map", executor
    )
    if not config.feedback:
        return z, None
    return z, {"residual": float(residuals.max()), "sweeps": float(sweeps.mean())}


def _solved(network: Network, params: Params, batch: Batch) -> tuple[Array, ...]:
    found = equilibrium(network, params, batch)
    z = logits(params, found.rates[network.readouts[-1]], network.rectified)[0]
    return z, found.solution.residual, np.full(len(z), found.solution.evaluations)


@dataclass(frozen=True)
class SpikingResult:
    """What a simulation of a data set gave after T steps.

    Attributes
    ----------
    logits : (n, classes) array
    firing_rates : dict
        Population -> spikes per neuron and step, those of −1 included, averaged over the real tokens of all examples;
        empty if not wanted.
    """

    logits: Array
    firing_rates: dict[str, float]


def predict_spikes(
    config: StudentConfig,
    params: Params,
    examples: Examples,
    t_conv: Sequence[int],
    rule: Rule = "inst",
    tokens: int = SHARE,
    activity: bool = True,
    executor: Executor | None = None,
) -> dict[int, SpikingResult]:
    """Class scores by spikes after several numbers of timesteps, from one simulation.

    Parameters
    ----------
    config : StudentConfig
    params : dict
    examples : Examples
    t_conv : sequence of int
    rule : {"inst", "running"}
    tokens : int
        Positions in a batch.
    activity : bool
        Whether firing rates are wanted: without them only what class scores depend on is simulated.
    executor
        See `by_batches`.

    Returns
    -------
    results : dict
        T -> SpikingResult.
    """
    network = config.network if activity else first_position(config.network)
    counted = [p.name for p in network.populations] if activity else []
    times = sorted(set(t_conv))
    function = partial(_fired, network, times, rule, counted)
    z, fired = by_batches(examples, function, params, tokens, config.bert.pad_token_id, "spikes", executor, times[-1])
    firing = fired.sum(axis=0) / examples.lengths.sum()  # (times, populations)
    return {t: SpikingResult(z[:, i], dict(zip(counted, firing[i].tolist(), strict=True))) for i, t in enumerate(times)}


def _fired(
    network: Network, times: Sequence[int], rule: Rule, counted: Sequence[str], params: Params, batch: Batch
) -> tuple[Array, Array]:
    last = network.readouts[-1]
    found = rates_and_firing(network, params, batch, times, rule, keep=[last], counted=counted)
    z = np.stack(
        [logits(params, found[t][0][last], network.rectified)[0] for t in times], axis=1
    )  # (B, times, classes)
    fired = np.zeros((len(z), len(times), len(counted)))  # spikes per neuron, summed over the real tokens
    for at in np.ndindex(*fired.shape[1:]):
        per_token = found[times[at[0]]][1][counted[at[1]]].mean(axis=-1, dtype=np.float64)  # (B, N)
        fired[:, *at] = (per_token * batch.attention_mask).sum(axis=1)
    return z, fired
