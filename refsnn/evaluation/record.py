"""The spikes of a run's student on a few sentences, as a record."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..readings.simulate import Rule
from ..storage.records import record, write_record
from ..storage.run import Run

__all__ = [
    "record_run",
]


def record_run(
    run: str | os.PathLike,
    data: str | os.PathLike,
    out: str | os.PathLike,
    samples: int,
    t_conv: int,
    rule: Rule,
    columns: Sequence[str] = (),
) -> None:
    """Simulate the student of a run on a few dev sentences and write every spike.

    Parameters
    ----------
    run, data, out : path
    samples, t_conv : int
    rule : {"inst", "running"}
    columns : sequence of str
        Pairs ``name=column``; by default those that the run was distilled with.

    Raises
    ------
    InputError
        `samples` is not positive, the run is not finished or the data cannot be read.
    """
    opened = Run(run)
    config, params = opened.student()
    params = {name: params[name] for name in config.body.shapes}
    _, batch = opened.sample(samples, data, columns)
    spikes = record(config.network, params, batch, t_conv, rule)
    write_record(out, config.body, batch, spikes, rule, "float32", params)
