"""Spike records: who fired when, with all that a certificate needs, in one safetensors file that anyone can write.

Tensors: ``spikes/POPULATION``, (T, B, N, width), 0 or 1 in any type; ``input_ids``, ``token_type_ids`` and
``attention_mask``, (B, N) integers; and, unless the parameters lie in a file of their own, ``param/NAME``. The metadata
key ``refsnn`` holds a JSON object: ``config`` (see `network_config`), ``rule`` ("inst" or "running"), ``dtype`` and,
where sums are accumulated in another precision than usual, ``accumulate``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import METADATA, atomic, existing, load_tensors, require, save_tensors, tensor
from ..model.batch import Batch, checked_batch
from ..model.network import Network
from ..model.parameters import Params, check_parameters
from ..model.shapes import network_shapes
from ..model.student import network_from
from ..ops import Array
from ..ops.rounding import Precision
from ..readings.certify import DECADES, Verdict, certify
from ..readings.simulate import Rule, spike_blocks

__all__ = [
    "Record",
    "certify_record",
    "margin_histogram",
    "plot_margins",
    "record",
    "verdict_table",
    "verdicts_to_dict",
    "write_record",
]

#: Elements of the widest population that a block of timesteps may hold; some twenty arrays of that size are alive.
BLOCK_ELEMENTS = 1 << 20


def record(network: Network, params: Params, batch: Batch, t_conv: int, rule: Rule = "inst") -> dict[str, Array]:
    """Simulate and keep every spike.

    Parameters
    ----------
    network, params, batch, t_conv, rule
        As in `refsnn.readings.simulate.spike_blocks`.

    Returns
    -------
    spikes : dict
        Population name -> (T, B, N, width) array of uint8.
    """
    blocks = [
        {name: train.astype(np.uint8) for name, train in spikes.items()}
        for _, spikes in spike_blocks(network, params, batch, t_conv, rule)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def write_record(
    path: str | os.PathLike,
    config: Mapping[str, Any],
    batch: Batch,
    spikes: Mapping[str, Array],
    rule: Rule,
    dtype: str,
    params: Mapping[str, Array] | None = None,
) -> None:
    """Write a spike record.

    Parameters
    ----------
    path : path
    config : mapping
        As from `network_config`.
    batch : Batch
    spikes : mapping
    rule : {"inst", "running"}
    dtype : str
        Precision that the spikes were computed in.
    params : mapping, optional
        Parameters to put beside them.
    """
    tensors = {f"spikes/{name}": train for name, train in spikes.items()}
    tensors |= dict(zip(Batch._fields, batch, strict=True))
    tensors |= {f"param/{name}": value for name, value in (params or {}).items()}
    save_tensors(path, tensors, {"config": dict(config), "rule": rule, "dtype": dtype})


@dataclass(frozen=True)
class Record:
    """What a record's file says, beside its spikes.

    Attributes
    ----------
    network : Network
    params : dict
    batch : Batch
    rule : str
    precision : Precision
    """

    network: Network
    params: Params
    batch: Batch
    rule: Rule
    precision: Precision


def _read(file, path, parameters: Params | None, dtype: str | None, accumulate: str | None) -> Record:
    keys = set(file.keys())
    try:
        said = json.loads((file.metadata() or {}).get(METADATA, "null"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: the metadata {METADATA!r} are not valid JSON ({error})") from None
    if not isinstance(said, dict) or not isinstance(said.get("config"), dict) or "rule" not in said:
        raise InputError(
            f"{path} is no spike record: its metadata key {METADATA!r} must hold a JSON object with config, rule and "
            "dtype; docs/certificates.md describes the format"
        )
    if missing := [name for name in Batch._fields if name not in keys]:
        raise InputError(f"{path} lacks {', '.join(missing)}, the tokens that the spikes answer to")
    network, config = network_from(said["config"])
    batch = checked_batch(Batch(*(file.get_tensor(name) for name in Batch._fields)), config)
    if parameters is None:
        parameters = {k.removeprefix("param/"): tensor(file, path, k) for k in keys if k.startswith("param/")}
        if not parameters:
            raise InputError(f"{path} holds no parameters (param/NAME); name the file that does with --params")
    shapes = network_shapes(config, bool(network.fed_back))
    params = check_parameters({k: v for k, v in parameters.items() if k in shapes}, shapes, str(path))
    precision = Precision.named(dtype or str(said.get("dtype")), accumulate or said.get("accumulate"))
    return Record(network, params, batch, said["rule"], precision)


def certify_record(
    path: str | os.PathLike,
    params: str | os.PathLike | None = None,
    dtype: str | None = None,
    accumulate: str | None = None,
    block: int | None = None,
) -> tuple[Record, dict[str, Verdict]]:
    """Certify a record's file, a block of timesteps at a time.

    Parameters
    ----------
    path : path
        As `write_record` writes it.
    params : path, optional
        A safetensors file with the parameters, where the record does not hold them.
    dtype, accumulate : str, optional
        Instead of what the record says of its precision.
    block : int, optional
        Timesteps held at once; by default as many as fit some hundred megabytes.

    Returns
    -------
    record : Record
    verdicts : dict
        Population name -> Verdict.

    Raises
    ------
    InputError
        A file is missing, truncated, or not a record.
    """
    safetensors = require("safetensors")
    path = existing(path, "the record")
    given = None if params is None else load_tensors(params)[0]
    with ExitStack() as stack:
        try:
            file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path} cannot be read as safetensors ({error}); it may be truncated") from None
        found = _read(file, path, given, dtype, accumulate)
        spikes = {}
        for population in found.network.populations:
            with suppress(safetensors.SafetensorError):  # `certify` says what is missing
                spikes[population.name] = file.get_slice(f"spikes/{population.name}")
                if spikes[population.name].get_dtype() == "BF16":
                    raise InputError(f"{path}: the spikes are bfloat16, which NumPy lacks; write them as bytes (uint8)")
        widest = found.batch.input_ids.size * max(p.width for p in found.network.populations)
        steps = max(1, BLOCK_ELEMENTS // widest) if block is None else block
        return found, certify(found.network, found.params, found.batch, spikes, found.rule, found.precision, steps)


def verdicts_to_dict(verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """Verdicts as JSON holds them.

    Parameters
    ----------
    verdicts : mapping

    Returns
    -------
    values : dict
    """
    return {
        "margin_decades": list(DECADES),
        "populations": {name: asdict(v) | {"margins": v.margins.tolist()} for name, v in verdicts.items()},
    }


def verdict_table(verdicts: Mapping[str, Verdict]) -> str:
    """Lay verdicts out, a line a population, and say the outcome.

    Parameters
    ----------
    verdicts : mapping

    Returns
    -------
    text : str
    """
    heads = ("decisions", "spikes", "ties", "undecidable", "by rounding", "wrong", "largest bound")
    lines = [f"{'population':<28}" + "".join(f"{head:>14}" for head in heads)]
    for name, v in verdicts.items():
        counts = (v.decisions, v.spikes, v.ties, v.undecidable, v.by_rounding, v.wrong)
        lines.append(f"{name:<28}" + "".join(f"{count:>14,}" for count in counts) + f"{v.largest_bound:>14.1e}")
    total = {name: sum(getattr(v, name) for v in verdicts.values()) for name in ("decisions", "by_rounding", "wrong")}
    outcome = "WRONG" if total["wrong"] else "consistent"
    lines += [
        "",
        f"{outcome}: of {total['decisions']:,} decisions {total['wrong']:,} are wrong and {total['by_rounding']:,} "
        "differ from ours within rounding",
    ]
    first = [(v.first_wrong.t, name) for name, v in verdicts.items() if v.first_wrong]
    if first:
        t = min(t for t, _ in first)
        name = next(name for name in verdicts if (t, name) in first)  # firing order within the step
        lines.append(f"the first wrong decision is of {name}: {verdicts[name].first_wrong}")
    return "\n".join(lines)


def margin_histogram(verdicts: Mapping[str, Verdict], columns: int = 60) -> str:
    """Draw the margins of all populations together as text: how far from the threshold decisions were taken.

    Parameters
    ----------
    verdicts : mapping
    columns : int
        Length of the longest bar.

    Returns
    -------
    text : str
    """
    counts = np.sum([v.margins for v in verdicts.values()], axis=0)
    longest = max(int(counts.max()), 1)
    lines = ["margin |u − V_th|/V_th"]
    for decade, count in zip(DECADES, counts, strict=True):
        if count:
            ends = f"below 1e{decade + 1:+03d}" if decade == DECADES[0] else f"1e{decade:+03d} … 1e{decade + 1:+03d}"
            lines.append(f"{ends:>15}  {'█' * -(-int(count) * columns // longest)} {count:,}")
    return "\n".join(lines)


def plot_margins(verdicts: Mapping[str, Verdict], path: str | os.PathLike) -> None:
    """Draw the margins, population by population, as a picture.

    Parameters
    ----------
    verdicts : mapping
    path : path
        An ``.svg`` file.
    """
    require("matplotlib")
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    counts = np.array([v.margins for v in verdicts.values()])
    figure = Figure(figsize=(8, 1.6 + 0.24 * len(counts)), layout="constrained")
    axes = figure.add_subplot()
    edges = [*DECADES, DECADES[-1] + 1]
    shown = np.ma.masked_equal(counts, 0)
    mesh = axes.pcolormesh(
        edges, np.arange(len(counts) + 1), shown, norm=LogNorm(1, max(counts.max(), 2)), cmap="cividis"
    )
    axes.set_yticks(np.arange(len(counts)) + 0.5, list(verdicts))
    axes.invert_yaxis()
    axes.set_xticks(edges[1::2], [f"$10^{{{e}}}$" for e in edges[1::2]])
    axes.set_xlabel("margin of a decision, |u − V_th| / V_th (leftmost: exact ties)")
    for y, verdict in enumerate(verdicts.values()):
        bound = np.log10(max(verdict.largest_bound, 10.0 ** DECADES[0]))
        axes.plot(
            [bound, bound], [y, y + 1], color="#D55E00", linewidth=2, label="largest rounding bound" if not y else None
        )
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    figure.colorbar(mesh, ax=axes, label="decisions")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="svg")
