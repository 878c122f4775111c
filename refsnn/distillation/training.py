"""A training loop that can be killed at any moment and taken up again with the same result, bit for bit.

What a step does is a function of the parameters, the moments and the step's number alone: the order of the examples
is drawn from the seed and the epoch. A checkpoint therefore holds just these, and what the next line of the log is a
mean of; it is written by rename.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.examples import Examples, epoch_batches
from ..errors import InputError
from ..files import load_tensors, save_tensors
from ..model.batch import Batch
from ..model.batch import in_shares as divided
from ..model.parameters import Gradients, Params, accumulate, check_parameters, kept
from ..ops import Array, Rows
from ..parallel import each, rounds, threads
from ..progress import progress
from ..readings.inputs import Finite
from ..schema import checked
from ..storage.recipe import Stage
from ..storage.run import Run
from .optim import SLICE, BertAdam, linear_warmup

__all__ = [
    "Objective",
    "finished",
    "in_shares",
    "train",
]

#: Losses by name, gradients of their sum, and statistics for the log.
Objective = Callable[[Params, Batch, Array], tuple[dict[str, Any], Mapping[str, Array], dict[str, float]]]


def finished(run: Run, stage: Stage) -> Params | None:
    """Parameters that a finished stage left, or None.

    Parameters
    ----------
    run : Run
    stage : Stage

    Returns
    -------
    params : dict or None
    """
    state = _State.read(run, stage)
    return state.tensors if state is not None and state.done else None


#: What a stage's checkpoint says of itself.
METADATA = {"stage": str, "step": int, "done": bool, "gathered": dict[str, float]}


class _State(NamedTuple):
    """A stage's checkpoint: parameters, and moments until it is done."""

    path: Path
    tensors: Params
    step: int
    done: bool
    gathered: dict[str, float]

    @classmethod
    def read(cls, run: Run, stage: Stage) -> _State | None:
        """Read what an earlier attempt left, if there was one."""
        path = run.stage_checkpoint(stage.name)
        if not path.exists():
            return None
        tensors, metadata = load_tensors(path)
        said = checked(path, metadata, METADATA, "metadata", ("stage", "step", "done"))
        if said["stage"] != stage.name or said["step"] < 0:
            raise InputError(f"{path} is a checkpoint of stage {said['stage']} at step {said['step']}; move it away")
        return cls(path, tensors, said["step"], said["done"], dict(said.get("gathered", {})))

    def fitting(self, wanted: Params) -> Params:
        """Return the arrays that a stage needs, if there are just these; a damaged file replaces nothing."""
        if surplus := [name for name in self.tensors if name not in wanted]:
            raise InputError(f"{self.path} holds {surplus[0]}, which the stage does not have; move it away")
        return check_parameters(self.tensors, {name: value.shape for name, value in wanted.items()}, self.path)


def train(
    run: Run,
    stage: Stage,
    params: Params,
    examples: Examples,
    objective: Objective,
    seed: Sequence[int],
    pad_token_id: int = 0,
    save_every: float = 20.0,
    constrain: Callable[[Params], None] | None = None,
) -> Params:
    """Run a stage to its end, from where an earlier attempt was interrupted if there was one.

    Parameters
    ----------
    run : Run
        The stage keeps ``stages/NAME.safetensors``, its lines in ``log.jsonl`` and its share of
        ``timings.json`` in its folder.
    stage : Stage
    params : dict
        Where to start; not modified.
    examples : Examples
    objective : callable
        ``objective(params, batch, rows) -> (losses, gradients, statistics)``; `rows` are the numbers of the batch's
        examples.
    seed : sequence of int
    pad_token_id : int
    save_every : float
        Seconds between checkpoints: the most that a kill can lose, a step aside.
    constrain : callable, optional
        Changes the parameters in place, before the first step and after every one, to keep them within a set.

    Returns
    -------
    params : dict

    Raises
    ------
    InputError
        A loss or a parameter is no longer finite, or the stage's checkpoint is damaged.
    """
    state = _State.read(run, stage)
    if state is not None and state.done:
        return state.fitting(params)
    objective = in_shares(objective)
    steps = stage.steps(len(examples))
    optimiser = BertAdam()
    params = {name: np.array(value, order="C") for name, value in params.items()}
    if constrain is not None:
        constrain(params)
    journal = _Journal(run, stage, steps)
    params, moments, first = journal.resume(state, params, optimiser.initial(params))
    journal.look(params, first)
    known = Finite(params)  # the same arrays, which are changed in place and looked at after every step
    with progress(stage.name, "step", steps, initial=first) as bar:  # an error then begins on a line of its own
        for step, rows in enumerate(_steps(examples, stage, seed, first), first):
            lr = stage.lr * _factor(stage, step, steps)
            losses, gradients, statistics = objective(known, examples.batch(rows, pad_token_id), rows)
            optimiser.step(params, gradients, moments, lr)
            if constrain is not None:
                constrain(params)
            journal.look(params, step + 1)
            bar.update()
            if means := journal.note(step + 1, losses | statistics, lr):
                bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()}, refresh=False)
            if step + 1 < steps and journal.age > save_every:
                journal.save(step + 1, params, moments)
    journal.save(steps, params)
    return params


class _Journal:
    """What a stage writes into its run's folder while it trains: the log, its time, its checkpoint."""

    def __init__(self, run: Run, stage: Stage, steps: int) -> None:
        self.run, self.stage, self.steps = run, stage, steps
        self.interval = max(1, steps // 200)
        self.gathered: dict[str, float] = {}  # sums since the last line of the log
        self.spent = 0.0  # seconds of earlier attempts
        self.started = self.saved = time.monotonic()

    def resume(self, state: _State | None, params: Params, moments: Params) -> tuple[Params, Params, int]:
        """Take up parameters, moments and step where an earlier attempt saved them."""
        first, (run, stage) = 0, (self.run, self.stage)
        run.stage_checkpoint(stage.name).parent.mkdir(exist_ok=True)
        if state is not None:
            first, self.gathered, self.spent = state.step, state.gathered, run.timings().get(stage.name, 0.0)
            if first > self.steps:
                raise InputError(f"{state.path} is at step {first}, but the stage has {self.steps}; move it away")
            found = state.fitting(params | moments)
            params, moments = ({name: found[name] for name in wanted} for wanted in (params, moments))
        run.forget_log_after(stage.name, first)
        return params, moments, first

    def note(self, step: int, values: dict[str, Any], lr: float) -> dict[str, float]:
        """Add up losses and statistics; now and then their means become a line of the log."""
        for name, value in values.items():
            self.gathered[name] = self.gathered.get(name, 0.0) + float(value)
        if step % self.interval and step < self.steps:
            return {}
        count = step % self.interval or self.interval
        means = {name: value / count for name, value in self.gathered.items()}
        self._check(means.values(), f"loss ({means})", step)
        self.run.append_log({"stage": self.stage.name, "step": step, "lr": lr, **means})
        self.gathered = {}
        return means

    def look(self, params: Params, step: int) -> None:
        """See that all parameters are finite after so many steps, or end the stage."""
        for name, value in params.items():
            self._check(value, f"parameter {name}", step)

    @property
    def age(self) -> float:
        """Seconds since the last checkpoint."""
        return time.monotonic() - self.saved

    def save(self, step: int, params: Params, moments: Params | None = None) -> None:
        """Write a checkpoint; without moments it is the last, and the stage is done."""
        self._check(self.gathered.values(), "loss", step)
        # Timings first: a kill between the two writes then loses nothing but a few seconds of accounting.
        self.run.add_timing(self.stage.name, self.spent + time.monotonic() - self.started)
        metadata: dict[str, Any] = {"stage": self.stage.name, "step": step, "done": moments is None}
        if moments is not None:
            metadata["gathered"] = self.gathered
        save_tensors(self.run.stage_checkpoint(self.stage.name), params | (moments or {}), metadata)
        self.saved = time.monotonic()

    def _check(self, values: Any, what: str, step: int) -> None:
        array = values if isinstance(values, np.ndarray) else np.array(list(values), float)
        if not np.isfinite(array).all():
            raise InputError(
                f"the {what} of stage {self.stage.name} is no longer finite at step {step} of {self.steps}; "
                f"try a learning rate below {self.stage.lr}"
            )


def _factor(stage: Stage, step: int, steps: int) -> float:
    """Factor of the learning rate; a schedule of one step has no room to warm up in, and would train nothing."""
    return linear_warmup(step / steps) if stage.schedule == "linear" and steps > 1 else 1.0


def _steps(examples: Examples, stage: Stage, seed: Sequence[int], first: int) -> Iterator[Array]:
    per_epoch, steps = stage.batches(len(examples)), stage.steps(len(examples))
    for epoch in range(first // per_epoch, -(-steps // per_epoch)):
        batches = epoch_batches(examples.lengths, stage.batch_size, [*seed, epoch])
        begun = epoch * per_epoch
        yield from islice(batches, max(0, first - begun), min(per_epoch, steps - begun))


#: Shares of a batch at most, and tokens of a share at least: with fewer, matrix products are slower, and a share has
#: gradients as large as the parameters. Neither depends on the machine's cores, so what is computed does not.
SHARES, SHARE = 8, 256


def _shares(tokens: int) -> int:
    """Count the shares of a batch: 2, 4 or 8, so that as many cores take them in rounds that are full.

    Examples
    --------
    >>> [_shares(tokens) for tokens in (1, 768, 1024, 2000, 10000)]
    [2, 2, 4, 4, 8]
    """
    return 2 ** (min(max(tokens // SHARE, 2), SHARES).bit_length() - 1)


def in_shares(objective):
    """Compute a training objective on shares of the batch, several at once, and put the results together.

    Every loss is a mean over the sequences of a batch, all padded to one length, so a share of b_i of b sequences adds
    b_i/b of its loss and of its gradient. Shares are added up in their order, as many at a time as there are cores: a
    gradient is as large as the parameters, and no more of them are kept. Gradients of embedding tables are added up as
    the rows that occur. Parameters are checked once for all shares.

    Parameters
    ----------
    objective : callable
        ``objective(params, batch, rows) -> (losses, gradients, statistics)``; see `Objective`.

    Returns
    -------
    objective : callable
        The same mathematically; sums are rounded in another order.
    """

    def whole(params: Params, batch: Batch, rows: Array) -> tuple[dict[str, Any], Gradients, dict[str, float]]:
        shares = divided(batch, _shares(batch.input_ids.size))
        largest, workers = len(shares[0][1]), min(threads(), len(shares))
        known = params if isinstance(params, Finite) else Finite.of(params)

        def one(share: tuple[Batch, Array]) -> tuple[float, tuple[dict[str, Any], ...]]:
            part, places = share
            return len(places) / largest, objective(known, part, rows[places])

        gradients = Gradients()
        totals: tuple[dict[str, Any], ...] = ({}, gradients.data, {})
        for found in rounds(one, shares, workers):
            weights, parts = zip(*found, strict=True)
            for total, dicts in zip(totals, zip(*parts, strict=True), strict=True):
                _add(total, weights, [kept(part) for part in dicts])
            del found, parts, dicts  # so that they are let go before the next ones are computed
        factor = largest / len(rows)
        slices = []
        for total in totals:
            for name, value in total.items():
                if isinstance(value, Rows):
                    total[name] = value * factor
                else:
                    slices += _slices(value)
        each(lambda x: np.multiply(x, factor, out=x), slices, workers)
        return totals[0], gradients, totals[2]

    return whole


def _slices(array: Array) -> list[Array]:
    """Return views of an array's elements, so few in each that a sum over shares stays in a core's cache."""
    flat = array.reshape(-1)
    return [flat[start : start + SLICE] for start in range(0, flat.size, SLICE)]


def _add(total: dict[str, Any], weights: Sequence[float], parts: Sequence[Mapping[str, Any]]) -> None:
    """Add ``Σ w_i·x_i``, name by name; the first array of a name becomes its total, for it is nobody else's."""
    tasks: list[tuple[Any, ...]] = []
    for name in dict.fromkeys(name for part in parts for name in part):
        terms = [(w, part[name]) for w, part in zip(weights, parts, strict=True) if name in part]
        if isinstance(terms[0][1], Rows):  # they are few
            for w, rows in terms:
                accumulate(total, name, rows * w)
            continue
        terms = [(w, np.asarray(x, order="C")) for w, x in terms]
        if name not in total:
            weight, total[name] = terms.pop(0)
            if weight != 1:
                total[name] *= weight
        sums = _slices(total[name])
        tasks += zip(sums, *([(w, x) for x in _slices(term)] for w, term in terms), strict=True)
    each(_add_up, tasks, threads())


def _add_up(task: tuple[Any, ...]) -> None:
    """Shares are mostly of one size, and need no scaling."""
    total, *terms = task
    for w, x in terms:
        total += x if w == 1 else w * x
