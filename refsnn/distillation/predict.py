"""Class scores of a data set: by a teacher, by a student's rate map, and by its spikes after several T.

A regression has one class, whose score is the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.examples import Examples, length_batches
from ..model.batch import Batch
from ..model.network import first_position
from ..model.parameters import Params
from ..model.shapes import BertConfig
from ..model.student import StudentConfig
from ..ops import Array
from ..parallel import each, threads
from ..progress import progress
from ..readings.equilibrium import equilibrium
from ..readings.simulate import SHARE, Rule, rates_and_firing
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


def by_batches(
    examples: Examples, function: Callable[[Batch], tuple[Array, ...]], tokens: int, pad_token_id: int, label: str
) -> tuple[Array, ...]:
    """Apply a function to batches of like lengths, one on each core, and put the results in the examples' order.

    Parameters
    ----------
    examples : Examples
    function : callable
        ``function(batch) -> arrays (B, ...)``.
    tokens : int
        Positions in a batch at most. Batches are the same however many cores there are, and so are the results.
    pad_token_id : int
    label : str
        For the progress bar.

    Returns
    -------
    results : tuple of (n, ...) arrays
    """
    batches = length_batches(examples.lengths, len(examples), tokens)
    order = np.argsort(np.concatenate(batches), kind="stable")
    with progress(label, "batch", len(batches), leave=False) as bar:

        def one(rows: Array) -> tuple[Array, ...]:
            found = function(examples.batch(rows, pad_token_id))
            bar.update()
            return found

        parts = each(one, batches, threads())
    return tuple(np.concatenate(part)[order] for part in zip(*parts, strict=True))


def predict_teacher(config: BertConfig, params: Params, examples: Examples, tokens: int = 512) -> Array:
    """Class scores of a fine-tuned teacher.

    Parameters
    ----------
    config : BertConfig
    params : dict
    examples : Examples
    tokens : int
        Positions in a batch.

    Returns
    -------
    logits : (n, classes) array
    """

    def one(batch: Batch) -> tuple[Array]:
        return (classify(config, params, batch)[0],)

    return by_batches(examples, one, tokens, config.pad_token_id, "teacher")[0]


def predict_rates(config: StudentConfig, params: Params, examples: Examples, tokens: int = 512) -> Array:
    """Class scores at the equilibrium of the rate map.

    Parameters
    ----------
    config : StudentConfig
    params : dict
    examples : Examples
    tokens : int
        Positions in a batch.

    Returns
    -------
    logits : (n, classes) array
    """
    return solve_rates(config, params, examples, tokens)[0]


def solve_rates(
    config: StudentConfig, params: Params, examples: Examples, tokens: int = 512
) -> tuple[Array, dict[str, float] | None]:
    """Class scores at the equilibrium of the rate map, and how well its equation was solved.

    Parameters
    ----------
    config, params, examples, tokens
        See `predict_rates`.

    Returns
    -------
    logits : (n, classes) array
    solved : dict or None
        Largest true relative ``"residual"`` of any example, and mean number of ``"sweeps"`` over the examples, which
        are solved batch by batch; None without feedback, where one sweep is exact.
    """
    network = first_position(config.network)

    def scores(batch: Batch) -> tuple[Array, ...]:
        found = equilibrium(network, params, batch)
        z = logits(params, found.rates[network.readouts[-1]], network.rectified)[0]
        return z, found.solution.residual, np.full(len(z), found.solution.evaluations)

    z, residuals, sweeps = by_batches(examples, scores, tokens, config.bert.pad_token_id, "rate map")
    if not config.feedback:
        return z, None
    return z, {"residual": float(residuals.max()), "sweeps": float(sweeps.mean())}


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

    Returns
    -------
    results : dict
        T -> SpikingResult.
    """
    network = config.network if activity else first_position(config.network)
    last = network.readouts[-1]
    counted = [p.name for p in network.populations] if activity else []
    times = sorted(set(t_conv))

    def one(batch: Batch) -> tuple[Array, Array]:
        found = rates_and_firing(network, params, batch, times, rule, keep=[last], counted=counted)
        z = np.stack([logits(params, found[t][0][last], network.rectified)[0] for t in times], axis=1)
        fired = np.zeros((len(z), len(times), len(counted)))  # spikes per neuron, summed over the real tokens
        for at in np.ndindex(*fired.shape[1:]):
            per_token = found[times[at[0]]][1][counted[at[1]]].mean(axis=-1, dtype=np.float64)  # (B, N)
            fired[:, *at] = (per_token * batch.attention_mask).sum(axis=1)
        return z, fired

    z, fired = by_batches(examples, one, tokens, config.bert.pad_token_id, "spikes")
    firing = fired.sum(axis=0) / examples.lengths.sum()  # (times, populations)
    return {t: SpikingResult(z[:, i], dict(zip(counted, firing[i].tolist(), strict=True))) for i, t in enumerate(times)}
