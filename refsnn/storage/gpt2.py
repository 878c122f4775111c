"""GPT-2 as Hugging Face stores it: `config.json` and weights, in and out.

Their file has query, key and value of a block in one tensor ``attn.c_attn``, and every matrix of a block is (in, out);
here the three stand by themselves and matrices are (out, in). `refsnn.model.gpt.gpt_shapes` has our names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import atomic, existing, new_folder, read_json, require, write_json
from ..model.gpt import GptConfig, gpt_shapes
from ..model.parameters import Params, check_parameters
from ..ops import Array
from .checkpoints import read_weights

__all__ = ["load_gpt", "save_gpt"]

#: What the fused tensor holds, in its order.
FUSED = ("query", "key", "value")

#: Numbers in older checkpoints that are no parameters: the causal mask.
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")

#: The matrix that logits are read off with. GPT-2 has it from the table of tokens.
HEAD, TABLE = "lm_head.weight", "wte.weight"


def load_gpt(folder: str | os.PathLike, dtype: np.dtype | type = np.float32) -> tuple[GptConfig, Params]:
    """Read a GPT-2 of any size in Hugging Face's layout.

    Parameters
    ----------
    folder : path
        With `config.json` and weights; see `refsnn.storage.checkpoints.read_weights` for the files. Parameter names may
        or may not begin with ``transformer.``.
    dtype : dtype

    Returns
    -------
    config : GptConfig
    params : dict
        Names and shapes are those of `refsnn.model.gpt.gpt_shapes`.

    Raises
    ------
    InputError
        A file is missing or malformed, it is another model than GPT-2, or the parameters do not fit the configuration.

    Examples
    --------
    >>> import tempfile
    >>> from refsnn.model.gpt import initial_gpt
    >>> config = GptConfig(vocab_size=7, n_positions=5, n_embd=4, n_layer=1, n_head=2)
    >>> params = initial_gpt(config, np.random.default_rng(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_gpt(folder, config, params)
    ...     again, found = load_gpt(folder)
    >>> again == config, all(np.array_equal(found[name], value) for name, value in params.items())
    (True, True)
    """
    folder = existing(folder, "the GPT-2")
    config = _config(folder / "config.json")
    path, tensors = read_weights(folder)
    found = {name: value for name, value in _names(path, tensors).items() if not BUFFERS.fullmatch(name)}
    shapes = _stored_shapes(config)
    stored = check_parameters(found, shapes, path)
    if HEAD in found and not np.array_equal(found.pop(HEAD), stored[TABLE]):
        raise InputError(
            f"{path}: {HEAD} differs from {TABLE}, but a GPT-2 reads its logits off with the table of its tokens; "
            "refsnn computes tied weights only"
        )
    if other := next((name for name in found if name not in shapes), None):
        raise InputError(
            f"{path} holds {other}, which a GPT-2 of {config.n_layer} blocks does not have; "
            "config.json describes another model than the weights are of"
        )
    return config, _ours(config, stored, dtype)


def save_gpt(folder: str | os.PathLike, config: GptConfig, params: Mapping[str, Array]) -> None:
    """Write a GPT-2 that Hugging Face reads: `model.safetensors` and, at last, `config.json`, each atomically.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    config : GptConfig
    params : mapping
        As `load_gpt` returns them; others, such as a student's thresholds, are left out.

    Raises
    ------
    InputError
        A parameter is missing or has another shape, or the folder cannot be written.
    """
    folder = new_folder(folder)
    params = check_parameters(params, gpt_shapes(config), "the GPT-2")
    stored = {f"transformer.{name}": np.ascontiguousarray(value) for name, value in _theirs(params).items()}
    contents = require("safetensors.numpy").save(stored, {"format": "pt"})  # without it, Hugging Face reads nothing
    with atomic(folder / "model.safetensors") as temporary:
        temporary.write_bytes(contents)
    write_json(folder / "config.json", {**config.to_dict(), "architectures": ["GPT2LMHeadModel"]})


def _config(path: Path) -> GptConfig:
    values = read_json(path)
    if values.get("model_type") == "spiking_gpt":
        raise InputError(f"{path.parent} is a run's student, which is no GPT-2; name a folder that holds a GPT-2")
    try:
        return GptConfig.from_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _names(path: Path, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Take the prefixes off that a whole model's parameters have."""
    found: dict[str, Array] = {}
    for name, value in tensors.items():
        plain = re.sub(r"^(module\.)?(transformer\.)?", "", name)
        if plain in found:
            raise InputError(f"{path} holds {plain} twice, with a prefix and without; which one counts is unclear")
        found[plain] = value
    return found


def _stored_shapes(config: GptConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in Hugging Face's file."""
    shapes = {}
    for name, shape in gpt_shapes(config).items():
        if ".attn.query." in name:
            name, shape = name.replace("query", "c_attn"), (len(FUSED) * shape[0], *shape[1:])
        elif ".attn.key." in name or ".attn.value." in name:
            continue
        shapes[name] = shape[::-1] if name.startswith("h.") else shape
    return shapes


def _ours(config: GptConfig, stored: Mapping[str, Array], dtype: np.dtype | type) -> Params:
    found: Params = {}
    for name, value in stored.items():
        turned = value.T if name.startswith("h.") else value  # vectors stay as they are
        if "c_attn" in name:
            shares = np.split(turned, len(FUSED))
            found |= {name.replace("c_attn", part): share for part, share in zip(FUSED, shares, strict=True)}
        else:
            found[name] = turned
    return {name: np.array(found[name], dtype, order="C") for name in gpt_shapes(config)}


def _theirs(params: Mapping[str, Array]) -> Params:
    found = {}
    for name, value in params.items():
        if ".attn.query." in name:
            value = np.concatenate([params[name.replace("query", part)] for part in FUSED])
            name = name.replace("query", "c_attn")
        elif ".attn.key." in name or ".attn.value." in name:
            continue
        found[name] = value.T if name.startswith("h.") else value
    return found
