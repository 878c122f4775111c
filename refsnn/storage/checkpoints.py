"""Checkpoints: parameters in and out, under Hugging Face's names, ours, and those of the authors' program.

`docs/checkpoints.md` is the user's guide to this module.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..data.tokenizer import TOKENIZER
from ..errors import InputError
from ..files import atomic, existing, load_tensors, read_json, require, save_tensors, write_json
from ..model.parameters import Params, check_parameters
from ..model.shapes import BertConfig, head_shapes, network_shapes, teacher_shapes
from ..model.student import StudentConfig
from ..ops import Array
from .torch_files import read_torch

__all__ = [
    "bert_folder",
    "load_bert",
    "load_student",
    "load_teacher",
    "read_weights",
    "save_model",
]

#: Files that hold a model's weights; the first that a folder has is read.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def read_weights(source: str | os.PathLike) -> tuple[Path, dict[str, Array]]:
    """Read every tensor of a checkpoint.

    Parameters
    ----------
    source : path
        A file of safetensors or PyTorch; the index of several (``….index.json``); or a folder with one of `WEIGHTS`.

    Returns
    -------
    path : Path
        The file that was read.
    tensors : dict
        Half precision floats became float32. The arrays may be read-only.

    Raises
    ------
    InputError
        There is no such file, or it is damaged. No file is ever unpickled.
    """
    path = existing(source, "the checkpoint")
    if path.is_dir():
        found = [name for name in WEIGHTS if (path / name).exists()]
        if not found:
            raise InputError(f"{path} holds no weights; a file {WEIGHTS[0]} or {WEIGHTS[2]} was expected in it")
        path = path / found[0]
    return path, _read_shards(path) if path.suffix == ".json" else _read_file(path)


def _read_file(path: Path) -> dict[str, Array]:
    return load_tensors(path)[0] if path.suffix == ".safetensors" else read_torch(path)


def _read_shards(index: Path) -> dict[str, Array]:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(f"{index} is not the index of a checkpoint: it has no weight_map of names and files")
    shards = {}
    for file in dict.fromkeys(map(str, files.values())):
        if not re.fullmatch(r"[\w.-]+\.(safetensors|bin)", file):
            raise InputError(f"{index} names {file!r}, but a file .safetensors or .bin of its own folder was expected")
        shards[file] = _read_file(index.parent / file)
    missing = [name for name, file in files.items() if name not in shards[str(file)]]
    if missing:
        raise InputError(f"{index} says that {files[missing[0]]} holds {missing[0]}, which it does not")
    return {name: shards[str(file)][name] for name, file in files.items()}


def bert_folder(name: str | os.PathLike) -> Path:
    """Find the folder of a BERT, fetching it from the Hugging Face hub if there is none of that name.

    Parameters
    ----------
    name : path or str
        A folder; or the id of a model on the hub, such as ``google/bert_uncased_L-2_H-128_A-2``.

    Returns
    -------
    folder : Path
        With configuration, weights and vocabulary; what came from the hub stays in its cache.

    Raises
    ------
    InputError
        There is no such folder, and no such model that could be fetched.
    """
    folder = Path(name)
    if folder.exists() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(name)):
        return existing(folder, "the teacher")
    fetch = require("huggingface_hub").snapshot_download
    try:
        for weights in ("model*.safetensors*", "pytorch_model*.bin*"):  # the second only where the first are not
            folder = Path(fetch(str(name), allow_patterns=["config.json", *TOKENIZER, weights]))
            if any((folder / file).exists() for file in WEIGHTS):
                break
    except Exception as error:  # of any of the libraries that the hub's client is made of
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"the teacher {name} is neither a folder nor could it be fetched from the hub ({reason}); "
            "give a folder with config.json, model.safetensors and vocab.txt"
        ) from None
    return folder


def bert_config(path: Path, changes: Mapping[str, Any] | None = None) -> tuple[BertConfig, dict[str, Any]]:
    """Read a `config.json`: what of it we compute with, and everything."""
    values = read_json(path)
    try:
        return BertConfig.from_dict({**values, **(changes or {})}), values
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def bert_names(path: Path, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Give a BERT's parameters our names: without a prefix, and LayerNorm's not as TensorFlow calls them."""
    found: dict[str, Array] = {}
    for name, value in tensors.items():
        ours = re.sub(r"^(module\.)?(bert\.)?", "", name)
        ours = ours.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if ours in found:
            raise InputError(f"{path} holds {ours} twice, under names that mean the same; which one counts is unclear")
        found[ours] = value
    return found


def bert_shapes(config: BertConfig, found: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Wanted parameters of a BERT: embeddings, encoders, and the heads that there are."""
    heads = head_shapes(config, rows_of(found, "classifier.weight")).items()
    return network_shapes(config) | {n: shape for n, shape in heads if f"{n.rpartition('.')[0]}.weight" in found}


def rows_of(tensors: Mapping[str, Array], name: str) -> int:
    return len(np.atleast_1d(tensors.get(name, ())))


def load_bert(folder: str | os.PathLike, dtype: np.dtype | type = np.float32) -> tuple[BertConfig, Params]:
    """Read a BERT encoder in Hugging Face's layout: `config.json` and weights.

    Parameters
    ----------
    folder : path or str
        See `bert_folder`, and `read_weights` for the files. Parameter names may or may not begin with ``bert.``, and
        LayerNorm's may be the older ``gamma`` and ``beta``. Heads are left out.
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
    folder = bert_folder(folder)
    config, _ = bert_config(folder / "config.json")
    path, tensors = read_weights(folder)
    found = {n: value for n, value in bert_names(path, tensors).items() if not n.startswith("classifier.")}
    params = check_parameters(found, bert_shapes(config, found), path)
    return config, {name: value.astype(dtype) for name, value in params.items()}


def load_teacher(folder: str | os.PathLike) -> tuple[BertConfig, Params]:
    """Read a fine-tuned BERT, such as the teacher of a run.

    Parameters
    ----------
    folder : path
        As `load_bert` reads it, with pooler and classifier.

    Returns
    -------
    config : BertConfig
    params : dict
        With pooler and classifier.
    """
    folder = existing(folder, "the fine-tuned teacher")
    config, _ = bert_config(folder / "config.json")
    path, tensors = read_weights(folder)
    found = bert_names(path, tensors)
    return config, check_parameters(found, teacher_shapes(config, rows_of(found, "classifier.weight")), path)


def load_student(folder: str | os.PathLike) -> tuple[StudentConfig, Params]:
    """Read a student, such as that of a finished run.

    Parameters
    ----------
    folder : path
        With `config.json` and `model.safetensors`.

    Returns
    -------
    config : StudentConfig
    params : dict

    Raises
    ------
    InputError
        The folder holds no student, or a file of it is damaged.
    """
    folder = existing(folder, "the student's folder")
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no finished student; run `refsnn distill … --out {folder}` to its end first")
    config = StudentConfig.from_dict(read_json(folder / "config.json"), folder / "config.json")
    if not config.classes or not config.teacher_width:
        raise InputError(f"{folder / 'config.json'} is not a student's: it lacks teacher_width or classes")
    path = folder / "model.safetensors"
    return config, check_parameters(load_tensors(path)[0], config.shapes, path)


def save_model(folder: Path, config: Mapping[str, Any], params: Mapping[str, Array], tokenizer: Path) -> None:
    """Write a model's folder: `model.safetensors`, its tokenizer's files and, at last, `config.json`.

    Parameters
    ----------
    folder : Path
    config : mapping
    params : mapping
    tokenizer : Path
        Folder to copy the tokenizer's files from.
    """
    folder.mkdir(exist_ok=True)
    save_tensors(folder / "model.safetensors", params, {"refsnn": __version__})
    save_description(folder, config, tokenizer)


def save_description(folder: Path, config: Mapping[str, Any], tokenizer: Path) -> None:
    for name in TOKENIZER:
        if (tokenizer / name).exists():
            with atomic(folder / name) as temporary:
                shutil.copyfile(tokenizer / name, temporary)
    write_json(folder / "config.json", config)
