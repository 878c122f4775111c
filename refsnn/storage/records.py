"""Spike records: who fired when, with all that a certificate needs, in one safetensors file that anyone can write.

Tensors: ``spikes/POPULATION``, (T, B, N, width), 0 or 1, or −1 of signed neurons, in any type; ``input_ids``,
``token_type_ids`` and ``attention_mask``, (B, N) integers; and, unless the parameters lie in a file of their own,
``param/NAME``. The metadata key ``refsnn`` holds a JSON object: ``config`` (see `refsnn.model.student.StudentConfig`,
or `refsnn.model.gpt.SpikingGptConfig` where its ``model_type`` is "spiking_gpt"), ``rule`` ("inst" or "running"),
``dtype`` and, where sums are accumulated in another precision than usual, ``accumulate``. Analogue units have no
spikes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..files import METADATA, NUMPY_TYPES, existing, load_tensors, require, save_tensors, tensor
from ..model.batch import Batch, check_ids, checked_batch
from ..model.gpt import SpikingGptConfig, described
from ..model.network import Network
from ..model.parameters import Params, check_parameters
from ..model.student import StudentConfig
from ..ops import Array
from ..ops.rounding import Precision
from ..readings.certify import DECADES, Verdict, certify
from ..readings.simulate import Rule, spike_blocks
from ..schema import checked, parsed

__all__ = [
    "Record",
    "certify_record",
    "record",
    "verdicts_to_dict",
    "write_record",
]

#: Elements of the widest population that a block of timesteps may hold; about twenty arrays of that size are alive.
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
        Population of neurons -> (T, B, N, width) array of uint8; of int8, where they are signed.
    """
    blocks = []
    for _, spikes in spike_blocks(network, params, batch, t_conv, rule):
        neurons = {p.name: p.neuron for p in network.populations if p.neuron is not None}
        blocks.append({name: spikes[name].astype(np.int8 if n.signed else np.uint8) for name, n in neurons.items()})
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def write_record(
    path: str | os.PathLike,
    config: StudentConfig | SpikingGptConfig,
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
    config : StudentConfig or SpikingGptConfig
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
    save_tensors(path, tensors, {"config": config.to_dict(), "rule": rule, "dtype": dtype})


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


Precisions = Literal["float64", "float32", "float16", "bfloat16", "tf32", "bf16_f32"]

#: What the metadata of a record say.
METADATA_KINDS = {"config": dict, "rule": Rule, "dtype": Precisions, "accumulate": Precisions | None}


def _said(file, path) -> dict[str, Any]:
    """Read a record's metadata."""
    said = parsed(f"{path}: the metadata {METADATA!r}", (file.metadata() or {}).get(METADATA, "null"))
    if not isinstance(said, dict) or not isinstance(said.get("config"), dict) or "rule" not in said:
        raise InputError(
            f"{path} is no spike record: its metadata key {METADATA!r} must hold a JSON object with config, rule and "
            "dtype; docs/certificates.md describes the format"
        )
    return checked(path, said, METADATA_KINDS, "", ("config", "rule", "dtype"))


def _described(values: Mapping[str, Any], batch: Batch, path) -> StudentConfig | SpikingGptConfig:
    """Read the description of a network, and make sure that it embeds these tokens."""
    config = described(values, path)
    if isinstance(config, SpikingGptConfig):
        check_ids(batch, config.gpt.vocab_size, 1, config.gpt.n_positions)
        return config
    checked_batch(batch, config.bert)
    return config.body


def _read(file, path, parameters: Params | None, dtype: str | None, accumulate: str | None) -> Record:
    keys = set(file.keys())
    said = _said(file, path)
    if missing := [name for name in Batch._fields if name not in keys]:
        raise InputError(f"{path} lacks {', '.join(missing)}, the tokens that the spikes answer to")
    if unknown := sorted(k for k in keys - set(Batch._fields) if not k.startswith(("spikes/", "param/"))):
        raise InputError(
            f"{path} holds {unknown[0]}, but a record has spikes/…, param/… and {', '.join(Batch._fields)}"
        )
    batch = Batch(*(file.get_tensor(name) for name in Batch._fields))
    config = _described(said["config"], batch, path)
    if parameters is None:
        parameters = {k.removeprefix("param/"): tensor(file, path, k) for k in keys if k.startswith("param/")}
        if not parameters:
            raise InputError(f"{path} holds no parameters (param/NAME); name the file that does with `params`")
    shapes = config.shapes
    if masks := sorted(name for name in parameters if name.endswith(".dropout")):
        raise InputError(f"{path}: there is a dropout mask {masks[0]}, but records are made without dropout")
    params = check_parameters({k: v for k, v in parameters.items() if k in shapes}, shapes, str(path))
    precision = Precision.named(dtype or said["dtype"], accumulate or said.get("accumulate"))
    return Record(config.network, params, batch, said["rule"], precision)


def read_record(path: str | os.PathLike, params: str | os.PathLike | None = None) -> tuple[Record, dict[str, Array]]:
    """Read a record and all of its spikes.

    Parameters
    ----------
    path : path
    params : path, optional
        A safetensors file with the parameters, where the record does not hold them.

    Returns
    -------
    record : Record
    spikes : dict
        Population name -> (T, B, N, width) array.

    Raises
    ------
    InputError
        A file is missing, truncated, or not a record.
    """
    safetensors = require("safetensors")
    path = existing(path, "the record")
    given = None if params is None else load_tensors(params)[0]
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            found = _read(file, path, given, None, None)
            keys = [key for key in file.keys() if key.startswith("spikes/")]
            return found, {key.removeprefix("spikes/"): tensor(file, path, key) for key in keys}
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}); it may be truncated") from None


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
        Timesteps held at once; by default as many as fit about a hundred megabytes.

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
        for key in file.keys():
            if key.startswith("spikes/"):  # `certify` says what is missing, and what is too much
                name = key.removeprefix("spikes/")
                spikes[name] = file.get_slice(key)
                if (kind := spikes[name].get_dtype()) not in NUMPY_TYPES:
                    raise InputError(f"{path}: the spikes are {kind}, which NumPy lacks; write them as bytes (uint8)")
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
