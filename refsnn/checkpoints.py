"""Checkpoints: parameters in and out, under Hugging Face's names, ours, and those of the authors' program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .config import BertConfig
from .errors import InputError
from .files import existing, load_tensors, read_json
from .network import Params, network_shapes
from .ops import Array

__all__ = ["authors_names", "check_parameters", "load_bert"]


def check_parameters(params: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], source: object) -> Params:
    """Pick the wanted parameters and make sure of their presence, shape, type and finiteness.

    Parameters
    ----------
    params : mapping
        What a checkpoint holds; names that are not wanted are left out.
    shapes : mapping
        What is wanted.
    source : object
        Names the checkpoint in messages.

    Returns
    -------
    params : dict
        In the order of `shapes`.

    Raises
    ------
    InputError
        One sentence about the first parameter that does not fit.
    """
    for name, shape in shapes.items():
        if name not in params:
            raise InputError(f"{source} lacks the parameter {name}; it holds {len(params)} others")
        value = params[name]
        if value.shape != shape:
            raise InputError(f"{source}: {name} has shape {value.shape}, but the configuration asks for {shape}")
        if value.dtype.kind != "f":
            raise InputError(f"{source}: {name} is of type {value.dtype}, but parameters are floating-point numbers")
        if not np.isfinite(value).all():
            raise InputError(
                f"{source}: {name} holds NaN or infinite values, so nothing computed from it would mean anything"
            )
    return {name: params[name] for name in shapes}


def load_bert(folder: str | os.PathLike, dtype: np.dtype | type = np.float32) -> tuple[BertConfig, Params]:
    """Read a BERT encoder in Hugging Face's layout: `config.json` and `model.safetensors`.

    Parameters
    ----------
    folder : path
        Parameter names may or may not begin with ``bert.``.
    dtype : dtype

    Returns
    -------
    config : BertConfig
    params : dict
        Embeddings and encoders, and the pooler where there is one.

    Raises
    ------
    InputError
        A file is missing or malformed, or the parameters do not fit the configuration.
    """
    folder = existing(folder, "the teacher")
    try:
        config = BertConfig.from_dict(read_json(folder / "config.json"))
    except InputError as error:
        raise InputError(f"{folder / 'config.json'}: {error}") from None
    path = folder / "model.safetensors"
    found = {name.removeprefix("bert."): value for name, value in load_tensors(path)[0].items()}
    shapes = network_shapes(config)
    d = config.hidden_size
    if "pooler.dense.weight" in found:
        shapes |= {"pooler.dense.weight": (d, d), "pooler.dense.bias": (d,)}
    params = check_parameters(found, shapes, Path(path))
    return config, {name: value.astype(dtype) for name, value in params.items()}


def authors_names(encoders: int) -> dict[str, str]:
    """Parameter names of the authors' program, and ours.

    There the six populations of encoder e (from 0) are ``network_s{6e+1}`` … ``network_s{6e+6}``, the embedding is
    ``network_x`` and the feedback ``network_s{6·encoders+1}``.

    Parameters
    ----------
    encoders : int

    Returns
    -------
    names : dict
        Theirs -> ours.

    Examples
    --------
    >>> authors_names(4)["network_s9.query.bias"]
    'encoder.layer.1.attention.self.query.bias'
    """
    prefixes = {f"network_s{6 * encoders + 1}.fc": "feedback", "fit_dense": "fit", "classification": "classifier"}
    for part in ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm"):
        prefixes[f"network_x.{part}"] = f"embeddings.{part}"
    for e in range(encoders):
        ours = f"encoder.layer.{e}"
        prefixes |= {
            f"network_s{6 * e + 1}.dense": f"{ours}.attention.self.key",
            f"network_s{6 * e + 2}.dense": f"{ours}.attention.self.value",
            f"network_s{6 * e + 3}.query": f"{ours}.attention.self.query",
            f"network_s{6 * e + 4}.dense": f"{ours}.attention.output.dense",
            f"network_s{6 * e + 4}.LayerNorm": f"{ours}.attention.output.LayerNorm",
            f"network_s{6 * e + 5}.dense": f"{ours}.intermediate.dense",
            f"network_s{6 * e + 6}.dense": f"{ours}.output.dense",
            f"network_s{6 * e + 6}.LayerNorm": f"{ours}.output.LayerNorm",
        }
    return {f"{a}.{kind}": f"{b}.{kind}" for a, b in prefixes.items() for kind in ("weight", "bias")}
