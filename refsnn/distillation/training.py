"""A training loop that can be killed at any moment and taken up again with the same result, bit for bit.

What a step does is a function of the parameters, the moments and the step's number alone: the order of the examples
is drawn from the seed and the epoch. A checkpoint therefore holds just these, and what the next line of the log is a
mean of; it is written by rename.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import islice
from operator import iadd, imul
from typing import Any

import numpy as np

from ..data.examples import Examples, epoch_batches
from ..errors import InputError
from ..files import load_tensors, require, save_tensors
from ..model.batch import Batch, map_shares
from ..model.parameters import Params
from ..ops import Array
from ..parallel import each, threads
from ..storage.recipe import Stage
from ..storage.run import Run
from .optim import BertAdam, linear_warmup

__all__ = [
    "Objective",
    "finished",
    "in_shares",
    "train",
]

#: Losses by name, gradients of their sum, and statistics for the log.
Objective = Callable[[Params, Batch, Array], tuple[dict[str, Any], Params, dict[str, float]]]


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
    path = run.stage_checkpoint(stage.name)
    if not path.exists():
        return None
    tensors, metadata = load_tensors(path)
    return tensors if metadata.get("done") else None


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
        A loss is no longer finite.
    """
    done = finished(run, stage)
    if done is not None:
        return done
    tqdm = require("tqdm").tqdm
    objective = in_shares(objective)
    per_epoch = -(-len(examples) // stage.batch_size)
    steps = per_epoch * stage.epochs
    optimiser = BertAdam()
    params = {name: np.array(value, order="C") for name, value in params.items()}
    if constrain is not None:
        constrain(params)
    moments = optimiser.initial(params)
    first, spent = 0, 0.0
    gathered: dict[str, float] = {}  # sums since the last line of the log
    path = run.stage_checkpoint(stage.name)
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        tensors, metadata = load_tensors(path)
        first, spent = metadata["step"], run.timings().get(stage.name, 0.0)
        gathered = metadata.get("gathered", {})
        params = {name: tensors[name] for name in params}
        moments = {name: tensors[name] for name in moments}
    run.forget_log_after(stage.name, first)

    interval = max(1, steps // 200)
    started = saved = time.monotonic()
    bar = tqdm(total=steps, initial=first, desc=f"{stage.name:>10}", unit="step", dynamic_ncols=True, smoothing=0.05)
    for step, rows in enumerate(_steps(examples, stage, seed, first), first):
        factor = linear_warmup(step / steps) if stage.schedule == "linear" else 1.0
        losses, gradients, statistics = objective(params, examples.batch(rows, pad_token_id), rows)
        optimiser.step(params, gradients, moments, stage.lr * factor)
        if constrain is not None:
            constrain(params)
        for name, value in (losses | statistics).items():
            gathered[name] = gathered.get(name, 0.0) + float(value)
        bar.update()
        if (step + 1) % interval == 0 or step + 1 == steps:
            count = interval if (step + 1) % interval == 0 else steps % interval
            means = {name: value / count for name, value in gathered.items()}
            if not np.isfinite(list(means.values())).all():
                raise InputError(
                    f"the loss of stage {stage.name} is no longer finite at step {step + 1} of {steps} ({means}); "
                    f"try a learning rate below {stage.lr}"
                )
            bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()}, refresh=False)
            run.append_log({"stage": stage.name, "step": step + 1, "lr": stage.lr * factor, **means})
            gathered = {}
        if time.monotonic() - saved > save_every and step + 1 < steps:
            # Timings first: a kill between the two writes then loses nothing but a few seconds of accounting.
            run.add_timing(stage.name, spent + time.monotonic() - started)
            metadata = {"stage": stage.name, "step": step + 1, "done": False, "gathered": gathered}
            save_tensors(path, params | moments, metadata)
            saved = time.monotonic()
    bar.close()
    run.add_timing(stage.name, spent + time.monotonic() - started)
    save_tensors(path, params, {"stage": stage.name, "step": steps, "done": True})
    return params


def _steps(examples: Examples, stage: Stage, seed: Sequence[int], first: int) -> Iterator[Array]:
    per_epoch = -(-len(examples) // stage.batch_size)
    for epoch in range(first // per_epoch, stage.epochs):
        batches = epoch_batches(examples.lengths, stage.batch_size, [*seed, epoch])
        yield from islice(batches, max(0, first - epoch * per_epoch), None)


#: Shares of a batch. Their number is fixed, so that what is computed does not depend on the machine's cores.
SHARES = 2


def in_shares(objective):
    """Compute a training objective on shares of the batch, several at once, and put the results together.

    Every loss is a mean over the sequences of a batch, all padded to one length, so a share of b_i of b sequences adds
    b_i/b of its loss and of its gradient.

    Parameters
    ----------
    objective : callable
        ``objective(params, batch, rows) -> (losses, gradients, statistics)``; see `Objective`.

    Returns
    -------
    objective : callable
        The same mathematically; sums are rounded in another order.
    """

    def whole(params: Params, batch: Batch, rows: Array) -> tuple[dict[str, Any], Params, dict[str, float]]:
        def one(share: Batch, places: Array):
            return len(places) / len(rows), objective(params, share, rows[places])

        weights, parts = zip(*map_shares(one, batch, SHARES, threads()), strict=True)
        losses, gradients, statistics = (_mean(weights, dicts) for dicts in zip(*parts, strict=True))
        return losses, gradients, statistics

    return whole


def _mean(weights: Sequence[float], parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up what the shares found, name by name, in the arrays of the parts: these are nobody else's."""
    names = list(dict.fromkeys(name for part in parts for name in part))

    def one(name: str) -> Any:
        return reduce(iadd, (imul(part[name], w) for w, part in zip(weights, parts, strict=True) if name in part))

    return dict(zip(names, each(one, names, threads()), strict=True))
